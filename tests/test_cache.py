"""One credential's cache by itself: refreshes that overlap, are late, abandoned or lost."""

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from scaffolding import Clock, TokenCache, cache_module, rules

Action, Refresh = rules.Action, rules.Refresh


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Noted:
    """A waiter that notes whether it was woken, and what the background was told."""

    def __init__(self) -> None:
        self.woken = self.changes = 0

    def wake(self) -> bool:
        self.woken += 1
        return True

    def change(self, cache: TokenCache) -> None:
        self.changes += 1


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def cache(clock: Clock, noted: Noted) -> TokenCache:
    cache = TokenCache(
        None,
        lambda options, held: None,
        proactive=True,
        clock=clock.sources(),
        on_change=noted.change,
    )
    cache.waiters[noted] = noted
    return cache


def lead(cache: TokenCache, claims: str | None = None) -> Any:
    """Begin a refresh and return it."""
    refresh = Refresh(claims)
    assert cache.begin(refresh).action is Action.LEAD
    return refresh


def ask(cache: TokenCache, claims: str | None = None, waited: Any = None) -> Any:
    """Return what a caller is told that begins no refresh."""
    return cache.begin(Refresh(claims), waited)


def token(clock: Clock, text: str, life: float) -> AccessToken:
    return AccessToken(text, int(clock.wall() + life))


@pytest.mark.parametrize("claims", [None, "c"])
def test_a_late_result_counts_only_if_it_expires_later(
    cache: TokenCache, clock: Clock, claims: str | None
) -> None:
    """Whoever led it gets a token either way."""
    slow = lead(cache, claims)
    clock.advance(60)
    cache.complete(lead(cache, claims), token(clock, "fast", 600))
    cache.complete(slow, token(clock, "older", 300))
    assert cache.state.token == token(clock, "fast", 600)
    assert ask(cache, waited=slow).token == token(clock, "fast", 600)

    slow = lead(cache, "d")
    clock.advance(60)
    cache.complete(lead(cache, "d"), token(clock, "fast2", 600))
    cache.complete(slow, token(clock, "newer", 900))
    assert cache.state.token == token(clock, "newer", 900)
    assert ask(cache, "d", slow).token == token(clock, "newer", 900)


def test_a_late_failure_says_nothing(cache: TokenCache, clock: Clock) -> None:
    """It reaches those who waited for it and changes no hold."""
    slow = lead(cache)
    clock.advance(60)
    fast = lead(cache)
    cache.complete(slow, ConnectionError("late"))
    assert str(ask(cache, "c", slow).error) == "late"
    assert cache.state.failures == 0
    assert ask(cache).refresh is fast


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception whose class allows no change, not even of the traceback."""

    code: int


class Annotated(Exception):
    """An exception whose notes are none."""

    def __init__(self) -> None:
        vars(self)["__notes__"] = 5


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError


class Final(Exception):
    """An exception that says what its field is, and that no class may inherit from."""

    def __init__(self) -> None:
        self.secret = [1]

    def __init_subclass__(cls) -> None:
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.secret[0]}"


class Single(Exception):
    """An exception whose copy is itself."""

    def __init__(self) -> None:
        super().__init__("m")
        self.response = [1]

    def __copy__(self) -> "Single":
        return self


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (Single(), Single()),
        (Frozen(5), Frozen(5)),
        (Annotated(), Annotated()),
        (Unprintable(), ClientAuthenticationError("Unprintable")),
        (Final(), ClientAuthenticationError("Final: 1")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_error_is_so_odd_that_a_refresh_would_not_end(
    cache: TokenCache, error: Exception, kept: Exception
) -> None:
    """Whoever waits for it is woken and told, and a hold keeps what can be kept of it."""
    for _ in range(2):
        refresh = lead(cache)
        cache.complete(refresh, error)
        assert cache.state.refreshes == ()
        assert ask(cache, waited=refresh).error is error
        assert cache.state.error is not error
    held = cache_module.error_to_raise(ask(cache), None)
    assert (type(held), repr(held)) == (type(kept), repr(kept))
    assert vars(held)["__notes__"] == ["The next refresh attempt is in 0.5 seconds."]


def test_an_abandoned_refresh_leaves_no_trace(cache: TokenCache, noted: Noted) -> None:
    """Those who waited for it are woken, and the next caller leads another; nobody is told."""
    refresh = lead(cache)
    cache.complete(refresh, None)
    assert noted.woken == 1
    assert (cache.state.failures, cache.state.refreshes) == (0, ())
    assert ask(cache, waited=refresh).action is Action.LEAD


def test_a_caller_without_claims_waits_for_any_refresh_that_is_not_overdue(
    cache: TokenCache, clock: Clock
) -> None:
    """A token with claims serves those who ask for none, but not the other way round."""
    plain, forced = lead(cache), lead(cache, "c")
    assert ask(cache).refresh is plain
    assert ask(cache, "c").refresh is forced
    clock.advance(30)
    other = lead(cache, "d")
    clock.advance(30)
    assert ask(cache).refresh is other
    assert lead(cache, "c") is not forced


def test_a_refresh_for_claims_that_brought_nothing_returns_no_token_without_them(
    cache: TokenCache, clock: Clock
) -> None:
    """The valid token would not satisfy the one who asked for claims."""
    cache.complete(lead(cache), token(clock, "t", 3600))
    forced = lead(cache, "c")
    cache.complete(forced, None)
    again = Refresh("c")
    assert cache.begin(again, forced).action is Action.LEAD
    cache.complete(again, ConnectionError("down"))
    forced = again
    assert str(ask(cache, "c", forced).error) == "down"
    assert ask(cache).token == token(clock, "t", 3600)


def test_closing_ends_every_refresh(cache: TokenCache, clock: Clock, noted: Noted) -> None:
    """The waiters are told at once, and a result that comes later is dropped."""
    refresh = lead(cache)
    cache.close()
    assert (noted.woken >= 1, noted.changes) == (True, 1)
    assert "closed" in str(ask(cache, waited=refresh).error)
    cache.complete(refresh, token(clock, "t", 3600))
    assert cache.state == rules.State(closed=True)
    assert "closed" in str(ask(cache, waited=refresh).error)


def test_every_outcome_is_told_to_the_background_and_to_those_who_wait(
    cache: TokenCache, clock: Clock, noted: Noted
) -> None:
    """A success, a failure, nothing at all, and what is completed a second time."""
    for claims, outcome in (("c", token(clock, "t", 60)), ("d", ConnectionError()), ("e", None)):
        refresh = lead(cache, claims)
        for _ in range(2):
            before = noted.woken, noted.changes
            cache.complete(refresh, outcome)
            assert (noted.woken, noted.changes) == (before[0] + 1, before[1] + 1)


def test_completing_twice_changes_nothing(cache: TokenCache, clock: Clock) -> None:
    """Not even if the token was refused in between."""
    refresh = lead(cache)
    cache.complete(refresh, token(clock, "t", 3600))
    state = cache.state
    cache.complete(refresh, token(clock, "t", 3600))
    assert cache.state is state
    cache.invalidate("t")
    state = cache.state
    cache.complete(refresh, token(clock, "t", 3600))
    assert cache.state is state
    assert ask(cache, waited=refresh).action is Action.LEAD


def test_completing_what_was_never_begun_changes_nothing(cache: TokenCache, noted: Noted) -> None:
    """The drivers complete whatever they asked for."""
    state = cache.state
    cache.complete(Refresh(), ConnectionError("down"))
    assert (cache.state is state, noted.woken) == (True, 0)


@pytest.mark.parametrize("claims", [None, "c"])
@pytest.mark.parametrize("asked", [None, "c", "d"])
def test_a_refresher_never_starts_another_refresh_of_its_own_credential(
    cache: TokenCache, clock: Clock, claims: str | None, asked: str | None
) -> None:
    """Whatever claims it asks for, and even if it is overdue: there is a token, or an error."""
    refresh = lead(cache, claims)
    mark = cache_module.REFRESHING.set(frozenset({refresh.number}))
    try:
        for _ in range(2):
            assert "credential that it refreshes" in str(ask(cache, asked).error)
            clock.advance(60)
        other = contextvars.Context().run(lead, cache, "other")
        cache.complete(other, token(clock, "t", 3600))
        assert ask(cache).token == token(clock, "t", 3600)
    finally:
        cache_module.REFRESHING.reset(mark)


def test_a_refresher_gets_the_valid_token_where_others_would_wait(
    cache: TokenCache, clock: Clock
) -> None:
    """Though it may lack the claims, or the refresh is overdue: waiting would be for ever."""
    valid = token(clock, "t", 3600)
    cache.complete(lead(cache), valid)
    clock.advance(3500)
    plain, forced = lead(cache), lead(cache, "c")

    def inside(refresh: Any, claims: str | None = None) -> Any:
        cache_module.REFRESHING.set(frozenset({refresh.number}))
        return ask(cache, claims)

    for refresh, claims in ((forced, "c"), (forced, "d"), (plain, "c")):
        assert contextvars.Context().run(inside, refresh, claims).token == valid
    clock.advance(60)
    assert contextvars.Context().run(inside, plain).token == valid
    assert cache.state.refreshes == (plain, forced)
    assert ask(cache).action is Action.LEAD


@pytest.mark.parametrize(("left", "patience"), [(100, 10), (20, 10), (4, 2)])
def test_a_valid_token_in_hand_limits_how_long_its_owner_waits(
    cache: TokenCache, clock: Clock, left: float, patience: float
) -> None:
    """Ten seconds, or half of the life that is left."""
    cache.complete(lead(cache), token(clock, "t", 3600))
    clock.advance(3600 - left)
    assert ask(cache).patience == patience


def test_without_one_the_wait_is_for_the_rest_of_the_minute(
    cache: TokenCache, clock: Clock
) -> None:
    """Claims have no other token that would do."""
    refresh = lead(cache)
    clock.advance(20)
    assert ask(cache).patience == 40
    cache.complete(refresh, token(clock, "t", 3600))
    assert ask(cache, "c").patience == 60


@contextlib.contextmanager
def just_before_it_leads(happen: Callable[[], object]) -> Iterator[None]:
    """Have something happen, once, between a caller's decision to lead and its record of that."""
    original, happened = rules.lead, []

    def interfere(*args: Any) -> Any:
        state = original(*args)
        if not happened:
            happened.append(True)
            happen()
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "lead", interfere)
        yield


def test_of_two_changes_at_once_both_count(cache: TokenCache, clock: Clock) -> None:
    """Whoever comes second recomputes: here, a token is refused while a refresh begins."""
    cache.complete(lead(cache), token(clock, "t", 100))
    clock.advance(60)
    with just_before_it_leads(lambda: cache.invalidate("t")):
        refresh = lead(cache)
    assert cache.state.token is None
    assert cache.state.refreshes == (refresh,)


def test_a_caller_that_was_overtaken_waits_for_who_was_faster(
    cache: TokenCache, noted: Noted
) -> None:
    """And its own refresh, which is not in progress, is completed without effect on anybody."""
    faster: list[Any] = []
    with just_before_it_leads(lambda: faster.append(lead(cache))):
        slower = Refresh()
        decision = cache.begin(slower)
    assert (decision.action, decision.refresh) == (Action.WAIT, faster[0])
    before = noted.woken, noted.changes
    cache.complete(slower, ConnectionError("unused"))
    assert (cache.state.refreshes, cache.state.failures) == ((faster[0],), 0)
    assert (noted.woken, noted.changes) == before


def test_a_caller_that_was_overtaken_has_a_minute_from_then_on(
    cache: TokenCache, clock: Clock
) -> None:
    """A signal handler may have refreshed in between, and failed."""

    def refresh_in_vain() -> None:
        quick = lead(cache)
        clock.advance(59)
        cache.complete(quick, None)

    with just_before_it_leads(refresh_in_vain):
        refresh = lead(cache)
    assert refresh.deadline_at == clock.mono() + 60


def test_a_token_that_is_refused_is_dropped_once(
    cache: TokenCache, clock: Clock, noted: Noted
) -> None:
    """Ten clients may be refused the same one, and some tell when it has been replaced already."""
    cache.complete(lead(cache), token(clock, "t", 3600))
    state, changes = cache.state, noted.changes
    cache.invalidate("other")
    assert (cache.state is state, noted.changes) == (True, changes)
    for _ in range(2):
        cache.invalidate("t")
        assert (cache.state.token, cache.state.refusals, noted.changes) == (None, 1, changes + 1)
    cache.complete(lead(cache), token(clock, "u", 3600))
    cache.invalidate("t")
    assert cache.state.token == token(clock, "u", 3600)


def test_a_child_asks_the_rules_once(
    cache: TokenCache, clock: Clock, noted: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first use after a fork; then it returns the token without that, as before."""
    valid = token(clock, "t", 3600)
    cache.complete(lead(cache), valid)
    fresh_on = clock.wall() + 3000
    assert cache.snapshot.fast[2] == fresh_on
    monkeypatch.setattr(os, "getpid", lambda: -1)
    cache.look_after_fork()
    assert cache.snapshot.fast[2] < 0
    changes = noted.changes
    for _ in range(2):
        assert ask(cache).token == valid
        assert (cache.snapshot.fast[2], noted.changes) == (fresh_on, changes + 1)


def test_a_superseded_state_is_not_read_any_more(cache: TokenCache, clock: Clock) -> None:
    """Even by a thread that puts it back, as one may that was interrupted when it replaced it."""
    cache.complete(lead(cache), token(clock, "t", 3600))
    before = cache.snapshot
    cache.invalidate("t")
    cache.snapshot = before
    wall, mono, fresh_on, fresh_at, _ = before.fast
    assert wall() >= fresh_on
    assert mono() >= fresh_at
    assert cache.state.token is None
    assert cache.snapshot is not before
