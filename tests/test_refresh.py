"""The rules by themselves: plain functions of a state, a flight and a time."""

import math

import pytest
from azure.communication.common import _refresh
from azure.communication.common._refresh import Action, Flight, Now, State
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from hypothesis import given
from hypothesis import strategies as st

T0 = 1_700_000_000


def at(seconds, mono=None):
    """The time so many seconds after the start, by both clocks or each its own."""
    return Now(T0 + seconds, 1_000 + (seconds if mono is None else mono))


def token(life, text="t", since=0):
    return AccessToken(text, T0 + since + life)


def started(life, *, proactive=False):
    return _refresh.start(State(), token(life), at(0), proactive=proactive)


def error(retry_after=None):
    failure = HttpResponseError("busy")
    if retry_after is not None:
        failure.response = type("Response", (), {"headers": {"Retry-After": retry_after}})()
    return failure


def failed(state, now, *, failure=None, claims=None, jitter=0.0, proactive=False):
    failure = _refresh.read_failure(failure or ValueError("down"))
    return _refresh.fail(state, failure, now, claims, jitter=jitter, proactive=proactive)


@pytest.mark.parametrize(
    ("life", "window"),
    [(1, 0.5), (8, 4), (90, 45), (239, 119.5), (240, 120), (241, 120), (3600, 120), (86400, 120)],
)
def test_callers_refresh_in_the_last_two_minutes_or_half_of_a_shorter_life(life, window):
    """The on-demand window is min(120 s, L/2)."""
    state = started(life)
    start = life - window
    assert _refresh.decide(state, at(start - 0.001)) is Action.RETURN
    assert _refresh.decide(state, at(start)) is Action.REFRESH
    assert _refresh.decide(state, at(life - 0.001)) is Action.REFRESH
    assert _refresh.refresh_on(state, state.token) == int(min(T0 + start, T0 + life - 75))


@pytest.mark.parametrize(
    ("life", "window"),
    [(1, 0.5), (8, 4), (599, 299.5), (601, 300.5), (1199, 599.5), (1200, 600), (3600, 600)],
)
def test_the_background_refreshes_ten_minutes_before_expiry_or_half_way(life, window):
    """The proactive window is min(600 s, L/2), and callers keep their own."""
    state = started(life, proactive=True)
    assert state.due_on == T0 + life - window
    assert _refresh.refresh_on(state, state.token) == int(min(T0 + life - window, T0 + life - 75))
    callers_window = min(120, life / 2)
    assert _refresh.decide(state, at(life - callers_window - 0.001)) is Action.RETURN
    assert _refresh.decide(state, at(life - callers_window)) is Action.REFRESH


@given(st.floats(0.001, 4e9), st.booleans())
def test_windows_have_no_cliff_and_never_overflow(life, proactive):
    """Whatever the life, the token is good at once, due before it ends, and told in time."""
    expiring = AccessToken("t", T0 + life)
    state = _refresh.start(State(), expiring, at(0), proactive=proactive)
    assert _refresh.decide(state, at(0)) is Action.RETURN
    assert T0 + life / 2 - 1e-3 <= state.ask_on <= T0 + life
    assert _refresh.refresh_on(state, expiring) <= T0 + life - 75
    assert state.due_on == (state.ask_on if proactive else math.inf)


@pytest.mark.parametrize(
    ("now", "action"),
    [
        (at(3599.9), Action.REFRESH),
        (at(3600), Action.REFRESH),
        (at(3600, mono=10), Action.REFRESH),  # the machine slept, the monotonic clock with it
        (at(10, mono=3600), Action.REFRESH),  # the wall clock was set back
        (at(10, mono=3480), Action.REFRESH),
        (at(3480, mono=10), Action.REFRESH),
        (at(-5000, mono=10), Action.RETURN),
    ],
)
def test_the_earlier_of_two_clocks_decides(now, action):
    """Neither a suspended machine nor a clock that was set back keeps a token alive."""
    assert _refresh.decide(started(3600), now) is action


def test_life_left_is_by_the_earlier_clock():
    """An expired token has no life left, whichever clock says so."""
    state = started(100)
    assert _refresh.life_left(state, at(30)) == 70
    assert _refresh.life_left(state, at(30, mono=90)) == 10
    assert _refresh.life_left(state, at(90, mono=30)) == 10
    assert _refresh.life_left(state, at(100)) <= 0
    assert _refresh.life_left(State(), at(0)) == 0


def flight(started_at=1_000.0, *, lost=False):
    kind = type("Lost", (Flight,), {"is_lost": lambda self: True}) if lost else Flight
    return kind(None, started_at, ahead=False)


@pytest.mark.parametrize(
    ("under_way", "now", "overdue"),
    [
        (flight(), at(0), False),
        (flight(), at(59.9), False),
        (flight(), at(60), True),
        (flight(), at(60, mono=59), False),
        (flight(lost=True), at(0), True),
    ],
)
def test_a_newcomer_may_start_another_refresh_after_a_minute(under_way, now, overdue):
    """Nobody waits longer for a refresh that hangs, or at all for one that can never end."""
    assert under_way.is_overdue(now) is overdue


EMPTY, VALID = State(), started(3600)


@pytest.mark.parametrize(
    ("state", "now", "claims", "alone", "with_a_refresh_under_way"),
    [
        (EMPTY, at(0), None, Action.REFRESH, Action.WAIT),
        (EMPTY, at(0), "c", Action.REFRESH, Action.WAIT),
        (VALID, at(0), None, Action.RETURN, Action.RETURN),
        (VALID, at(3500), None, Action.REFRESH, Action.RETURN),
        (VALID, at(3600), None, Action.REFRESH, Action.WAIT),
        (VALID, at(0), "c", Action.REFRESH, Action.WAIT),
        (_refresh.CLOSED, at(0), None, Action.RAISE, Action.RAISE),
        (_refresh.CLOSED, at(0), "c", Action.RAISE, Action.RAISE),
    ],
)
def test_what_a_caller_does_next(state, now, claims, alone, with_a_refresh_under_way):
    """The table at the top of the module."""
    assert _refresh.decide(state, now, claims=claims) is alone
    assert _refresh.decide(state, now, claims=claims, under_way=True) is with_a_refresh_under_way


def test_the_background_does_not_wait_for_the_callers_window():
    """What is due is refreshed although callers would still leave it alone."""
    state = started(3600, proactive=True)
    assert _refresh.decide(state, at(3000), ahead=True) is Action.REFRESH
    assert _refresh.decide(state, at(3000)) is Action.RETURN
    assert _refresh.decide(state, at(3000), ahead=True, under_way=True) is Action.RETURN


def test_claims_are_answered_by_the_token_that_they_just_brought():
    """Ten clients with one challenge cause one refresh, but a later challenge another."""
    state = _refresh.succeed(VALID, token(7200, "n"), at(10), "c", proactive=False)
    assert state.token.token == "n"
    assert _refresh.decide(state, at(39), claims="c") is Action.RETURN
    assert _refresh.decide(state, at(40), claims="c") is Action.REFRESH
    assert _refresh.decide(state, at(11), claims="other") is Action.REFRESH
    assert _refresh.decide(state, at(11)) is Action.RETURN


def test_claims_may_bring_a_token_that_expires_sooner():
    """What was forced is taken, though not where it is the same token: that one just stays."""
    state = _refresh.succeed(VALID, token(60, "n"), at(10), "c", proactive=False)
    assert state.token == token(60, "n")
    state = _refresh.succeed(VALID, VALID.token, at(100), "c", proactive=False)
    assert (state.token, state.claims) == (VALID.token, "c")
    assert state.ask_on == VALID.ask_on
    assert _refresh.decide(state, at(129), claims="c") is Action.RETURN
    assert _refresh.decide(state, at(130), claims="c") is Action.REFRESH


def test_a_token_that_expired_by_one_clock_does_not_stand_in_the_way():
    """Its expiry by the other clock may be later than that of the token that replaces it."""
    state = _refresh.succeed(VALID, token(1800, "n"), at(0, mono=3600), None, proactive=False)
    assert state.token == token(1800, "n")
    assert _refresh.life_left(state, at(0, mono=3600)) == 1800


@pytest.mark.parametrize(
    ("left", "pause"), [(120, 60), (60, 30), (20, 10), (10, 5), (8, 5), (5, 5), (3, 3), (0.5, 0.5)]
)
@pytest.mark.parametrize("outcome", ["failure", "no progress"])
def test_with_a_valid_token_the_next_try_is_half_way_to_expiry(left, pause, outcome):
    """After a failure, or a token that expires no later: max(5 s, half the life), never later."""
    now = at(3600 - left)
    if outcome == "failure":
        state = failed(VALID, now)
    else:
        state = _refresh.succeed(VALID, token(3600, "other"), now, None, proactive=False)
    assert state.token == VALID.token
    assert state.error is None
    just_before = at(3600 - left + pause - 0.001)
    assert _refresh.decide(state, just_before) is Action.RETURN
    assert _refresh.decide(state, at(3600 - left + pause)) is Action.REFRESH
    expected = min(T0 + 3600 - left + pause, T0 + 3600 - 75)
    assert _refresh.refresh_on(state, state.token) == int(expected)
    assert state.due_on == math.inf


def test_a_failed_proactive_try_is_followed_by_the_next():
    """Ten minutes, five, two and a half, one and a quarter before expiry; then a success."""
    state = started(3600, proactive=True)
    tries = []
    while len(tries) < 4:
        tries.append(T0 + 3600 - state.due_on)
        state = failed(state, at(state.due_on - T0), proactive=True)
    assert tries == [600, 300, 150, 75]
    state = _refresh.succeed(state, token(7200), at(3570), None, proactive=True)
    assert state.due_on == T0 + 7200 - 600


@pytest.mark.parametrize(
    ("nth", "hold"),
    [(1, 0), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 30), (9, 30), (50, 30)],
)
def test_without_a_valid_token_tries_are_held_apart(nth, hold):
    """The call after the first failure may try at once, later ones wait 0.5, 1, 2 … 30 seconds."""
    state = EMPTY
    for _ in range(nth):
        state = failed(state, at(0))
    assert state.failures == nth
    if hold:
        assert _refresh.decide(state, at(hold - 0.001)) is Action.RAISE
        assert _refresh.decide(state, at(hold - 0.001), claims="c") is Action.RAISE
        assert str(state.error) == "down"
    assert _refresh.decide(state, at(hold)) is Action.REFRESH


def test_jitter_shortens_a_hold_by_up_to_a_fifth():
    """Clients that failed together do not come back together."""
    state = failed(failed(EMPTY, at(0)), at(0), jitter=1.0)
    assert state.retry_at == at(0.4).mono


def test_a_success_ends_the_counting_of_failures():
    """The next outage starts with a free try again."""
    state = failed(failed(EMPTY, at(0)), at(0))
    state = _refresh.succeed(state, token(3600), at(1), None, proactive=False)
    assert (state.failures, state.error) == (0, None)
    assert _refresh.decide(failed(state, at(3600)), at(3600)) is Action.REFRESH


def test_failures_while_valid_do_not_count_when_it_has_expired():
    """A hold that was set for a valid token ends with the token, even if a clock jumps."""
    state = failed(failed(VALID, at(3500)), at(3550))
    assert _refresh.decide(state, at(3600, mono=3551)) is Action.REFRESH


def test_the_background_goes_on_trying_after_expiry():
    """With a floor of five seconds, for nobody waits for it."""
    state = failed(started(3600, proactive=True), at(3600), proactive=True)
    assert state.due_on == T0 + 3605
    for _ in range(9):
        state = failed(state, at(3700), proactive=True)
    assert state.due_on == T0 + 3730


@pytest.mark.parametrize(
    ("header", "wait"), [("20", 20), (21, 21), ("999", 120), ("0", 0), ("-3", 0)]
)
def test_retry_after_wins_over_a_shorter_hold(header, wait):
    """An issuer that says when to come back is not asked sooner, up to two minutes."""
    state = failed(EMPTY, at(0), failure=error(header))
    assert state.retry_at == at(wait).mono
    state = failed(VALID, at(3590), failure=error(header))
    assert _refresh.life_left(state, at(3595)) > 0
    after_expiry = _refresh.decide(state, at(3600))
    assert after_expiry is (Action.RAISE if wait > 10 else Action.REFRESH)


@pytest.mark.parametrize("header", ["soon", "Tue, 24 Nov 2026 03:04:05 GMT", "nan", object()])
def test_a_retry_after_that_is_no_number_is_ignored(header):
    """It must not hide the failure that it came with."""
    assert failed(EMPTY, at(0), failure=error(header)).retry_at == at(0).mono


def test_claims_that_fail_leave_a_valid_token_alone():
    """The failure says something about the claims, not about the token."""
    assert failed(VALID, at(10), claims="c") is VALID


def test_a_token_that_has_expired_is_no_result():
    """The error gives both times, for the local clock may be the reason."""
    with pytest.raises(
        ValueError, match=f"its expires_on is {T0 - 5}, the local clock says {T0 + 10}"
    ):
        _refresh.check_result(EMPTY, token(-5), at(10))
    with pytest.raises(ValueError, match="expired"):
        _refresh.check_result(EMPTY, token(0), at(0))
    assert _refresh.check_result(EMPTY, token(1), at(0)) is None
    _refresh.check_result(VALID, VALID.token, at(0))
    with pytest.raises(ValueError, match="expired"):  # by the monotonic clock alone
        _refresh.check_result(VALID, VALID.token, at(0, mono=3600))
    _refresh.check_result(VALID, token(7200), at(3600))  # the same text, prolonged


def test_the_refused_token_is_no_result():
    """Neither at once nor after another one came in between."""
    state = _refresh.refuse(VALID, at(100), jitter=0)
    with pytest.raises(ValueError, match="has refused"):
        _refresh.check_result(state, VALID.token, at(100))
    state = _refresh.succeed(state, token(3600, "n"), at(100), None, proactive=False)
    with pytest.raises(ValueError, match="has refused"):
        _refresh.check_result(state, VALID.token, at(100))


def test_after_a_refusal_an_earlier_expiry_is_taken():
    """The refused token does not count as a valid one."""
    state = _refresh.refuse(VALID, at(100), jitter=0)
    assert state.token is None
    assert _refresh.decide(state, at(100)) is Action.REFRESH
    state = _refresh.succeed(state, token(600, "n"), at(100), None, proactive=False)
    assert state.token == token(600, "n")


def test_tokens_that_are_refused_while_young_are_held_apart():
    """A service that refuses every token is asked at most eight times in its first minute."""
    state, now, refreshes = VALID, at(1000), 0
    while now.mono < at(1060).mono:
        state = _refresh.refuse(state, now, jitter=1.0)
        now = Now(now.wall + 0.001, max(now.mono, state.retry_at))
        now = Now(T0 + now.mono - 1000, now.mono)
        refreshes += now.mono < at(1060).mono
        fresh = AccessToken(f"n{refreshes}", int(now.wall) + 3600)
        state = _refresh.succeed(state, fresh, now, None, proactive=False)
    assert refreshes == 8
    assert isinstance(state.error or _refresh.refuse(state, now, jitter=0).error, Exception)


def test_the_hold_after_refusals_says_why():
    """The first refusal of a young token is free; from the second on an error explains the hold."""
    state = _refresh.refuse(VALID, at(1), jitter=0)
    assert _refresh.decide(state, at(1)) is Action.REFRESH
    state = _refresh.succeed(state, token(3600, "n"), at(1), None, proactive=False)
    state = _refresh.refuse(state, at(2), jitter=0)
    assert _refresh.decide(state, at(2.4)) is Action.RAISE
    assert isinstance(state.error, ClientAuthenticationError)
    assert "refused 2 tokens in a row" in str(state.error)
    assert _refresh.decide(state, at(2.5)) is Action.REFRESH


def test_a_token_that_was_good_for_a_while_ends_the_counting_of_refusals():
    """Revocation now and then is no reason to hold anything back."""
    state = _refresh.refuse(VALID, at(1), jitter=0)
    state = _refresh.succeed(state, token(3600, "n"), at(1), None, proactive=False)
    state = _refresh.refuse(state, at(31), jitter=0)
    assert state.refusals == 1
    assert _refresh.decide(state, at(31)) is Action.REFRESH


def test_a_refusal_does_not_shorten_a_retry_after():
    """The issuer's own word stands."""
    state = failed(VALID, at(3400), failure=error("100"))
    state = _refresh.refuse(state, at(3410), jitter=0)
    assert _refresh.decide(state, at(3499)) is Action.RAISE
    assert _refresh.decide(state, at(3500)) is Action.REFRESH


def test_the_background_may_refresh_anywhere_from_half_way_to_its_time():
    """The room for spreading many tokens that were made together."""
    state = started(86_400, proactive=True)
    assert _refresh.due_range(state, at(0)) == (T0 + 43_200, T0 + 85_800)
    assert _refresh.due_range(started(86_400), at(0)) == (T0 + 43_200, math.inf)
    assert _refresh.due_range(State(due_on=T0), at(5)) == (T0, T0)


def test_the_failure_of_an_old_refresh_does_not_bring_a_fresh_token_forward():
    """A refresh that failed after another one succeeded says nothing about the new token."""
    state = failed(started(86_400, proactive=True), at(10), proactive=True)
    assert state.due_on == T0 + 86_400 - 600
    assert failed(VALID, at(10)).ask_on == T0 + 3480


class Awkward(Exception):
    """An exception that copying cannot construct."""

    def __init__(self, a, b):
        super().__init__(f"{a}-{b}")


class Changing(Exception):
    """An exception whose copy would say something else."""

    def __init__(self, text):
        super().__init__(f"<{text}>")


def raised(failure):
    try:
        raise failure
    except Exception as exc:
        return exc


@pytest.mark.parametrize("failure", [ValueError("x"), OSError(2, "no"), HttpResponseError("busy")])
def test_a_detached_exception_is_a_copy_without_a_traceback(failure):
    """Same class, text and attributes; another object."""
    original = raised(failure)
    twin = _refresh.detached(original)
    assert twin is not original
    assert type(twin) is type(original)
    assert str(twin) == str(original)
    assert vars(twin) == vars(original)
    assert twin.__traceback__ is None
    assert original.__traceback__ is not None


@pytest.mark.parametrize("failure", [Awkward(1, 2), Changing("x")])
def test_an_exception_that_its_constructor_cannot_copy_keeps_its_class(failure):
    """Its callers' except clauses are written for it."""
    twin = _refresh.detached(raised(failure))
    assert twin is not failure
    assert type(twin) is type(failure)
    assert str(twin) == str(failure)


class Unprintable(Exception):
    """An exception with a mistake in it."""

    def __str__(self):
        raise KeyError


def test_an_exception_that_cannot_be_copied_is_told_about():
    """Another class then says what happened."""
    twin = _refresh.detached(raised(Unprintable()))
    assert type(twin) is ClientAuthenticationError
    assert str(twin) == "Unprintable"


class Broken(Exception):
    """An exception whose response cannot be had."""

    @property
    def response(self):
        raise KeyError


def test_a_response_that_cannot_be_had_is_none():
    """What matters is the failure itself."""
    failure = _refresh.read_failure(Broken("x"))
    assert (type(failure.error), failure.wait) == (Broken, 0)


def test_an_issuer_that_returns_the_same_token_for_ten_minutes_is_asked_twelve_times_at_most():
    """Fault 8: both the background and callers ask each second until the token expires."""
    state, calls = started(3600, proactive=True), 0
    for second in range(3000, 3600):
        now = at(second)
        is_due = now.wall >= state.due_on
        for ahead in (True, False) if is_due else (False,):
            if _refresh.decide(state, now, ahead=ahead) is Action.REFRESH:
                calls += 1
                state = _refresh.succeed(state, VALID.token, now, None, proactive=True)
    assert 4 <= calls <= 12
