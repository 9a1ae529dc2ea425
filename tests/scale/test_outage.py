"""Thousands of proactive credentials on one schedule, while their issuer is down or busy."""

import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from azure.core.credentials import AccessToken

from model import HOUR, BusyError
from scaffolding import Clock, Schedule, TokenCache, rules

DAY, MANY = 24 * HOUR, 10_000
# In ten seconds, of those that fail: a hundred wait for their time there, and where one has been
# tried there is room for another.
MOST_TRIES = 200


class Fleet:
    """Proactive caches on one schedule, whose issuer answers at once, and when it was asked."""

    def __init__(self, count: int, life: float) -> None:
        self.clock = Clock(1_700_000_000.0)
        self.source = self.clock.sources(random.Random(1).random)
        self.schedule = Schedule(self.source)
        self.answer: Callable[[TokenCache], rules.Outcome] = lambda _: ConnectionError("down")
        self.tries: Counter[int] = Counter()
        """How many tries there were in each ten seconds."""
        self.each: Counter[TokenCache] = Counter()
        serials = itertools.count()
        self.new = lambda life: AccessToken(f"t{next(serials)}", int(self.clock.wall() + life))
        self.caches = [
            TokenCache(
                self.new(life),
                lambda *_: None,
                proactive=True,
                clock=self.source,
                on_change=self.schedule.add,
            )
            for _ in range(count)
        ]

    def arm(self) -> None:
        """Have the schedule look at all of them, as the first call of each does."""
        for cache in self.caches:
            cache.changed()

    def run(self, seconds: float) -> None:
        """Let time pass, and have each refresh end as soon as it is started."""
        end = self.clock.mono() + seconds
        while self.clock.mono() < end:
            self.clock.advance(min(max(self.schedule.delay(), 0.1), end - self.clock.mono()))
            for reference in self.schedule.pop_due():
                cache = reference()
                assert cache is not None
                request = rules.Refresh(ahead=True)
                if cache.begin(request).action is rules.Action.LEAD:
                    self.tries[int(self.clock.wall()) // 10] += 1
                    self.each[cache] += 1
                    cache.complete(request, self.answer(cache))
                else:
                    cache.changed()

    def ask_where_none_is_valid(self) -> None:
        """A caller of each that has no valid token asks for one."""
        for cache in self.caches:
            request = rules.Refresh()
            if cache.valid_token() is None:
                assert cache.begin(request).action is rules.Action.LEAD
                cache.complete(request, self.answer(cache))

    def valid(self) -> int:
        """Return how many of them have a valid token."""
        return sum(cache.valid_token() is not None for cache in self.caches)


@pytest.fixture(autouse=True)
def in_silence() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_an_outage_with_expired_tokens() -> None:
    """The tries are spread over time, and all recover."""
    fleet = Fleet(MANY, HOUR)
    fleet.clock.advance(2 * HOUR)
    fleet.arm()
    fleet.run(60)  # each is tried once, as soon as it is armed
    assert len(fleet.each) == MANY
    fleet.tries.clear()
    fleet.run(HOUR)
    assert max(fleet.tries.values()) <= MOST_TRIES
    fleet.answer = lambda _: fleet.new(DAY)
    fleet.tries.clear()
    fleet.run(HOUR)
    assert fleet.valid() >= 0.97 * MANY
    fleet.run(6 * HOUR)
    assert fleet.valid() >= 0.999 * MANY
    fleet.ask_where_none_is_valid()  # a few have been put off for hours; callers need not wait
    assert fleet.valid() == MANY
    assert max(fleet.tries.values()) <= MOST_TRIES


def test_an_outage_with_valid_tokens() -> None:
    """All are kept until they expire, with a few attempts each; then those are spread as well."""
    fleet = Fleet(MANY, DAY)
    fleet.arm()
    fleet.run(DAY - 5)
    assert fleet.valid() == MANY
    assert len(fleet.each) == MANY
    assert max(fleet.each.values()) <= 12
    assert max(fleet.tries.values()) <= MOST_TRIES
    fleet.tries.clear()
    fleet.run(60)
    assert max(fleet.tries.values()) <= 2 * MOST_TRIES  # the first failure without a valid token
    fleet.tries.clear()
    fleet.run(HOUR)
    assert fleet.valid() == 0
    assert max(fleet.tries.values()) <= MOST_TRIES
    fleet.answer = lambda _: fleet.new(DAY)
    fleet.run(HOUR)
    assert fleet.valid() >= 0.97 * MANY
    fleet.run(6 * HOUR)
    assert fleet.valid() >= 0.999 * MANY
    fleet.ask_where_none_is_valid()  # a few have been put off for hours; callers need not wait
    assert fleet.valid() == MANY


def test_no_try_comes_inside_a_hold() -> None:
    """However many are spread over the time, none is tried before its Retry-After has passed."""
    fleet = Fleet(500, HOUR)
    asked: dict[TokenCache, float] = {}

    def be_busy(cache: TokenCache) -> Exception:
        now = fleet.clock.mono()
        assert now >= asked.get(cache, 0) + 100
        asked[cache] = now
        return BusyError(100)

    fleet.answer = be_busy
    fleet.arm()
    fleet.run(2 * HOUR)
    assert min(fleet.each[cache] for cache in fleet.caches) >= 3
