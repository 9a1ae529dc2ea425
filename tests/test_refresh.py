"""The rules by themselves: plain functions of a state, a refresh and a time."""

from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from hypothesis import given
from hypothesis import strategies as st

from scaffolding import rules

Action, Now, Refresh, State = rules.Action, rules.Now, rules.Refresh, rules.State

T0 = 1_700_000_000


def at(seconds: float, mono: float | None = None) -> Any:
    """The time some seconds after the start, by both clocks or by each on its own."""
    return Now(T0 + seconds, 1_000 + (seconds if mono is None else mono))


def token(life: float, text: str = "t") -> AccessToken:
    return AccessToken(text, T0 + life)  # type: ignore[arg-type]


def started(life: float, *, proactive: bool = False) -> Any:
    return rules.start(State(proactive=proactive), token(life), at(0))


def decide(state: Any, now: Any, claims: str | None = None, *, ahead: bool = False) -> Any:
    return rules.decide(state, now, Refresh(claims, ahead=ahead)).action


def ended(state: Any, now: Any, outcome: Any, claims: str | None = None, jitter: float = 0) -> Any:
    """The state after a refresh that took no time."""
    refresh = Refresh(claims)
    return rules.complete(rules.lead(state, now, refresh), now, refresh, outcome, jitter)


def verdict(state: Any, now: Any, outcome: Any) -> Any:
    """What those who waited for a refresh are told, or None."""
    refresh = Refresh()
    rules.complete(rules.lead(state, now, refresh), now, refresh, outcome, 0)
    return refresh.error


def failed(state: Any, now: Any, error: Exception | None = None, **options: Any) -> Any:
    return ended(state, now, error or ValueError("down"), **options)


def due_in(state: Any, now: Any) -> float:
    due = rules.due(state, now)
    assert due is not None
    return due.preferred


def busy(retry_after: object = None) -> HttpResponseError:
    error = HttpResponseError("busy")
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    error.response = type("Response", (), {"headers": headers})()
    return error


EMPTY, VALID = State(), started(3600)


@pytest.mark.parametrize(
    ("life", "window"),
    [(1, 0.5), (8, 4), (90, 45), (239, 119.5), (240, 120), (241, 120), (3600, 120), (86400, 120)],
)
def test_callers_refresh_in_the_last_two_minutes_or_half_of_a_shorter_life(
    life: float, window: float
) -> None:
    """The on-demand window is two minutes, or half of a shorter life."""
    state = started(life)
    start = life - window
    assert decide(state, at(start - 0.001)) is Action.RETURN
    assert decide(state, at(start)) is Action.LEAD
    assert decide(state, at(life - 0.001)) is Action.LEAD
    expected = int(min(T0 + start, T0 + life - 75))
    assert rules.refresh_on(state, state.token, at(0)) == expected


@pytest.mark.parametrize(
    ("life", "window"),
    [(1, 0.5), (8, 4), (599, 299.5), (601, 300.5), (1199, 599.5), (1200, 600), (3600, 600)],
)
def test_the_background_refreshes_ten_minutes_before_expiry_or_half_way(
    life: float, window: float
) -> None:
    """The proactive window is ten minutes, or half of a shorter life; callers keep their own."""
    state = started(life, proactive=True)
    assert due_in(state, at(0)) == life - window
    expected = int(min(T0 + life - window, T0 + life - 75))
    assert rules.refresh_on(state, state.token, at(0)) == expected
    callers_window = min(120, life / 2)
    assert decide(state, at(life - callers_window - 0.001)) is Action.RETURN
    assert decide(state, at(life - callers_window)) is Action.LEAD


@given(st.floats(0.001, 4e9), st.booleans())
def test_windows_have_no_cliff_and_never_overflow(life: float, proactive: bool) -> None:
    """Whatever its lifetime, a token is valid at once, due before it ends, and reported in time."""
    state = started(life, proactive=proactive)
    assert decide(state, at(0)) is Action.RETURN
    assert 0 < state.next_left <= life / 2 + 1e-3
    assert rules.refresh_on(state, state.token, at(0)) <= T0 + life - 75
    due = rules.due(state, at(0))
    assert (due is not None) == proactive
    assert due is None or 0 <= due.earliest <= due.preferred <= due.latest < life


@pytest.mark.parametrize(
    ("now", "action"),
    [
        (at(3599.9), Action.LEAD),
        (at(3600), Action.LEAD),
        (at(3600, mono=10), Action.LEAD),  # the machine slept, the monotonic clock with it
        (at(10, mono=3600), Action.LEAD),  # the wall clock was set back
        (at(10, mono=3480), Action.LEAD),
        (at(3480, mono=10), Action.LEAD),
        (at(-5000, mono=10), Action.RETURN),
    ],
)
def test_the_earlier_of_two_clocks_decides(now: Any, action: Any) -> None:
    """Neither a suspended machine nor a clock that was set back keeps a token alive."""
    assert decide(VALID, now) is action


def test_life_left_is_by_the_earlier_clock() -> None:
    """An expired token has no life left, whichever clock says so."""
    state = started(100)
    assert rules.life_left(state, at(30)) == 70
    assert rules.life_left(state, at(30, mono=90)) == 10
    assert rules.life_left(state, at(90, mono=30)) == 10
    assert rules.life_left(state, at(100)) <= 0
    assert rules.life_left(State(), at(0)) == 0


def test_when_to_ask_again_follows_a_clock_that_was_set_back() -> None:
    """The policies go by the wall clock, the token's life by the other one."""
    assert rules.refresh_on(VALID, VALID.token, at(1000, mono=0)) == T0 + 3480
    assert rules.refresh_on(VALID, VALID.token, at(-3500, mono=100)) == T0 - 3600 + 3480


@pytest.mark.parametrize(
    ("now", "process", "worth"),
    [
        (at(0), 0, True),
        (at(59.9), 0, True),
        (at(60), 0, False),
        (at(60, mono=59), 0, True),
        (at(0), 1, False),
    ],
)
def test_a_newcomer_may_start_another_refresh_after_a_minute_or_a_fork(
    now: Any, process: int, worth: bool
) -> None:
    """Nobody waits longer for a refresh that hangs, or at all for one that can never end."""
    refresh = Refresh()
    state = rules.lead(EMPTY, at(0), refresh)
    now = now._replace(process=process)
    assert refresh.is_worth_waiting_for(now) is worth
    expected = Action.WAIT if worth else Action.LEAD
    assert rules.decide(state, now, Refresh()).action is expected
    newcomer = Refresh()
    others = (refresh,) if worth else ()
    assert rules.lead(state, now, newcomer).refreshes == (*others, newcomer)


@pytest.mark.parametrize(
    ("state", "now", "claims", "alone", "beside_a_refresh"),
    [
        (EMPTY, at(0), None, Action.LEAD, Action.WAIT),
        (EMPTY, at(0), "c", Action.LEAD, Action.WAIT),
        (VALID, at(0), None, Action.RETURN, Action.RETURN),
        (VALID, at(3500), None, Action.LEAD, Action.RETURN),
        (VALID, at(3600), None, Action.LEAD, Action.WAIT),
        (VALID, at(0), "c", Action.LEAD, Action.WAIT),
        (State(closed=True), at(0), None, Action.RAISE, Action.RAISE),
        (State(closed=True), at(0), "c", Action.RAISE, Action.RAISE),
    ],
)
def test_what_a_caller_does_next(
    state: Any, now: Any, claims: str | None, alone: Any, beside_a_refresh: Any
) -> None:
    """The table at the top of the module."""
    assert decide(state, now, claims) is alone
    assert decide(rules.lead(state, now, Refresh(claims)), now, claims) is beside_a_refresh


def test_the_background_does_not_wait_for_the_callers_window() -> None:
    """What is due is refreshed although callers would still leave it alone."""
    state = started(3600, proactive=True)
    assert decide(state, at(3000), ahead=True) is Action.LEAD
    assert decide(state, at(3000)) is Action.RETURN
    assert decide(rules.lead(state, at(3000), Refresh()), at(3000), ahead=True) is Action.NOTHING


def test_the_background_leaves_a_fresh_token_alone() -> None:
    """It may come by when a caller was faster; before half of the life nothing is due."""
    state = started(3600, proactive=True)
    assert decide(state, at(1799), ahead=True) is Action.NOTHING
    assert decide(state, at(1800), ahead=True) is Action.LEAD
    assert decide(State(closed=True), at(1800), ahead=True) is Action.NOTHING


def test_the_background_starts_none_beside_one_of_its_own_that_hangs() -> None:
    """Each would occupy another worker; next to a caller's that hangs, it does after a minute."""
    for ahead, expected in ((True, Action.NOTHING), (False, Action.LEAD)):
        hanging = Refresh(ahead=ahead)
        state = rules.lead(State(proactive=True), at(0), hanging)
        assert decide(state, at(59), ahead=True) is Action.NOTHING
        assert decide(state, at(60), ahead=True) is expected
        assert due_in(state, at(10)) == (60 if ahead else 50)
        in_child = at(10)._replace(process=1)
        assert decide(state, in_child, ahead=True) is Action.LEAD
        assert due_in(state, in_child) == 0
        assert decide(state, at(60)) is Action.LEAD


def test_the_background_starts_none_beside_one_that_hangs_and_that_a_caller_has_replaced() -> None:
    """However many tokens callers fetch meanwhile: it has taken one worker, and takes no more."""
    hanging, caller = Refresh(ahead=True), Refresh()
    state = rules.lead(started(3600, proactive=True), at(3000), hanging)
    for start in (3480, 6960):
        state = rules.lead(state, at(start), caller)
        assert hanging not in state.refreshes
        state = rules.complete(state, at(start), caller, token(start + 3600), 0)
        assert decide(state, at(start + 3000), ahead=True) is Action.NOTHING
        assert due_in(state, at(start + 3000)) == 60
        in_child = at(start + 3000)._replace(process=1)
        assert decide(state, in_child, ahead=True) is Action.LEAD
        state, caller = rules.replace(state), Refresh()
    refused = rules.refuse(state, at(6970), 0)
    assert due_in(refused, at(6975)) == 60
    state = rules.complete(state, at(9960), hanging, ConnectionError("late"), 0)
    assert decide(state, at(9960), ahead=True) is Action.LEAD
    assert due_in(state, at(9960)) == 0


def test_the_background_keeps_to_holds() -> None:
    """Those that callers run into, and those of a Retry-After."""
    state = failed(started(3600, proactive=True), at(3000), busy("100"))
    assert due_in(state, at(3000)) == 300
    assert decide(state, at(3000), "c") is Action.RAISE
    state = failed(started(3600, proactive=True), at(2950), busy("100"), claims="c")
    assert rules.due(state, at(2950)) == (100, 100, 100)
    state = failed(started(3600, proactive=True), at(3590), busy("100"))
    assert due_in(state, at(3590)) == 100
    assert decide(state, at(3689), ahead=True) is Action.NOTHING
    assert decide(state, at(3690), ahead=True) is Action.LEAD


def test_claims_are_answered_by_the_token_that_they_just_brought() -> None:
    """Ten clients with one challenge cause one refresh, but a later challenge another."""
    state = ended(VALID, at(10), token(7200, "n"), "c")
    assert state.token.token == "n"
    assert decide(state, at(39), "c") is Action.RETURN
    assert decide(state, at(40), "c") is Action.LEAD
    assert decide(state, at(11), "other") is Action.LEAD
    assert decide(state, at(11)) is Action.RETURN


def test_claims_may_bring_a_token_that_expires_sooner() -> None:
    """What was forced is taken, though not where it is the same token: that one just stays."""
    assert ended(VALID, at(10), token(60, "n"), "c").token == token(60, "n")
    state = ended(VALID, at(100), VALID.token, "c")
    assert (state.token, state.claims) == (VALID.token, "c")
    assert (state.next_left, state.obtained_at) == (VALID.next_left, VALID.obtained_at)
    assert decide(state, at(129), "c") is Action.RETURN
    assert decide(state, at(130), "c") is Action.LEAD


def test_a_refresh_for_claims_keeps_the_background_on_time_though_the_clock_was_set_back() -> None:
    """Whether it fails or brings the same token, the next refresh is before expiry."""
    before = started(3600, proactive=True)
    for outcome in (before.token, ValueError("no such claims")):
        state = ended(before, at(-3600, mono=0), outcome, "c")
        assert due_in(state, at(-3600, mono=0)) == 3000


def test_a_token_that_expired_by_one_clock_does_not_stand_in_the_way() -> None:
    """Its expiry by the other clock may be later than that of the token that replaces it."""
    state = ended(VALID, at(0, mono=3600), token(1800, "n"))
    assert state.token == token(1800, "n")
    assert rules.life_left(state, at(0, mono=3600)) == 1800


@pytest.mark.parametrize(
    ("left", "pause"), [(120, 60), (60, 30), (20, 10), (10, 5), (8, 5), (5, 5), (3, 3), (0.5, 0.5)]
)
@pytest.mark.parametrize("outcome", [ValueError("down"), token(3600, "other")])
def test_with_a_valid_token_the_next_try_is_half_way_to_expiry(
    left: float, pause: float, outcome: Any
) -> None:
    """After a failure, or a token that expires no later: max(5 s, half the life), never later."""
    state = ended(VALID, at(3600 - left), outcome)
    assert state.token == VALID.token
    assert state.error is None
    assert state.next_left == left - pause
    assert decide(state, at(3600 - left + pause - 0.001)) is Action.RETURN
    assert decide(state, at(3600 - left + pause)) is Action.LEAD
    expected = min(T0 + 3600 - left + pause, T0 + 3600 - 75)
    assert rules.refresh_on(state, state.token, at(3600 - left)) == int(expected)


def test_a_failed_proactive_try_is_followed_by_the_next() -> None:
    """Ten minutes, five, two and a half, one and a quarter before expiry; then a success."""
    state, now, tries = started(3600, proactive=True), at(0), []
    while len(tries) < 4:
        now = at(now.wall - T0 + due_in(state, now))
        tries.append(T0 + 3600 - now.wall)
        state = failed(state, now)
    assert tries == [600, 300, 150, 75]
    assert due_in(ended(state, at(3570), token(7200)), at(3570)) == 7200 - 600 - 3570


@pytest.mark.parametrize(
    ("nth", "hold"),
    [(1, 0), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 30), (9, 30), (1100, 30)],
)
def test_without_a_valid_token_tries_are_held_apart(nth: int, hold: float) -> None:
    """The call after the first failure may try at once, later ones wait 0.5, 1, 2 … 30 seconds."""
    state = EMPTY
    for _ in range(nth):
        state = failed(state, at(0))
    assert state.failures == nth
    if hold:
        assert decide(state, at(hold - 0.001)) is Action.RAISE
        assert decide(state, at(hold - 0.001), "c") is Action.RAISE
        assert str(state.error) == "down"
    assert decide(state, at(hold)) is Action.LEAD


def test_jitter_shortens_a_hold_by_up_to_a_fifth() -> None:
    """Clients that failed together do not come back together."""
    state = failed(failed(EMPTY, at(0)), at(0), jitter=1.0)
    assert state.hold_until == at(0.4).mono


def test_a_success_ends_the_counting_of_failures() -> None:
    """The next outage starts with a free attempt again."""
    state = ended(failed(failed(EMPTY, at(0)), at(0)), at(1), token(3600))
    assert (state.failures, state.error) == (0, None)
    assert decide(failed(state, at(3600)), at(3600)) is Action.LEAD


def test_failures_while_valid_do_not_count_when_it_has_expired() -> None:
    """A hold that was set for a valid token ends with the token, even if a clock jumps."""
    state = failed(failed(VALID, at(3500)), at(3550))
    assert decide(state, at(3600, mono=3551)) is Action.LEAD


def test_the_background_goes_on_trying_after_expiry() -> None:
    """With a floor of five seconds, as nobody waits for it; later, if too many are due then."""
    state = failed(started(3600, proactive=True), at(3600))
    assert rules.due(state, at(3600)) == (5, 5, 3605)
    for _ in range(9):
        state = failed(state, at(3700))
    assert due_in(state, at(3700)) == 30


def test_the_background_tries_again_soon_after_a_refresh_that_was_abandoned() -> None:
    """And callers may at once: nothing was learned."""
    state = ended(State(proactive=True), at(0), None)
    assert due_in(state, at(0)) == 5
    assert decide(state, at(4.9), ahead=True) is Action.NOTHING
    assert decide(state, at(5), ahead=True) is Action.LEAD
    assert (decide(state, at(0)), state.failures) == (Action.LEAD, 0)


@pytest.mark.parametrize(
    ("header", "wait"), [("20", 20), (21, 21), ("999", 120), ("0", 0), ("-3", 0)]
)
def test_retry_after_wins_over_a_shorter_hold(header: object, wait: float) -> None:
    """An issuer that says when to come back is not asked sooner, up to two minutes."""
    assert rules.retry_after(busy(header)) == wait
    assert failed(EMPTY, at(0), busy(header)).hold_until == at(wait).mono
    state = failed(VALID, at(3590), busy(header))
    assert rules.life_left(state, at(3595)) > 0
    expected = Action.RAISE if wait > 10 else Action.LEAD
    assert decide(state, at(3600)) is expected


def test_a_valid_token_is_not_refreshed_within_a_retry_after() -> None:
    """Callers go on with it, though half of its life would be sooner."""
    state = failed(VALID, at(3500), busy("80"))
    assert decide(state, at(3579.9)) is Action.RETURN
    assert decide(state, at(3580)) is Action.LEAD


def test_a_failure_beside_another_does_not_shorten_its_retry_after() -> None:
    """A refresh for claims may end after one that was told to wait."""
    state = failed(failed(EMPTY, at(0), busy("100")), at(1), claims="c")
    assert state.hold_until == at(100).mono
    assert due_in(rules.replace(state, proactive=True), at(1)) == 99
    state = failed(failed(VALID, at(0), busy("100"), claims="c"), at(1), busy("5"), claims="d")
    assert state.hold_until == at(100).mono


@pytest.mark.parametrize("header", ["soon", "Tue, 24 Nov 2026 03:04:05 GMT", "nan", object()])
def test_a_retry_after_that_is_no_number_is_ignored(header: object) -> None:
    """It must not hide the failure that it came with."""
    assert failed(EMPTY, at(0), busy(header)).hold_until == at(0).mono


def test_claims_that_fail_leave_a_valid_token_alone() -> None:
    """The failure says something about the claims, not about the token."""
    assert failed(VALID, at(10), claims="c") == VALID


@pytest.mark.parametrize(
    ("state", "brought", "now", "usable"),
    [
        (EMPTY, token(-5), at(10), False),
        (EMPTY, token(0), at(0), False),
        (EMPTY, token(1), at(0), True),
        (VALID, VALID.token, at(0), True),
        (VALID, VALID.token, at(0, mono=3600), False),  # expired by the monotonic clock alone
        (VALID, token(7200), at(3600), True),  # the same text, prolonged
    ],
)
def test_a_token_that_has_expired_is_no_result(
    state: Any, brought: AccessToken, now: Any, usable: bool
) -> None:
    """The error gives both times, because the local clock may be the reason."""
    error = verdict(state, now, brought)
    assert (error is None) == usable
    if error:
        assert f"expires_on {brought.expires_on}, local clock {now.wall}" in str(error)


def test_a_token_that_was_refused_is_no_result_for_as_long_as_it_could_be_valid() -> None:
    """Neither at once nor after others, of which some were refused, too."""
    state = rules.refuse(VALID, at(100), 0)
    state = ended(state, at(200), token(3600, "n"))
    state = rules.refuse(state, at(300), 0)
    for text in ("t", "n"):
        error = verdict(state, at(300), token(3600, text))
        assert "returned a token that the service rejected: bypass any cache" in str(error)
    state = ended(state, at(3599), token(7200, "m"))
    assert len(rules.refuse(state, at(3599), 0).refused) == 3
    assert len(rules.refuse(state, at(3600, mono=3599), 0).refused) == 3
    assert len(rules.refuse(state, at(3599, mono=3600), 0).refused) == 3
    assert len(rules.refuse(state, at(3600), 0).refused) == 1


def test_after_a_refusal_an_earlier_expiry_is_taken() -> None:
    """The refused token does not count as a valid one."""
    state = rules.refuse(VALID, at(100), 0)
    assert state.token is None
    assert decide(state, at(100)) is Action.LEAD
    assert ended(state, at(100), token(600, "n")).token == token(600, "n")


def test_tokens_that_are_refused_while_young_are_held_apart() -> None:
    """A service that refuses every token is asked at most eight times in its first minute."""
    state, now, refreshes = VALID, at(1000), 0
    while now.mono < at(1060).mono:
        state = rules.refuse(state, now, 1.0)
        mono = max(now.mono, state.hold_until)
        now = Now(T0 + mono - 1000, mono)
        refreshes += now.mono < at(1060).mono
        fresh = AccessToken(f"n{refreshes}", int(now.wall) + 3600)
        state = ended(state, now, fresh)
    assert refreshes == 8


def test_the_hold_after_refusals_says_why() -> None:
    """The first refusal of a young token is free; from the second on an error explains the hold."""
    state = rules.refuse(VALID, at(1), 0)
    assert decide(state, at(1)) is Action.LEAD
    state = rules.refuse(ended(state, at(1), token(3600, "n")), at(2), 0)
    assert decide(state, at(2.4)) is Action.RAISE
    assert isinstance(state.error, ClientAuthenticationError)
    assert "rejected 2 tokens in a row" in str(state.error)
    assert decide(state, at(2.5)) is Action.LEAD


def test_a_refusal_half_a_minute_after_the_issue_is_the_first_again() -> None:
    """By then the service had accepted the token, so another one may help."""
    state = ended(rules.refuse(VALID, at(1), 0), at(1), token(3600, "n"))
    assert rules.refuse(state, at(30.9), 0).refusals == 2
    assert rules.refuse(state, at(31), 0).refusals == 1


def test_a_refusal_is_no_hold_for_who_has_read_the_clock_before() -> None:
    """Another thread may have: there is no error to raise."""
    assert decide(rules.refuse(VALID, at(1), 0), at(0.9)) is Action.LEAD


@pytest.mark.parametrize("later", [31, 30 * 86_400])
def test_a_token_that_was_good_for_a_while_ends_the_counting_of_refusals(later: float) -> None:
    """Refusals of an incident weeks ago do not hold back what is refused today."""
    state = VALID
    for text in "abcdef":
        state = rules.refuse(state, at(1), 0)
        state = ended(state, at(1), token(40 * 86_400, text))
    assert state.refusals == 6
    state = ended(state, at(later), token(50 * 86_400, "good"), "c")
    state = rules.refuse(state, at(later + 1), 0)
    assert state.refusals == 1
    assert decide(state, at(later + 1)) is Action.LEAD


def test_a_refusal_does_not_shorten_a_retry_after() -> None:
    """The issuer's own word stands."""
    state = rules.refuse(failed(VALID, at(3400), busy("100")), at(3410), 0)
    assert decide(state, at(3499)) is Action.RAISE
    assert decide(state, at(3500)) is Action.LEAD


def test_after_a_refusal_the_background_leaves_the_callers_five_seconds() -> None:
    """And longer while refreshes are held back."""
    state = rules.refuse(started(3600, proactive=True), at(100), 0)
    assert due_in(state, at(100)) == 5
    for text in "abcdefgh":
        state = rules.refuse(ended(state, at(100), token(3600, text)), at(100), 0)
    assert due_in(state, at(100)) == 30


def test_the_background_may_refresh_anywhere_from_half_way_to_its_time() -> None:
    """The room for spreading many tokens that were made together."""
    state = started(86_400, proactive=True)
    assert rules.due(state, at(0)) == (43_200, 85_800, 85_800)
    assert rules.due(started(86_400), at(0)) is None
    assert rules.due(State(proactive=True), at(5)) == (0, 0, 0)
    assert rules.due(State(closed=True, proactive=True), at(5)) is None


def test_a_retry_may_come_later_where_many_are_due() -> None:
    """Where an outage has many fail together, they do not all try together again."""
    state = failed(started(3600, proactive=True), at(3000))
    assert rules.due(state, at(3000)) == (300, 300, 600 + 3600)
    state = failed(state, at(3450))
    assert rules.due(state, at(3450)) == (75, 75, 150 + 3600)


def test_an_attempt_after_one_that_brought_no_later_token_comes_before_expiry() -> None:
    """An issuer with a cache has not failed, so nothing is put off until callers have to wait."""
    state = started(3600, proactive=True)
    state = ended(state, at(3000), state.token)
    assert rules.due(state, at(3000)) == (300, 300, 600)


def test_a_failure_does_not_bring_a_fresh_token_forward() -> None:
    """A refresh that failed says nothing about the time of a token that is fresh."""
    assert due_in(failed(started(86_400, proactive=True), at(10)), at(10)) == 86_400 - 610
    assert failed(VALID, at(10)).next_left == 120


@pytest.mark.parametrize("claims", [None, "c"])
def test_what_a_waiter_gets_is_judged_when_it_wakes(claims: str | None) -> None:
    """A token that has expired or was refused meanwhile is not returned: the caller asks again."""
    waited = Refresh(claims)
    state = rules.lead(EMPTY, at(0), waited)
    state = rules.complete(state, at(1), waited, token(100, "n"), 0)

    def woken(state: Any, now: Any) -> Any:
        return rules.decide(state, now, Refresh(claims), waited)

    assert woken(state, at(2)).token == token(100, "n")
    assert woken(state, at(99)).token == token(100, "n")
    assert woken(state, at(100)).action is Action.LEAD
    assert woken(state, at(2, mono=100)).action is Action.LEAD
    assert woken(state, at(100, mono=2)).action is Action.LEAD
    assert woken(rules.refuse(state, at(50), 0), at(50)).action is Action.LEAD


def test_a_token_that_is_brought_again_lives_no_longer_for_that() -> None:
    """Though the wall clock was set back, by which it would be valid for another hour."""
    waited = Refresh("c")
    now = at(-3500, mono=100)
    state = rules.complete(rules.lead(VALID, now, waited), now, waited, VALID.token, 0)
    for mono, expected in ((3599, Action.RETURN), (3600, Action.LEAD)):
        now = at(mono - 3600, mono=mono)
        assert rules.decide(state, now, Refresh("c"), waited).action is expected


def test_a_token_that_is_not_the_current_one_is_asked_for_again_in_time() -> None:
    """Another caller may have replaced it since it was returned."""
    assert rules.refresh_on(VALID, token(7200, "other"), at(0)) == T0 + 7125


def test_a_waiter_takes_what_another_refresh_brought() -> None:
    """Though the one that it waits for goes on, unless it asked for claims."""
    hangs, other = Refresh(), Refresh("c")
    state = rules.lead(rules.lead(EMPTY, at(0), hangs), at(1), other)
    state = rules.complete(state, at(2), other, token(100), 0)
    assert rules.decide(state, at(2), Refresh(), hangs).token == token(100)
    hangs = Refresh("d")
    state = rules.lead(state, at(3), hangs)
    decision = rules.decide(state, at(4), Refresh("d"), hangs)
    assert (decision.action, decision.refresh, decision.patience) == (Action.WAIT, hangs, 59)


def test_a_waiter_for_claims_gets_the_token_of_its_own_refresh() -> None:
    """Even if another one, for other claims, has replaced it by then."""
    first, second = Refresh("c"), Refresh("d")
    state = rules.lead(rules.lead(EMPTY, at(0), first), at(0), second)
    state = rules.complete(state, at(1), first, token(100, "c"), 0)
    state = rules.complete(state, at(1), second, token(100, "d"), 0)
    assert state.token == token(100, "d")
    assert rules.decide(state, at(2), Refresh("c"), first).token == token(100, "c")


def test_who_waited_too_long_is_told_and_starts_no_other() -> None:
    """It might be part of the refresh, by way of a thread that nothing is known of."""
    waited = Refresh()
    state = rules.lead(EMPTY, at(0), waited)
    decision = rules.decide(state, at(60), Refresh(), waited)
    assert isinstance(decision.error, TimeoutError)
    assert "60 seconds: set shorter time-outs" in str(decision.error)


class Broken(Exception):
    """An exception whose response cannot be had."""

    @property
    def response(self) -> Any:
        raise KeyError


def test_a_response_that_cannot_be_had_is_none() -> None:
    """What matters is the failure itself."""
    state = failed(EMPTY, at(0), Broken("x"))
    assert (type(state.error), state.hold_until) == (Broken, at(0).mono)


def test_an_issuer_that_returns_the_same_token_for_ten_minutes_is_asked_twelve_times_at_most() -> (
    None
):
    """Both the background and callers ask each second until the token expires."""
    state, calls = started(3600, proactive=True), 0
    for second in range(3000, 3600):
        now = at(second)
        for ahead in (True, False) if due_in(state, now) <= 0 else (False,):
            if decide(state, now, ahead=ahead) is Action.LEAD:
                calls += 1
                state = ended(state, now, VALID.token)
    assert 4 <= calls <= 12
