"""Flights that overlap: what counts of a refresh that was given up, superseded or is late."""

import contextvars

import pytest
from azure.communication.common._engine import ABOARD
from azure.core.credentials import AccessToken

from scaffolding import BareEngine, Clock, on_clock


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


def test_the_background_is_armed_again_though_it_came_by_during_another_flight(engine, clock):
    """It leaves a flight for claims alone, and that one may fail and change nothing."""
    engine._land(pilot(engine), token(clock, "t", 3600), None)
    forced = pilot(engine, "c")
    clock.advance(3000)
    engine._entry, engine.armed = 0, None  # the scheduler has taken it out
    assert engine._next_ahead() is None
    engine._land(forced, None, ConnectionError("down"))
    assert engine.armed == engine._state.due_on


def test_the_background_comes_again_when_the_hold_is_over(engine, clock):
    """After refusals in a row, with the old entry due inside the hold."""
    for text in ("a", "b", "c"):
        engine._land(pilot(engine), token(clock, text, 60), None)
        engine.invalidate_token(text)
        clock.advance(max(engine._state.retry_at - clock.mono(), 0) * (text != "c"))
    assert engine._state.retry_at > clock.mono()
    engine.armed = None
    assert engine._next_ahead() is None
    assert engine.armed == clock.wall() + 5


@pytest.mark.parametrize("claims", [None, "c"])
@pytest.mark.parametrize("asked", [None, "c", "d"])
def test_a_refresher_never_starts_another_refresh_of_its_own_credential(
    engine, clock, claims, asked
):
    """Whatever claims it asks for, and even if it is overdue: there is a token, or an error."""
    flight = pilot(engine, claims)
    mark = ABOARD.set((flight,))
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="asked its own credential"):
                engine._next(asked)
            clock.advance(60)
        other = contextvars.Context().run(pilot, engine, "other")
        engine._land(other, token(clock, "t", 3600), None)
        assert engine._next(None).token.token == "t"
    finally:
        ABOARD.reset(mark)


def test_no_code_of_the_refreshers_runs_under_the_lock(engine, clock):
    """Its exception may do anything when it is copied or printed."""
    seen = []

    class Nosy(Exception):
        def __str__(self):
            seen.append(engine._lock._is_owned())
            return "nosy"

    engine._land(pilot(engine), None, Nosy())
    assert seen
    assert not any(seen)


@pytest.mark.parametrize(("left", "patience"), [(100, 10), (20, 10), (4, 2)])
def test_a_valid_token_in_hand_limits_how_long_its_owner_waits(engine, clock, left, patience):
    """Ten seconds, or half of the life that is left."""
    engine._land(pilot(engine), token(clock, "t", 3600), None)
    clock.advance(3600 - left)
    flight = pilot(engine)
    assert engine._patience(flight) == patience


def test_without_one_the_wait_is_for_the_rest_of_the_minute(engine, clock):
    """Claims have no other token that would do."""
    flight = pilot(engine)
    clock.advance(20)
    assert engine._patience(flight) == 40
    engine._land(flight, token(clock, "t", 3600), None)
    assert engine._patience(pilot(engine, "c")) == 60
