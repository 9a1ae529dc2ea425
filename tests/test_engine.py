"""Flights that overlap: what counts of a refresh that was given up, superseded or is late."""

import pytest
from azure.core.credentials import AccessToken

from fakes import BareEngine, Clock, on_clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(clock):
    return on_clock(BareEngine, clock)(None, lambda: None, None, True, None)


def pilot(engine, claims=None):
    turn = engine._next(claims)
    assert turn.is_pilot
    return turn.flight


def token(clock, text, life):
    return AccessToken(text, int(clock.wall() + life))


@pytest.mark.parametrize("claims", [None, "c"])
def test_a_late_result_counts_only_if_it_is_newer(engine, clock, claims):
    """Whoever waited for it gets a token either way, the better of the two."""
    slow = pilot(engine, claims)
    clock.advance(60)
    fast = pilot(engine, claims)
    engine._land(fast, token(clock, "fast", 600), None)
    engine._land(slow, token(clock, "older", 300), None)
    assert engine._next(None).token.token == "fast"
    assert slow.token.token == "fast"

    slow = pilot(engine, "d")
    clock.advance(60)
    engine._land(pilot(engine, "d"), token(clock, "fast2", 600), None)
    engine._land(slow, token(clock, "newer", 900), None)
    assert slow.token.token == "newer"
    assert engine._next(None).token.token == "newer"


def test_a_late_failure_says_nothing(engine, clock):
    """It reaches those who waited for it and changes no hold."""
    slow = pilot(engine)
    clock.advance(60)
    fast = pilot(engine)
    engine._land(slow, None, ConnectionError("late"))
    assert str(slow.error) == "late"
    assert engine._state.failures == 0
    assert engine._next(None).flight is fast


def test_a_flight_that_was_given_up_leaves_no_trace(engine):
    """The next caller flies again, and nobody is told of a failure."""
    flight = pilot(engine)
    engine._land(flight, None, None)
    assert (flight.token, flight.error) == (None, None)
    assert engine.woken is flight
    assert pilot(engine) is not flight


def test_a_caller_without_claims_boards_any_flight_that_is_not_overdue(engine, clock):
    """A token with claims serves those who ask for none, but not the other way round."""
    plain = pilot(engine)
    forced = pilot(engine, "c")
    assert engine._next(None).flight is plain
    assert engine._next("c").flight is forced
    clock.advance(30)
    other = pilot(engine, "d")
    clock.advance(30)
    assert engine._next(None).flight is other
    assert pilot(engine, "c") is not forced


def test_the_background_starts_none_beside_one_that_hangs(engine, clock):
    """Each try would occupy another worker; a caller in need still may."""
    hanging = engine._next(None, ahead=True)
    assert hanging.is_pilot
    clock.advance(3600)
    assert not engine._next(None, ahead=True).is_pilot
    assert pilot(engine) is not hanging.flight


def test_a_claims_flight_that_was_given_up_returns_no_token_without_them(engine, clock):
    """The valid token would not satisfy the one who asked for claims."""
    engine._land(pilot(engine), token(clock, "t", 3600), None)
    forced = pilot(engine, "c")
    engine._land(forced, None, None)
    assert forced.token is None
    forced = pilot(engine, "c")
    engine._land(forced, None, ConnectionError("down"))
    assert (forced.token, str(forced.error)) == (None, "down")
    assert engine._next(None).token.token == "t"


def test_closing_ends_every_flight(engine, clock):
    """Those who wait are told at once, and a result that comes later is dropped."""
    flight = pilot(engine)
    engine._close()
    assert engine.woken is flight
    assert "closed" in str(flight.error)
    assert engine.armed is None
    engine._land(flight, token(clock, "t", 3600), None)
    assert flight.token is None
    assert engine._state.token is None


def test_every_outcome_arms_the_background_again(engine, clock):
    """A success, a failure with and without a valid token."""
    engine._land(pilot(engine), None, ConnectionError("down"))
    assert engine.armed == clock.wall() + 5
    engine._land(pilot(engine), token(clock, "t", 3600), None)
    assert engine.armed == clock.wall() + 3000
    clock.advance(3000)
    engine._land(engine._next(None, ahead=True).flight, None, ConnectionError("down"))
    assert engine.armed == clock.wall() + 300


def test_closing_while_a_result_is_taken_in_leaves_nothing_armed(engine, clock, monkeypatch):
    """The close comes between the new state and the arming for it."""
    arm = type(engine)._arm

    def arm_late(self, state, now):
        self._close()
        arm(self, state, now)

    monkeypatch.setattr(type(engine), "_arm", arm_late)
    engine._land(pilot(engine), token(clock, "t", 3600), None)
    assert engine.armed is None
