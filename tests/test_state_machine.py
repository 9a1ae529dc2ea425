"""Random histories of one credential: asks, outcomes in any order, clocks that jump, refusals.

The machine flies the engine by hand, with the two calls that both drivers make: ``_next`` when a
caller asks and ``_land`` when a refresh has ended. So a refresh can take any time, end late, be
given up, or never end, and no thread or loop is needed. Numbers in comments are the invariants of
the design notes on refresh engines.
"""

import logging

import pytest
from azure.communication.common._refresh import INFINITY, Flight
from azure.core.credentials import AccessToken
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from scaffolding import BareEngine, Clock, on_clock


class Busy(Exception):
    """A failure with a Retry-After."""

    def __init__(self, seconds):
        super().__init__("busy")
        self.response = type("Response", (), {"headers": {"Retry-After": str(seconds)}})()


def unused_refresher():
    raise AssertionError


LIVES = st.sampled_from([1, 5, 60, 119, 240, 600, 1300, 3600, 86_400])
SPANS = st.floats(0, 5) | st.floats(0, 200) | st.floats(0, 90_000)
OUTCOMES = [
    *("fresh", "fresh", "same", "earlier", "expired", "refused"),
    *("error", "busy", "garbage", "given_up"),
]
CLAIMS = st.sampled_from([None, None, None, "c", "d"])


class Credential(RuleBasedStateMachine):
    """One credential with a refresher, and everything that can happen to it."""

    flights = Bundle("flights")

    @initialize(life=st.none() | LIVES, proactive=st.booleans(), jitter=st.floats(0, 1))
    def construct(self, life, proactive, jitter):
        self.clock = Clock()
        self.serial = 0
        self.deadlines = {}
        self.refused = set()
        self.closed = False
        self.under_way = []
        self.forget_calls()
        first = None if life is None else self.issue(life)
        self.engine = on_clock(BareEngine, self.clock, jitter)(
            first, unused_refresher, None, proactive, None
        )
        self.note_token(before=None)

    def issue(self, life):
        self.serial += 1
        return AccessToken(f"t{self.serial}", int(self.clock.wall() + life))

    def forget_calls(self):
        """Start counting anew how often the issuer is asked for nothing."""
        self.calls, self.counted_from = 0, self.clock.mono()

    def note_token(self, before):
        token = self.engine._state.token
        if token is not None and token is not before:
            deadline = self.clock.mono() + token.expires_on - self.clock.wall()
            self.deadlines[token.token] = deadline
            self.forget_calls()

    def is_valid(self, token):
        by_wall = token.expires_on > self.clock.wall()
        by_mono = self.deadlines[token.token] > self.clock.mono()
        return by_wall and by_mono and token.token not in self.refused

    def is_overdue(self, flight):
        return self.clock.mono() >= flight.started_at + 60

    @rule(target=flights, claims=CLAIMS, ahead=st.booleans())
    def ask(self, claims, ahead):
        engine, held = self.engine, self.engine._state.token
        ahead = ahead and claims is None and engine._proactive
        may_raise = claims is not None or ahead or held is None or not self.is_valid(held)
        young = [f for f in self.under_way if not self.is_overdue(f)]
        registered = engine._flights
        try:
            turn = engine._next(claims, ahead=ahead)
        except RuntimeError:
            assert self.closed  # 17: terminal
            return multiple()
        except Exception:
            assert may_raise  # 2: a failure never reaches a caller while the token is valid
            assert not self.closed
            return multiple()
        assert not self.closed
        if turn.token is not None:
            assert self.is_valid(turn.token)  # 3: neither expired nor refused
            info = engine._info(turn.token)
            assert info.refresh_on <= info.expires_on - 75  # 10
            return multiple()
        if not turn.is_pilot:
            # 2: nobody waits for another's refresh with a valid token in hand
            assert ahead or claims is not None or held is None or not self.is_valid(held)
            assert turn.flight in young or ahead
            return multiple()
        # 1: one live flight for each kind of request
        assert not any(claims is None or f.claims == claims for f in young)
        assert not (ahead and registered)  # even an overdue one may hold a worker
        self.under_way.append(turn.flight)
        if claims is None:
            self.calls += 1
            # 6: however the issuer answers, it is not asked in vain more often than this
            assert self.calls <= 6 + (self.clock.mono() - self.counted_from) / 5
        return turn.flight

    @rule(outcome=st.sampled_from(OUTCOMES), times=st.integers(1, 20), life=LIVES)
    def ask_again_and_again(self, outcome, times, life):
        """Callers do not wait, and refreshes end at once."""
        for _ in range(times):
            flight = self.ask(None, ahead=False)
            if isinstance(flight, Flight):
                self.land(flight, outcome, life)

    @rule(
        flight=consumes(flights),
        outcome=st.sampled_from(OUTCOMES),
        life=LIVES,
    )
    def land(self, flight, outcome, life):
        self.under_way.remove(flight)
        before, held = self.engine._state, self.engine._state.token
        token = error = None
        if outcome == "fresh":
            token = self.issue(life)
        elif outcome == "same":
            token = held or self.issue(life)
        elif outcome == "earlier":
            token = self.issue(1)
        elif outcome == "expired":
            token = self.issue(-1)
        elif outcome == "refused":
            refused = sorted(self.refused) or ["t0"]
            token = AccessToken(refused[-1], int(self.clock.wall() + life))
        elif outcome == "error":
            error = ConnectionError("down")
        elif outcome == "garbage":
            with pytest.raises(ValueError, match="is not a JWT") as caught:
                self.engine._read("garbage")
            error = caught.value
        elif outcome == "busy":
            error = Busy(life % 200)
        else:  # nothing was learned, so a caller may try at once
            self.calls = max(0, self.calls - 1)
        was_valid = held is not None and self.is_valid(held)
        is_late = flight not in self.engine._flights
        self.engine._land(flight, token, error)
        now_held = self.engine._state.token
        if was_valid and not self.closed:
            assert now_held is not None  # nothing good is lost
            if flight.claims is None or is_late:
                assert now_held.expires_on >= held.expires_on  # 9
        self.note_token(held)
        if self.closed:
            assert flight.token is None
            assert self.engine._state is before
        elif flight.token is not None:
            assert self.is_valid(flight.token) or flight.token is held
        else:
            assert flight.error is not None or outcome == "given_up"

    @rule(seconds=SPANS)
    def let_time_pass(self, seconds):
        self.clock.advance(seconds)

    @rule(seconds=SPANS)
    def suspend(self, seconds):
        self.clock.suspend(seconds)
        self.forget_calls()

    @rule(seconds=st.floats(-90_000, 90_000) | st.floats(-30, 30))
    def set_the_wall_clock(self, seconds):
        self.clock.set_wall(self.clock.wall() + seconds)
        self.forget_calls()

    @rule()
    def refuse_the_current_token(self):
        token = self.engine._state.token
        if token is not None:
            self.engine.invalidate_token(token.token)
            self.refused.add(token.token)
            self.forget_calls()
            assert self.engine._state.token is None

    @rule(data=st.data())
    def refuse_another_token(self, data):
        state = self.engine._state
        others = [text for text in self.deadlines if not state.token or text != state.token.token]
        self.engine.invalidate_token(data.draw(st.sampled_from([*others, "never issued"])))
        assert self.engine._state is state

    @rule()
    def wait_for_the_next_moment(self):
        """Move on to when something may happen next, so that refreshes are frequent."""
        state = self.engine._state
        ahead = [moment - self.clock.wall() for moment in (state.ask_on, state.due_on)]
        ahead.append(state.retry_at - self.clock.mono())
        self.clock.advance(min((each for each in ahead if 0 < each < 1e6), default=0) + 0.001)

    @precondition(lambda self: self.serial > 3)
    @rule()
    def close(self):
        self.engine._close()
        self.closed = True
        assert self.engine._flights == ()

    @invariant()
    def holds_no_more_than_it_should(self):
        if not hasattr(self, "engine"):
            return
        state, engine = self.engine._state, self.engine
        assert "t" + str(self.serial) not in repr(engine)
        if self.closed:
            assert state.token is None
            return
        # What is returned without another thought is valid.
        if state.ask_on > self.clock.wall() and state.ask_at > self.clock.mono():
            assert self.is_valid(state.token)
        if engine._proactive and state.token is not None:
            assert state.due_on < INFINITY  # the next background try is always known
        keys = [f.claims for f in engine._flights if not self.is_overdue(f)]
        assert len(keys) == len(set(keys))


logging.getLogger("azure.communication.common").addHandler(logging.NullHandler())
Credential.TestCase.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
TestCredential = Credential.TestCase
