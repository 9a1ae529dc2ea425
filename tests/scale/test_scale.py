"""A hundred thousand proactive credentials in one process, on clocks that are moved by hand."""

import asyncio
import gc
import random
import threading
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from azure.communication.common import CommunicationTokenCredential, aio
from azure.core.credentials import AccessToken

from scaffolding import (
    DEADLINE,
    Clock,
    InlineWorkers,
    Reference,
    Scheduler,
    Tally,
    ThreadWatch,
    TokenCache,
    Workers,
    armed_caches,
    cache_of,
    clock_loop,
    install,
    let_pass,
    on_clock,
    refresh_ahead,
    run_all_due,
    schedule_module,
    sync_scheduler,
    threadless,
)

MANY = 100_000
DAY, HOUR, MINUTE = 86_400, 3_600, 60
BYTES_EACH = 1_600

E = TypeVar("E", bound=Any)


class Service:
    """Issues tokens that live so long, and notes when; says nothing of whom they are for."""

    def __init__(self, clock: Clock, life: float) -> None:
        self._clock = clock
        self._life = life
        self.start = clock.wall()
        self.issued: Counter[int] = Counter()
        """How many tokens were issued in each ten seconds since the start."""
        self.callers = 0
        """How many of them a caller had to fetch."""
        self.a_caller_asks = False

    def token(self) -> AccessToken:
        """Return a token without a note of it."""
        return AccessToken("a token", int(self._clock.wall() + self._life))

    def issue(self) -> AccessToken:
        """Be a refresher."""
        self.issued[int(self._clock.wall() - self.start) // 10] += 1
        self.callers += self.a_caller_asks
        return self.token()

    async def issue_async(self) -> AccessToken:
        """Be an asynchronous refresher."""
        return self.issue()


def check_a_day(service: Service, tokens: list[AccessToken]) -> None:
    """Check what a day has to be like after which the credentials have these tokens."""
    assert service.issued.total() == MANY, "each is refreshed once"
    assert max(service.issued.values()) <= 110, "about ten a second"
    assert min(service.issued) * 10 >= DAY // 2, "none before half of its life"
    assert max(service.issued) * 10 <= DAY - 10 * MINUTE, "none in the last ten minutes"
    assert service.callers == 0, "no caller has to refresh"
    assert all(token.expires_on > service.start + DAY for token in tokens)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scheduler(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    """A scheduler without threads, which the credentials use."""
    return install(monkeypatch, threadless(clock, InlineWorkers()))


def make(
    cls: type[E], count: int, clock: Clock, refresher: Callable[[], Any], **first: Any
) -> list[E]:
    """Return so many proactive credentials, made in the same second."""
    cls = on_clock(cls, clock)
    build: Any = cls
    return [build(token_refresher=refresher, proactive_refresh=True, **first) for _ in range(count)]


# A day


def test_a_day_of_tokens_that_live_a_day(clock: Clock, scheduler: Scheduler) -> None:
    """A hundred thousand made in one second are refreshed at ten a second, by no caller."""
    service = Service(clock, DAY)
    credentials = make(
        CommunicationTokenCredential, MANY, clock, service.issue, token=service.token()
    )
    sample = random.Random(1).sample(credentials, 10)
    for _ in range(DAY // (10 * MINUTE)):
        let_pass(10 * MINUTE, clock, scheduler)
        service.a_caller_asks = True
        for credential in sample:
            credential.get_token()
        service.a_caller_asks = False
    service.a_caller_asks = True
    check_a_day(service, [credential.get_token() for credential in credentials])


def test_a_day_of_tokens_that_live_a_day_on_one_loop(clock: Clock) -> None:
    """A hundred thousand on one loop are refreshed at ten a second, by no caller."""
    service = Service(clock, DAY)

    async def main() -> list[AccessToken]:
        credentials = make(
            aio.CommunicationTokenCredential,
            MANY,
            clock,
            service.issue_async,
            token=service.token(),
        )
        await asyncio.sleep(DAY)
        service.a_caller_asks = True
        return [await credential.get_token() for credential in credentials]

    with clock_loop(clock) as loop:
        tokens = loop.run_until_complete(main())
        assert len(asyncio.all_tasks(loop)) == 0
    check_a_day(service, tokens)


def test_tokens_that_live_an_hour(clock: Clock, scheduler: Scheduler) -> None:
    """There is less time for them: they are spread evenly over twenty minutes, 83 a second."""
    service = Service(clock, HOUR)
    credentials = make(
        CommunicationTokenCredential, MANY, clock, service.issue, token=service.token()
    )
    let_pass(50 * MINUTE, clock, scheduler)
    scheduler.run_due()
    assert service.issued.total() == MANY
    assert max(service.issued.values()) <= 1_050
    assert (min(service.issued) * 10, max(service.issued) * 10) == (30 * MINUTE, 50 * MINUTE)
    service.a_caller_asks = True
    assert all(c.get_token().expires_on > service.start + HOUR for c in credentials)
    assert service.callers == 0


# Memory


def test_memory_of_a_credential(clock: Clock, scheduler: Scheduler) -> None:
    """One costs at most 1.6 kB beyond its token, and no more after days of refreshes."""
    service = Service(clock, DAY)
    token = service.token()
    make(CommunicationTokenCredential, 1, clock, service.issue)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        credentials = make(CommunicationTokenCredential, 1_000, clock, service.issue, token=token)
        made, _ = tracemalloc.get_traced_memory()
        let_pass(3 * DAY, clock, scheduler)
        gc.collect()
        later, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made - before <= BYTES_EACH * len(credentials)
    assert later - before <= BYTES_EACH * len(credentials)
    assert service.issued.total() >= 3 * len(credentials)


def test_memory_of_a_credential_on_a_loop(clock: Clock) -> None:
    """One costs at most 1.6 kB beyond its token, and no more after days of refreshes."""
    service = Service(clock, DAY)
    token = service.token()
    cls = aio.CommunicationTokenCredential

    async def main() -> None:
        warm = make(cls, 1, clock, service.issue_async)
        await asyncio.sleep(MINUTE)
        before, _ = tracemalloc.get_traced_memory()
        credentials = make(cls, 1_000, clock, service.issue_async, token=token)
        made, _ = tracemalloc.get_traced_memory()
        await asyncio.sleep(3 * DAY)
        gc.collect()
        later, _ = tracemalloc.get_traced_memory()
        assert made - before <= BYTES_EACH * len(credentials)
        assert later - before <= BYTES_EACH * len(credentials)
        assert service.issued.total() >= 3 * len(credentials) + len(warm)

    with clock_loop(clock) as loop:
        tracemalloc.start()
        try:
            loop.run_until_complete(main())
        finally:
            tracemalloc.stop()


# The end of many


def test_many_that_go_away(clock: Clock, scheduler: Scheduler) -> None:
    """Closed or dropped, all are forgotten at the next look, collected, and refresh no more."""
    service = Service(clock, DAY)
    credentials = make(
        CommunicationTokenCredential, MANY, clock, service.issue, token=service.token()
    )
    stays = credentials.pop()
    gone = [weakref.ref(credential) for credential in credentials]
    for credential in credentials[MANY // 2 :]:
        credential.close()
    del credentials[: MANY // 2]
    run_all_due(scheduler)
    assert scheduler.schedule.caches() == [cache_of(stays)]
    assert len(scheduler.schedule) == 1
    del credentials, credential
    assert sum(reference() is not None for reference in gone) == 0
    let_pass(2 * DAY, clock, scheduler)
    assert service.issued.total() == 2


def test_many_that_go_away_on_one_loop(clock: Clock) -> None:
    """Closed or dropped, all are forgotten at the next look, collected, and refresh no more."""
    service = Service(clock, DAY)

    async def main() -> None:
        credentials = make(
            aio.CommunicationTokenCredential,
            MANY,
            clock,
            service.issue_async,
            token=service.token(),
        )
        stays = credentials.pop()
        gone = [weakref.ref(credential) for credential in credentials]
        for credential in credentials[MANY // 2 :]:
            await credential.close()
        del credentials[: MANY // 2]
        await asyncio.sleep(30)
        assert armed_caches() == [cache_of(stays)]
        del credentials, credential
        assert sum(reference() is not None for reference in gone) == 0
        await asyncio.sleep(2 * DAY)
        assert service.issued.total() == 2

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


# Threads


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> ThreadWatch:
    """Watch the threads; they end soon, because seconds are a hundred times shorter here."""
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(schedule_module, "LONGEST_SLEEP_SECONDS", 0.3)
    return ThreadWatch()


def test_one_thread_and_eight_workers_for_a_hundred_thousand(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, threads: ThreadWatch
) -> None:
    """None before the first is armed, nine while all are due at once, none after the last."""
    install(monkeypatch, Scheduler(refresh_ahead, clock.sources(random.Random(1).random)))
    service, gate, calls = Service(clock, DAY), threading.Event(), Tally()

    def issue() -> AccessToken:
        if calls.count() <= 8:
            assert gate.wait(DEADLINE)
        return service.token()

    cls, token = CommunicationTokenCredential, service.token()
    idle = on_clock(cls, clock)(token, token_refresher=issue)
    assert threads.alive() == []
    credentials = make(cls, 1, clock, issue, token=token)  # due in a day, so the thread goes on
    credentials += make(cls, MANY, clock, issue)
    calls.wait_for(8)
    assert len(threads.alive()) == 9
    gate.set()
    calls.wait_for(MANY)
    assert len(threads.alive()) <= 9
    for credential in credentials:
        credential.close()
    threads.wait_for_end()
    idle.close()
    assert calls.value == MANY


class CountingWorkers(Workers):
    """Workers that count the credentials handed to them, and those that they are through with."""

    def __init__(self) -> None:
        super().__init__(self._refresh_and_count, lambda: None)
        self.given = 0
        self.done = Tally()
        self.stuck: object = None
        """A credential that does not count: it hangs, and comes again and again."""

    def submit(self, reference: Reference) -> None:
        """Hand a credential over."""
        self.given += reference() is not self.stuck
        super().submit(reference)

    def _refresh_and_count(self, cache: TokenCache) -> None:
        """Count when the token is stored, not when it is issued, or a test may see the old one."""
        refresh_ahead(cache)
        if cache is not self.stuck:
            self.done.count()


def test_one_refresher_that_hangs_for_an_hour_delays_none_of_the_others(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, threads: ThreadWatch
) -> None:
    """All others are refreshed when they are due, by real workers, while the clock goes on."""
    workers = CountingWorkers()
    scheduler = install(monkeypatch, threadless(clock, workers))
    service, gate, hanging = Service(clock, HOUR + 10 * MINUTE), threading.Event(), Tally()
    lock = threading.Lock()

    def hang() -> AccessToken:
        hanging.count()
        assert gate.wait(DEADLINE)
        return service.token()

    def issue() -> AccessToken:
        with lock:
            return service.issue()

    stuck = make(CommunicationTokenCredential, 1, clock, hang)
    workers.stuck = cache_of(stuck[0])
    scheduler.run_due()
    hanging.wait_for(1)
    credentials = make(CommunicationTokenCredential, MANY, clock, issue, token=service.token())
    while clock.wall() <= service.start + HOUR:
        run_all_due(scheduler)
        workers.done.wait_for(workers.given)
        clock.advance(10)
    assert (service.issued.total(), hanging.value) == (MANY, 1)
    assert len(threads.alive()) <= 8
    service.a_caller_asks = True
    assert all(c.get_token().expires_on > service.start + 70 * MINUTE for c in credentials)
    assert service.callers == 0
    gate.set()
    threads.wait_for_end()
    assert stuck[0].get_token().expires_on > clock.wall()


def test_many_overdue_after_a_suspension(clock: Clock, scheduler: Scheduler) -> None:
    """All are refreshed at the next look, in batches, but those for whom a caller was faster."""
    service = Service(clock, DAY)
    credentials = make(
        CommunicationTokenCredential, 10_000, clock, service.issue, token=service.token()
    )
    run_all_due(scheduler)
    clock.suspend(3 * DAY)
    for credential in credentials[:1_000]:
        credential.get_token()
    batches = run_all_due(scheduler)
    assert service.issued.total() == 10_000
    assert 9 <= batches <= 10  # of those for whom a caller was faster, some are passed over
    assert {c.get_token().expires_on for c in credentials} == {int(clock.wall()) + DAY}
    assert service.issued.total() == 10_000
