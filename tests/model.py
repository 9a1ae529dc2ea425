"""A cache, its schedule and its issuer on a clock that is moved by hand, and what must always hold.

``World`` is what the exhaustive check (:func:`explore`) and the random one drive: each of its
actions is something that callers, the background, the issuer, the service or the machine may do at
any moment, and each ends in :meth:`World.check`. Nothing here has a thread or a loop.
"""

import contextlib
import functools
import gc
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from azure.core.credentials import AccessToken

from scaffolding import Clock, Schedule, TokenCache, rules, twin_of, twin_of_refresh

Action, Refresh = rules.Action, rules.Refresh

FLOOR = 5  # seconds between refreshes that bring nothing, of a token that is valid
HOUR = 3600


class BusyError(Exception):
    """A failure with a Retry-After."""

    def __init__(self, seconds: int) -> None:
        super().__init__("busy")
        self.response = type("Response", (), {"headers": {"Retry-After": str(seconds)}})()


class Caller:
    """A refresh that has been begun and not completed, and who waits for it."""

    def __init__(self, refresh: Any, began_at: float) -> None:
        self.refresh = refresh
        self.began_at = began_at


class World:
    """One credential and everything that can happen to it.

    :param life: How long the first token lives, None for no token.
    :param proactive: Whether the background refreshes.
    """

    OUTCOMES = "fresh", "same", "older", "expired", "refused", "failure", "busy", "abandoned"

    def __init__(self, life: float | None, *, proactive: bool, jitter: float = 0.0) -> None:
        self.clock = Clock()
        self.proactive = proactive
        self.process = 1
        self.closed = False
        self.serial = 0
        self.deadlines: dict[str, float] = {}
        self.expiries: dict[str, float] = {}
        self.refused: dict[str, float] = {}
        self.running: list[Caller] = []
        self.ended: Caller | None = None
        self.futile: tuple[float, ...] = ()
        """When refreshes began since a token last came that expires later."""
        self.busy_until = -math.inf
        clock = self.clock.sources(lambda: jitter)
        self.schedule = Schedule(clock)
        first = None if life is None else self.issue(life)
        self.cache = TokenCache(
            first, lambda *_: None, proactive=proactive, clock=clock, on_change=self.schedule.add
        )
        if first is not None:
            self.note(first)
        self.cache.changed()
        self.check()

    def copy(self) -> "World":
        """Return another world that is like this one, and goes its own way.

        What is noted is replaced when it changes, so both have it; refreshes change themselves.
        """
        twin: World = object.__new__(World)
        twin.__dict__.update(self.__dict__)
        twin.clock = Clock(self.clock.wall(), self.clock.mono())
        sources = twin.clock.sources(self.cache.clock.rand)
        state = self.state
        twin.running = []
        if self.running or state.refreshes or state.hung:
            known = [caller.refresh for caller in self.running]
            refreshes = {
                refresh: twin_of_refresh(refresh)
                for refresh in (*known, *state.refreshes, *state.hung)
            }
            twin.running = [Caller(refreshes[c.refresh], c.began_at) for c in self.running]
            state = replace(
                state,
                refreshes=tuple(refreshes[r] for r in state.refreshes),
                hung=tuple(refreshes[r] for r in state.hung),
            )
        twin.schedule = Schedule(sources)
        twin.cache = twin_of(self.cache, state, sources, twin.schedule)
        return twin

    # What the world knows, apart from the cache.

    def issue(self, life: float) -> AccessToken:
        self.serial += 1
        return AccessToken(f"t{self.serial}", int(self.clock.wall() + life))

    def note(self, token: AccessToken) -> None:
        """Note by when a token will have ended."""
        if self.expiries.get(token.token) != token.expires_on:
            self.expiries = {**self.expiries, token.token: token.expires_on}
            left = token.expires_on - self.clock.wall()
            self.deadlines = {**self.deadlines, token.token: self.clock.mono() + left}

    def is_valid(self, token: AccessToken | None) -> bool:
        return (
            token is not None
            and token.expires_on > self.clock.wall()
            and self.deadlines.get(token.token, math.inf) > self.clock.mono()
            and token.token not in self.refused
        )

    @property
    def state(self) -> Any:
        return self.cache.state

    # What may happen.

    def ask(self, claims: str | None = None, waited: Caller | None = None) -> None:
        """A caller asks, or wakes after it has waited."""
        held, mono = self.state.token, self.clock.mono()
        request = Refresh(claims)
        decision = self.cache.begin(request, waited.refresh if waited else None)
        if self.closed:
            assert decision.action is Action.RAISE
        elif decision.action is Action.RETURN:
            assert self.is_valid(decision.token), "an expired or refused token was returned"
            info = self.cache.info(decision.token)
            assert info.refresh_on is not None
            assert info.refresh_on <= info.expires_on - 75
        elif claims is None:
            assert decision.action is Action.LEAD or not self.is_valid(held), "it was withheld"
        if decision.action is Action.WAIT:
            assert not decision.refresh.is_overdue(self.cache.clock.now())
            assert 0 < decision.patience <= 60
        if decision.action is Action.LEAD:
            self.begin(request, held)
            if not self.is_valid(held):
                assert mono >= self.busy_until, "a Retry-After was not kept"
        else:
            assert not self.cache.is_in_progress(request)

    def begin(self, request: Any, held: AccessToken | None) -> None:
        mono = self.clock.mono()
        same = [
            caller.refresh
            for caller in self.running
            if request.claims in (None, caller.refresh.claims)
            and caller.refresh.is_worth_waiting_for(self.cache.clock.now())
            and self.cache.is_in_progress(caller.refresh)
        ]
        assert not same, "two refreshes for the same"
        self.running.append(Caller(request, mono))
        if request.claims is None:
            self.futile = (*self.futile, mono)
            if self.is_valid(held) and len(self.futile) > 1:
                since = mono - self.futile[-2]
                is_superseded = since >= 60
                assert since >= FLOOR or is_superseded, "refreshes are too close"

    def tick(self) -> None:
        """The background looks at what is due, and refreshes it if it should be."""
        for reference in self.schedule.pop_due():
            cache = reference()
            assert cache is self.cache
            held = self.state.token
            request = Refresh(ahead=True)
            decision = self.cache.begin(request)
            if decision.action is Action.LEAD:
                assert not self.closed
                assert self.proactive
                assert self.clock.mono() >= self.busy_until, "a Retry-After was not kept"
                self.begin(request, held)
            else:
                assert decision.action is Action.NOTHING
                self.cache.changed()
        self.check()

    def end(self, outcome: str, life: float = HOUR, index: int = 0, times: int = 1) -> None:
        """A refresh ends, the oldest one or another, perhaps late, perhaps twice."""
        caller = self.running.pop(index)
        before, held = self.state, self.state.token
        is_late = caller.refresh not in before.refreshes
        result = self.outcome(outcome, life)
        for _ in range(times):
            self.cache.complete(caller.refresh, result)
        after = self.state
        if outcome == "abandoned":
            self.futile = self.futile[:-1]  # nothing was learned, so a caller may try at once
        if isinstance(result, BusyError) and not is_late and not self.closed:
            wait = float(result.response.headers["Retry-After"])  # type: ignore[attr-defined]
            self.busy_until = self.clock.mono() + wait
        if after.token is not None and after.token is not held:
            self.note(after.token)
            assert self.is_valid(after.token), "what can't be used was taken"
            self.futile, self.busy_until = (), -math.inf
        if self.is_valid(held) and not self.closed:
            assert after.token is not None, "a good token was lost"
            if caller.refresh.claims is None or is_late:
                assert after.token.expires_on >= held.expires_on
        self.ended = caller
        self.ask(caller.refresh.claims, waited=caller)
        self.check()

    def outcome(self, name: str, life: float) -> Any:
        held = self.state.token
        if name == "fresh":
            return self.issue(life)
        if name == "same":
            return held or self.issue(life)
        if name == "older":
            return self.issue(1)
        if name == "expired":
            return self.issue(-1)
        if name == "refused":
            refused = [t for t, until in self.refused.items() if until > self.clock.wall()]
            text = refused[0] if refused else "unknown"
            return AccessToken(text, int(self.refused.get(text, self.clock.wall() + life)))
        return {
            "failure": ConnectionError("down"),
            "busy": BusyError(100),
            "abandoned": None,
        }[name]

    def wake(self) -> None:
        """Somebody wakes late who waited for the refresh that ended last."""
        if self.ended is not None:
            self.ask(self.ended.refresh.claims, waited=self.ended)
        self.check()

    def give_up_waiting(self) -> None:
        """Somebody has waited for the oldest refresh for as long as it may take."""
        if not self.closed:
            caller = self.running[0]
            held = self.state.token
            decision = self.cache.begin(Refresh(caller.refresh.claims), caller.refresh)
            if decision.action is Action.LEAD:
                assert not self.cache.is_in_progress(caller.refresh) or self.is_lost(caller)
                self.running.append(Caller(decision.refresh, self.clock.mono()))
                self.futile = (*self.futile, self.clock.mono())
            elif decision.action is Action.RETURN:
                assert self.is_valid(decision.token)
            elif caller.refresh.claims is None:
                assert not self.is_valid(held)
        self.check()

    def is_lost(self, caller: Caller) -> bool:
        return bool(caller.refresh.is_lost(self.cache.clock.now()))

    def lose(self) -> None:
        """The leader of the oldest refresh is gone: its loop has stopped, its process forked."""
        caller = self.running.pop(0)
        caller.refresh.process = -1
        assert self.is_lost(caller)
        self.futile = self.futile[:-1]
        self.check()

    def refuse(self) -> None:
        """The service refuses the current token, and one that is not current any more."""
        held = self.state.token
        self.cache.invalidate("another")
        assert self.state.token is held, "another token was refused"
        if held is not None:
            self.cache.invalidate(held.token)
            if not self.closed:
                self.refused = {**self.refused, held.token: held.expires_on}
                self.futile = ()
                assert self.state.token is None
        self.check()

    def fork(self) -> None:
        """A child goes on with the token; the hook that tells it may have run."""
        self.cache.look_after_fork()
        self.check()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.check()

    def suspend(self, seconds: float) -> None:
        self.clock.suspend(seconds)
        self.check()

    def set_clock(self, seconds: float) -> None:
        self.clock.set_wall(self.clock.wall() + seconds)
        self.check()

    def close(self) -> None:
        self.cache.close()
        self.closed = True
        self.check()

    def until(self, what: str) -> float:
        """Return in how many seconds a moment comes that matters."""
        state, now = self.state, self.cache.clock.now()
        left = rules.life_left(state, now)
        if what == "due":
            return self.schedule.delay() if self.proactive else left - state.next_left
        if what == "hold":
            return state.hold_until - now.mono
        if what == "deadline":
            return min((r.deadline_at - now.mono for r in state.refreshes), default=0)
        return left - state.window if what == "window" else left

    def let_an_hour_pass(self) -> None:
        """The issuer is down for an hour; then, if no token is valid, the background gets one."""
        self.end_all("failure")
        end, looks, tries = self.clock.mono() + HOUR, 0, 0
        while self.proactive and self.clock.mono() < end:
            tries += self.look("failure")
            looks += 1
            assert looks <= HOUR / 30 + 2 * HOUR / FLOOR, "a tight loop"
        assert tries <= HOUR / FLOOR + 1
        if not self.proactive:
            self.pass_time(HOUR)
        elif not self.is_valid(self.state.token):
            assert tries >= 1, "the chain has ended"
            for _ in range(30):
                self.look("fresh")
            assert self.is_valid(self.state.token), "the chain has ended"

    def look(self, outcome: str) -> int:
        """The background sleeps as long as it may, and a refresh that it starts ends at once."""
        self.clock.advance(max(self.schedule.delay(), 0.001))
        self.tick()
        return self.end_all(outcome)

    def end_all(self, outcome: str) -> int:
        """All refreshes end in the same way; return how many have been started in the meantime."""
        count = 0
        while self.running:
            self.end(outcome)
            count += 1
            assert count < 20, "a failure leads to the next refresh at once"
        return count

    # What must hold.

    def check(self) -> None:
        state, now = self.state, self.cache.clock.now()
        if self.closed:
            assert state == rules.State(closed=True)
            assert self.schedule.caches() == []
            return
        wall, mono, fresh_on, fresh_at, token = self.cache.snapshot.fast
        if wall() < fresh_on and mono() < fresh_at:
            assert self.is_valid(token)
        due = rules.due(state, now)
        assert (due is None) == (not self.proactive)
        if due is not None:
            assert 0 <= due.earliest <= due.preferred <= due.latest
            assert due.preferred < math.inf
            # The chain never ends: there is a timer, and it comes in time.
            assert self.schedule.caches() == [self.cache]
        assert len(self.schedule) <= 3
        assert len(state.refreshes) <= 4
        assert len(state.refused) <= len(self.refused)
        for value in (state.next_left, state.window, state.hold_until, state.background_at):
            assert not math.isnan(value)
        ahead = [c for c in self.running if c.refresh.ahead]
        assert len(ahead) <= 1, "the background occupies another worker"
        assert len(state.hung) <= 1
        keys = [r.claims for r in state.refreshes if r.is_worth_waiting_for(now)]
        assert len(keys) == len(set(keys))

    def key(self) -> Any:
        """Tell apart the states in which something else may come next."""
        state, now = self.state, self.cache.clock.now()
        left = rules.life_left(state, now)

        def since(moment: float) -> float:
            return moment if abs(moment) == math.inf else round(moment - now.mono, 3)

        return (
            self.proactive,
            self.closed,
            None if state.token is None else round(max(left, -1), 3),
            round(self.clock.wall() - self.clock.mono() - 1_699_999_000, 3),
            state.window,
            round(left - state.next_left, 3) if left > 0 else None,
            state.claims,
            max(since(state.claims_at), -30),
            max(since(state.obtained_at), -30),
            tuple(
                (r.claims, r.ahead, since(r.deadline_at), r.is_lost(now)) for r in state.refreshes
            ),
            tuple(c.refresh in state.refreshes for c in self.running),
            tuple(r.is_lost(now) for r in state.hung),
            max(since(state.hold_until), -1),
            max(since(state.background_at), -1),
            state.failures,
            type(state.error),
            state.refusals,
            tuple(sorted(round(r.expires_on - now.wall, 3) for r in state.refused)),
            round(self.schedule.delay(), 3) if self.proactive else None,
        )


# What may happen next, by name.

AT_ANY_TIME: dict[str, Callable[[World], Any]] = {
    "ask": lambda world: world.ask(),
    "ask for claims": lambda world: world.ask("c"),
    "ask for others": lambda world: world.ask("d"),
    "tick": lambda world: world.tick(),
    "a waiter wakes late": lambda world: world.wake(),
    "refuse": lambda world: world.refuse(),
    "fork": lambda world: world.fork(),
    "clock + 1 h": lambda world: world.set_clock(HOUR),
    "clock - 1 h": lambda world: world.set_clock(-HOUR),
    "suspend": lambda world: world.suspend(2 * HOUR),
    "half a minute": lambda world: world.pass_time(30),
    "close": lambda world: world.close(),
}

# And how many refreshes it takes.
WITH_REFRESHES: dict[str, tuple[int, Callable[[World], Any]]] = {
    "a second": (1, lambda world: world.end("fresh", 1)),
    "a minute": (1, lambda world: world.end("fresh", 60)),
    "an hour": (1, lambda world: world.end("fresh", HOUR)),
    "a day": (1, lambda world: world.end("fresh", 24 * HOUR)),
    "the same": (1, lambda world: world.end("same")),
    "an older one": (1, lambda world: world.end("older")),
    "an expired one": (1, lambda world: world.end("expired")),
    "a refused one": (1, lambda world: world.end("refused")),
    "failure": (1, lambda world: world.end("failure")),
    "busy": (1, lambda world: world.end("busy")),
    "abandoned": (1, lambda world: world.end("abandoned")),
    "the second one ends, twice": (2, lambda world: world.end("fresh", HOUR, 1, 2)),
    "the second one fails, twice": (2, lambda world: world.end("failure", index=1, times=2)),
    "a waiter gives up": (1, lambda world: world.give_up_waiting()),
    "the leader is lost": (1, lambda world: world.lose()),
}

MOMENTS: dict[str, tuple[str, float]] = {
    "before it is due": ("due", -0.001),
    "when it is due": ("due", 0.001),
    "before the window": ("window", -0.001),
    "in the window": ("window", 0.001),
    "before expiry": ("expiry", -0.001),
    "after expiry": ("expiry", 0.001),
    "after the hold": ("hold", 0.001),
    "after the deadline": ("deadline", 0.001),
}


def possible(world: World) -> Iterator[tuple[str, Callable[[World], Any]]]:
    """Return all that may happen in the present state of a world."""
    yield from AT_ANY_TIME.items()
    for name, (needed, act) in WITH_REFRESHES.items():
        if len(world.running) >= needed:
            yield name, act
    for name, (moment, offset) in MOMENTS.items():
        seconds = world.until(moment) + offset
        if 0 < seconds < 240 * HOUR:
            yield name, functools.partial(World.pass_time, seconds=seconds)


def explore(first: World, enough: int) -> int:
    """Let all that may happen next happen in each state, until there are enough of them.

    :return: The length up to which all sequences have been tried.
    """
    seen: set[Any] = {first.key()}
    todo: deque[tuple[tuple[str, ...], World]] = deque([((), first)])
    while len(seen) < enough:
        names, world = todo.popleft()
        for name, act in possible(world):
            after = world.copy()
            try:
                act(after)
            except AssertionError as error:
                msg = f"after {(*names, name)}: {error}"
                raise AssertionError(msg) from error
            key = after.key()
            if key not in seen:
                seen.add(key)
                todo.append(((*names, name), after))
    return len(names)


@contextlib.contextmanager
def in_silence() -> Iterator[None]:
    """Log nothing. Failures are what this is about; to log each would take most of the time.

    To look through all worlds for garbage would take a part of the rest.
    """
    logging.disable()
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        logging.disable(logging.NOTSET)
