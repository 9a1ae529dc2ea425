"""The thread and its workers on the heap of due times, and the timers of event loops."""

import asyncio
import contextvars
import gc
import logging
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.communication.common import CommunicationTokenCredential

from scaffolding import (
    DEADLINE,
    Call,
    Clock,
    ClockLoop,
    Item,
    Scheduler,
    Tally,
    ThreadWatch,
    Workers,
    aio_scheduler,
    clock_loop,
    schedule_module,
    sync_scheduler,
    wait_until,
)

HOUR = 3600


@pytest.fixture
def clock() -> Clock:
    return Clock(wall=1_700_000_000.0, mono=1_000.0)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadWatch]:
    """Watch the threads that the test starts; they end soon, as they idle only for a moment."""
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(schedule_module, "LONGEST_SLEEP_SECONDS", 0.01)
    watch = ThreadWatch()
    yield watch
    watch.wait_for_end()


@pytest.fixture(params=["the system", "a sub-interpreter"])
def no_more_threads(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Have every thread refused, or every one that is a daemon."""

    def refuse(*_: object) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(sync_scheduler, "warned", False)
    with pytest.MonkeyPatch.context() as refusal:
        if request.param == "the system":
            refusal.setattr(threading.Thread, "start", refuse)
        else:
            refusal.setattr(threading.Thread, "daemon", property(lambda _: False, refuse))
        yield refusal


def refresh(item: Any) -> None:
    """Be what a worker calls."""
    item.refresh()


def scheduler_on(clock: Clock) -> Scheduler:
    return Scheduler(refresh, clock.sources())


def add(scheduler: Any, item: Item) -> Item:
    scheduler.add(item)
    return item


def fresh_after(item: Item, work: Callable[[], Any]) -> Item:
    """Have an item do something when it is refreshed, and be due no more."""
    reference = weakref.ref(item)  # or it would be part of a cycle

    def refresh_once() -> None:
        reference().due_in(99 * HOUR)  # type: ignore[union-attr]
        work()

    item.refresh = refresh_once
    return item


# The thread


def test_the_thread_begins_with_the_first_item_and_ends_after_the_last(
    clock: Clock, threads: ThreadWatch
) -> None:
    """There is one daemon thread while anything is armed; then the scheduler has retired."""
    scheduler = scheduler_on(clock)
    assert threads.alive() == []
    items = [add(scheduler, Item(clock, HOUR)) for _ in range(10)]
    wait_until(lambda: len(scheduler.schedule) == 10)
    assert [thread.daemon for thread in threads.alive()] == [True]
    for item in items[:5]:
        scheduler.schedule.remove(item)  # type: ignore[arg-type]
    assert not scheduler.is_retired
    del items, item
    threads.wait_for_end()
    assert scheduler.is_retired


def test_what_comes_to_a_scheduler_that_retires_goes_on_to_the_next(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost between the end of one thread and the start of the other."""
    schedulers: dict[int, Any] = {}
    monkeypatch.setattr(sync_scheduler, "schedulers", schedulers)
    for _ in range(3):
        called = threading.Event()
        item: Any = fresh_after(Item(clock, 0), called.set)
        sync_scheduler.arm(item, refresh)
        assert called.wait(DEADLINE)
        del item
        threads.wait_for_end()
        assert schedulers == {}
    called = threading.Event()
    item = fresh_after(Item(clock, 0), called.set)
    late = scheduler_on(clock)
    schedulers[os.getpid()] = late
    original = late.add

    def retire_then_add(cache: Any) -> None:
        late.runner["thread"] = weakref.ref(threading.main_thread())
        Call(late.retire).value()  # the thread, which is somewhere else
        original(cache)

    monkeypatch.setattr(late, "add", retire_then_add)
    sync_scheduler.arm(item, refresh)
    assert called.wait(DEADLINE)
    assert late.is_retired
    del item


def test_two_that_start_the_thread_at_once_start_one(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that comes second leaves it to the other."""
    scheduler = scheduler_on(clock)
    items = [Item(clock, HOUR), Item(clock, HOUR)]
    new_thread = sync_scheduler.new_thread

    def late(target: Callable[[], None]) -> threading.Thread:
        monkeypatch.setattr(sync_scheduler, "new_thread", new_thread)
        add(scheduler, items[1])
        return new_thread(target)

    monkeypatch.setattr(sync_scheduler, "new_thread", late)
    add(scheduler, items[0])
    wait_until(lambda: len(scheduler.schedule) == 2)
    assert len(threads.alive()) == 1
    items.clear()


def test_the_thread_looks_again_though_nothing_told_it_to(
    clock: Clock, threads: ThreadWatch
) -> None:
    """It sleeps in slices, so it notices the end of a suspension, which wakes no sleeper."""
    called = threading.Event()
    scheduler = scheduler_on(clock)
    item = add(scheduler, fresh_after(Item(clock, HOUR), called.set))
    wait_until(lambda: len(scheduler.schedule) == 1)
    clock.suspend(HOUR)
    clock.advance(HOUR)
    assert called.wait(DEADLINE)
    del item


def test_an_item_that_is_due_earlier_wakes_the_thread(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread does not sleep on until what was the next one."""
    monkeypatch.setattr(schedule_module, "LONGEST_SLEEP_SECONDS", HOUR)
    called = threading.Event()
    scheduler = scheduler_on(clock)
    first = add(scheduler, Item(clock, HOUR))
    wait_until(lambda: len(scheduler.schedule) == 1)
    second = add(scheduler, fresh_after(Item(clock, 0), called.set))
    assert called.wait(DEADLINE)
    monkeypatch.setattr(schedule_module, "LONGEST_SLEEP_SECONDS", 0.01)
    del first, second
    scheduler.wake()


def test_a_fault_of_the_scheduler_s_own_does_not_end_its_thread(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported as Python reports what ends a thread, and the thread goes on."""
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    called = threading.Event()
    scheduler = scheduler_on(clock)
    broken = Item(clock, 0)
    broken.state = None  # type: ignore[assignment]
    add(scheduler, broken)
    item = add(scheduler, fresh_after(Item(clock, 0), called.set))
    assert called.wait(DEADLINE)
    assert [report.exc_type for report in reports] == [AttributeError]
    assert broken.entry > 0, "it is tried again"
    reports.clear()  # they refer to it
    del item, broken


def test_everything_due_at_once_is_handed_over_in_batches(clock: Clock) -> None:
    """The thread does not sleep before the last."""
    scheduler = scheduler_on(clock)
    scheduler.runner["thread"] = weakref.ref(threading.main_thread())
    scheduler.workers.start_needed = lambda: None  # type: ignore[method-assign]
    items = [add(scheduler, Item(clock, None)) for _ in range(2_500)]
    handed_over = []
    while scheduler.run_due() == 0:
        handed_over.append(len(scheduler.workers))
    assert (handed_over, len(scheduler.workers)) == ([1_000, 2_000], 2_500)
    assert len(items) == 2_500


def test_an_interrupt_while_the_thread_is_started_does_not_turn_the_background_off(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """threading keeps such a thread for good, which will never run; the next use starts another."""
    limbo = threading._limbo  # type: ignore[attr-defined]
    called = threading.Event()
    monkeypatch.setattr(sync_scheduler, "schedulers", {})
    monkeypatch.setattr(
        sync_scheduler, "Scheduler", lambda refresh: Scheduler(refresh, clock.sources())
    )
    with monkeypatch.context() as interrupted:

        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        is_joinable = hasattr(threading, "_start_joinable_thread")  # since Python 3.13
        name = "_start_joinable_thread" if is_joinable else "_start_new_thread"
        interrupted.setattr(threading, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            sync_scheduler.arm(Item(clock, 0), refresh)  # type: ignore[arg-type]
    item = fresh_after(Item(clock, 0), called.set)
    sync_scheduler.arm(item, refresh)  # type: ignore[arg-type]
    assert called.wait(DEADLINE)
    limbo.clear()


def test_without_threads_one_warning_is_enough(
    clock: Clock,
    threads: ThreadWatch,
    no_more_threads: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody is told twice, nothing is raised, and what was armed is served once there is one."""
    calls = Tally()
    scheduler = scheduler_on(clock)
    items = [add(scheduler, fresh_after(Item(clock, 0), calls.count)) for _ in range(10)]
    for item in items:
        add(scheduler, item)
    assert scheduler.run_due() > 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages == [
        "Proactive refresh is off: no thread could be started (can't start new thread). Tokens are "
        "refreshed on demand."
    ]
    assert calls.value == 0
    no_more_threads.undo()
    items.append(add(scheduler, fresh_after(Item(clock, 0), calls.count)))
    calls.wait_for(11)
    del items, item


# The workers


def hand_over(workers: Workers, *items: Item) -> None:
    for item in items:
        workers.submit(weakref.ref(item))  # type: ignore[arg-type]
    workers.start_needed()


def new_workers() -> Workers:
    """Return workers that are started by the test alone."""
    return Workers(refresh, lambda: None)


def hanging(clock: Clock, gate: threading.Event, log: list[str]) -> Item:
    """Return an item whose refresh hangs until the gate opens, and notes both."""

    def hang() -> None:
        log.append("begins")
        assert gate.wait(DEADLINE)
        log.append("ends")

    return Item(clock, 0, hang)


def test_there_are_eight_workers_at_most(clock: Clock, threads: ThreadWatch) -> None:
    """The ninth item waits for one of them; when all is done they end, and others can begin."""
    calls, gate = Tally(), threading.Event()

    def work() -> None:
        calls.count()
        assert gate.wait(DEADLINE)

    workers = new_workers()
    items = [Item(clock, 0, work) for _ in range(100)]
    hand_over(workers, *items)
    calls.wait_for(8)
    assert len(threads.alive()) == 8
    assert calls.value == 8
    gate.set()
    calls.wait_for(100)
    threads.wait_for_end()
    hand_over(workers, items[0])
    calls.wait_for(101)


def test_a_worker_goes_on_with_what_waits(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no call for that."""
    workers, gate, calls = new_workers(), threading.Event(), Tally()
    stuck = [Item(clock, 0, lambda: gate.wait(DEADLINE)) for _ in range(8)]
    hand_over(workers, *stuck)
    wait_until(lambda: len(workers) == 0)
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 4 * DEADLINE)
    items = [Item(clock, 0, calls.count) for _ in range(3)]
    hand_over(workers, *items)
    gate.set()
    calls.wait_for(3)
    wait_until(lambda: len(workers.idle) == 8)
    assert calls.value == 3
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    for queue_of_calls in list(workers.idle.values()):
        queue_of_calls.put(None)
    threads.wait_for_end()


def test_what_waits_for_a_worker_waits_once(clock: Clock, threads: ThreadWatch) -> None:
    """However often it comes due while the workers hang, nothing grows."""
    gate, hanging, calls = threading.Event(), Tally(), Tally()

    def hang() -> None:
        hanging.count()
        assert gate.wait(DEADLINE)

    workers = new_workers()
    stuck = [Item(clock, 0, hang) for _ in range(8)]
    hand_over(workers, *stuck)
    hanging.wait_for(8)
    items = [Item(clock, 0, calls.count) for _ in range(3)]
    for _ in range(100):
        hand_over(workers, *items)
    assert (len(workers), len(workers.idle)) == (3, 0)
    gate.set()
    calls.wait_for(3)
    threads.wait_for_end()
    assert (calls.value, len(workers)) == (3, 0)


def test_one_item_at_a_time_needs_one_worker(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is idle is given the next item, and no other is started."""
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", DEADLINE)
    workers, calls = new_workers(), Tally()
    item = Item(clock, 0, calls.count)
    for nth in range(20):
        hand_over(workers, item)
        calls.wait_for(nth + 1)
        wait_until(lambda: len(workers.idle) == 1)
    assert len(threads.alive()) == 1
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    hand_over(workers, item)
    calls.wait_for(21)


def test_an_item_never_queues_behind_one_that_hangs(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If two come while one worker is idle, another one is started."""
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", DEADLINE)
    workers, gate, calls = new_workers(), threading.Event(), Tally()
    log: list[str] = []
    first = Item(clock, 0, calls.count)
    hand_over(workers, first)
    calls.wait_for(1)
    wait_until(lambda: len(workers.idle) == 1)
    stuck = hanging(clock, gate, log)
    hand_over(workers, stuck, first)
    calls.wait_for(2)
    wait_until(lambda: log == ["begins"])
    assert len(threads.alive()) == 2
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    gate.set()
    while alive := threads.alive():  # whoever sleeps on is called
        for queue_of_calls in list(workers.idle.values()):
            queue_of_calls.put(None)
        alive[0].join(0.02)
    assert (log, calls.value) == (["begins", "ends"], 2)


def test_a_worker_calls_for_another_when_it_leaves_work_behind(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been counted as idle when the work came."""
    gate, calls, asked = threading.Event(), Tally(), Tally()
    log: list[str] = []
    workers = Workers(refresh, asked.count)
    stuck = hanging(clock, gate, log)
    other = Item(clock, 0, calls.count)
    with monkeypatch.context() as only_one:
        only_one.setattr(sync_scheduler, "MAX_WORKERS", 1)
        hand_over(workers, stuck, other)
    asked.wait_for(1)
    assert calls.value == 0
    workers.start_needed()
    calls.wait_for(1)
    wait_until(lambda: log == ["begins"])
    gate.set()
    threads.wait_for_end()
    assert (log, calls.value, asked.value) == (["begins", "ends"], 1, 1)


def test_a_worker_that_has_not_begun_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often its item is handed over before the system lets it run, it is the only one."""
    started: list[object] = []

    class Thread:
        def __init__(self, target: Callable[[], None]) -> None:
            pass

        def start(self) -> None:
            started.append(self)

        def is_alive(self) -> bool:
            return True

    monkeypatch.setattr(sync_scheduler, "new_thread", Thread)
    workers, item = new_workers(), Item(clock, 0)
    for _ in range(3):
        hand_over(workers, item)
    assert len(started) == 1
    assert [queue_of_calls.qsize() for queue_of_calls in workers.idle.values()] == [1]


def test_each_worker_is_called_by_itself(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that get from one queue with a time-out, Python may let one wait forever."""
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", DEADLINE)
    workers, together = new_workers(), threading.Barrier(2)
    items = [Item(clock, 0, lambda: together.wait(DEADLINE)) for _ in range(2)]
    for _ in range(2):
        hand_over(workers, *items)
        wait_until(lambda: len(workers) == 0 and len(workers.idle) == 2)
    first, second = workers.idle.values()
    assert first is not second
    assert len(threads.alive()) == 2
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    hand_over(workers, *items)


def test_an_item_that_comes_when_a_worker_stops_waiting_is_refreshed(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who handed it over may have taken the worker for idle."""
    calls = Tally()
    item = Item(clock, 0, calls.count)
    coming: list[Any] = [weakref.ref(item)]

    class TooLate(queue.SimpleQueue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            while coming:
                workers.submit(coming.pop())
            raise queue.Empty

    workers = new_workers()
    monkeypatch.setattr(queue, "SimpleQueue", TooLate)
    hand_over(workers, Item(clock, 0))
    threads.wait_for_end()
    assert (calls.value, len(workers)) == (1, 0)


def test_an_idle_worker_holds_no_item_alive(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item it refreshed last can be collected."""
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", DEADLINE)
    workers, calls = new_workers(), Tally()
    item = Item(clock, 0, calls.count)
    hand_over(workers, item)
    calls.wait_for(1)
    wait_until(lambda: len(workers.idle) == 1)
    dropped = weakref.ref(item)
    del item
    assert dropped() is None
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    item = Item(clock, 0)
    hand_over(workers, item)


def test_an_item_dropped_while_it_waits_for_a_worker_is_skipped(
    clock: Clock, threads: ThreadWatch
) -> None:
    """The queue holds no item alive either."""
    gate, calls = threading.Event(), Tally()
    workers = new_workers()
    busy = [Item(clock, 0, lambda: gate.wait(DEADLINE)) for _ in range(8)]
    hand_over(workers, *busy)
    dropped, last = Item(clock, 0, calls.count), Item(clock, 0, calls.count)
    hand_over(workers, dropped, last)
    del dropped
    gate.set()
    threads.wait_for_end()
    assert calls.value == 1


def test_an_item_that_hangs_costs_one_worker(clock: Clock, threads: ThreadWatch) -> None:
    """The others go on."""
    calls, gate = Tally(), threading.Event()
    log: list[str] = []
    workers = new_workers()
    stuck = hanging(clock, gate, log)
    items = [Item(clock, 0, calls.count) for _ in range(1_000)]
    hand_over(workers, stuck, *items)
    calls.wait_for(1_000)
    wait_until(lambda: log == ["begins"])
    assert len(workers.threads) == 8
    gate.set()
    threads.wait_for_end()
    assert (log, calls.value) == (["begins", "ends"], len(items))


def test_an_item_that_raises_costs_no_worker(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A custom log handler that fails in a refresh is reported, and the worker goes on."""
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    called = threading.Event()
    workers = new_workers()
    items = [Item(clock, 0, lambda: 1 // 0) for _ in range(100)]
    last = Item(clock, 0, called.set)
    hand_over(workers, *items, last)
    assert called.wait(DEADLINE)
    threads.wait_for_end()
    assert [report.exc_type for report in reports] == [ZeroDivisionError] * 100


# One scheduler for each process


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have ``os.getpid`` return the last of these, in a world without schedulers."""
    ids = [1001]
    monkeypatch.setattr(sync_scheduler, "schedulers", {})
    monkeypatch.setattr(sync_scheduler, "has_hook", False)
    monkeypatch.setattr(os, "getpid", lambda: ids[-1])
    return ids


def test_a_process_has_one_scheduler_and_a_child_its_own(
    clock: Clock, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child finds its own by its process id, drops its parent's, and inherits the hook."""
    hooks: list[Any] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **kwargs: hooks.append(kwargs))
    first = sync_scheduler.scheduler(refresh)
    assert sync_scheduler.scheduler(refresh) is first
    first.runner["thread"] = weakref.ref(threading.main_thread())
    armed, noted = Item(clock, HOUR), Item(clock, HOUR)
    first.schedule.add(armed)  # type: ignore[arg-type]
    first.add(noted)  # type: ignore[arg-type]
    assert [list(hook) for hook in hooks] == [["after_in_child"]]
    processes.append(1002)
    hooks[0]["after_in_child"]()
    assert (armed.looks_after_fork, noted.looks_after_fork) == (1, 1)
    second = sync_scheduler.scheduler(refresh)
    assert second is not first
    assert sync_scheduler.scheduler(refresh) is second
    assert list(sync_scheduler.schedulers) == [1002]
    assert len(hooks) == 1


def test_a_scheduler_that_retires_leaves_the_next_one_alone(processes: list[int]) -> None:
    """An interrupt may have it retire twice, and in between there may be another."""
    first = sync_scheduler.scheduler(refresh)
    first.retire()
    second = sync_scheduler.scheduler(refresh)
    first.retire()
    assert first is not second is sync_scheduler.scheduler(refresh)


def test_nothing_is_armed_while_the_interpreter_ends(
    clock: Clock, processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be started by then, and nobody wants to be warned of that."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    item: Any = Item(clock, 0)
    sync_scheduler.arm(item, refresh)
    assert sync_scheduler.schedulers == {}


def test_the_background_ends_where_threads_are_replaced_after_it_has_begun(
    clock: Clock,
    threads: ThreadWatch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As gevent does, whose threads a real one cannot start; callers go on by themselves."""

    class Replaced(queue.SimpleQueue):  # type: ignore[type-arg]
        pass

    remedy = (
        "threading was patched, as gevent does, after the first credential with proactive_refresh "
        "was created: call gevent.monkey.patch_all(), or its equivalent, before that"
    )
    monkeypatch.setattr(sync_scheduler, "schedulers", {})
    item: Any = Item(clock, HOUR)
    sync_scheduler.arm(item, refresh)
    found = sync_scheduler.scheduler(refresh)
    wait_until(lambda: found.schedule.caches() == [item])
    monkeypatch.setattr(queue, "SimpleQueue", Replaced)
    threads.wait_for_end()
    assert caplog.messages == [f"Proactive refresh is off: {remedy}"]
    sync_scheduler.arm(item, refresh)
    assert (threads.alive(), found.changed) == ([], {})
    assert sync_scheduler.scheduler(refresh) is found
    with pytest.raises(RuntimeError) as caught:
        CommunicationTokenCredential(token_refresher=str, proactive_refresh=True)
    assert str(caught.value) == remedy


def test_a_system_that_does_not_fork_has_no_hook(
    processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no ``os.register_at_fork``."""
    monkeypatch.delattr(os, "register_at_fork")
    assert sync_scheduler.scheduler(refresh) is sync_scheduler.scheduler(refresh)


# The timers of event loops


def timers_on(loop: asyncio.AbstractEventLoop) -> Any:
    """Return the loop's scheduler, which calls the items that are due."""
    timers = aio_scheduler.scheduler(loop, lambda item: None)
    timers.refresh = lambda item: item.refresh()  # type: ignore[attr-defined]
    return timers


def start(clock: Clock, after: float, work: Callable[[], Any]) -> Item:
    """Return an item whose refresh awaits what ``work`` returns, in a task of its own."""
    item = Item(clock, after)
    reference = weakref.ref(item)

    async def run() -> None:
        await work()

    def refresh_once() -> "asyncio.Task[None]":
        reference().due_in(99 * HOUR)  # type: ignore[union-attr]
        timers_on(asyncio.get_running_loop()).schedule.add(reference())
        return asyncio.get_running_loop().create_task(run())

    item.refresh = refresh_once
    return item


def counting(clock: Clock, after: float, calls: Tally) -> Item:
    """Return an item whose refreshes are counted, and end at once."""

    def work() -> Any:
        calls.count()
        return asyncio.sleep(0)

    return start(clock, after, work)


def test_a_timer_refreshes_what_is_due(clock: Clock) -> None:
    """Each item is refreshed on its loop at its due time, once."""
    calls = Tally()

    async def main() -> None:
        now = clock.wall()
        timers = timers_on(asyncio.get_running_loop())
        items = [add(timers, counting(clock, after, calls)) for after in (1_000, 10, 2_000)]
        for until, expected in [(9.9, 0), (10.1, 1), (999.9, 1), (1000.1, 2), (2000.1, 3)]:
            await asyncio.sleep(now + until - clock.wall())
            assert calls.value == expected
        await asyncio.sleep(HOUR)
        assert calls.value == len(items)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_a_loop_looks_again_within_thirty_seconds_of_its_own_time(clock: Clock) -> None:
    """A suspended machine stops the loop's clock, which does not say when it resumes."""
    calls = Tally()

    async def main() -> None:
        timers = timers_on(asyncio.get_running_loop())
        item = add(timers, counting(clock, 3 * HOUR, calls))
        await asyncio.sleep(1)
        clock.suspend(3 * HOUR)
        await asyncio.sleep(30)
        assert (calls.value, item.entry > 0) == (1, True)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_a_finalizer_may_change_a_credential_while_the_application_sets_a_timer(
    clock: Clock,
) -> None:
    """The heap of the loop is in disorder at that moment, so nothing must be added to it."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        timers = timers_on(loop)
        before = loop.timers
        item = add(timers, counting(clock, 0, calls))
        assert loop.timers == before
        for _ in range(3):
            await asyncio.sleep(0)
        assert (calls.value, item.entry > 0) == (1, True)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_a_finalizer_may_change_a_credential_while_the_scheduler_sets_its_timer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look is then the earlier one."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        timers = timers_on(loop)
        items = [add(timers, Item(clock, HOUR))]
        call_at = loop.call_at

        def interfere(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.undo()
            items.append(add(timers, counting(clock, 0, calls)))
            return call_at(*args, **kwargs)

        monkeypatch.setattr(loop, "call_at", interfere)
        for _ in range(3):
            await asyncio.sleep(0)
        assert (len(items), calls.value) == (2, 1)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_timers_never_pile_up(clock: Clock) -> None:
    """A thousand items, each due before the one that the timer was set for, leave one timer."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        timers = timers_on(loop)
        items = [add(timers, counting(clock, 29 - i / 100, calls)) for i in range(90)]
        items.append(add(timers, counting(clock, 9 * HOUR, calls)))
        await asyncio.sleep(60)
        assert calls.value == 90
        before = loop.timers
        with pytest.MonkeyPatch.context() as watched:
            call_soon, looks = loop.call_soon, []

            def note(callback: Any, *args: Any, **kwargs: Any) -> Any:
                looks.append(getattr(callback, "__self__", None))
                return call_soon(callback, *args, **kwargs)

            watched.setattr(loop, "call_soon", note)
            items += [add(timers, counting(clock, 9 * HOUR, calls)) for _ in range(90)]
        assert looks == [timers]
        await asyncio.sleep(HOUR)
        # One each 30 seconds, one for the items, and that of this sleep.
        assert loop.timers - before <= 123
        assert calls.value == 90

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_no_timer_is_set_for_nothing(clock: Clock) -> None:
    """When the last item was dropped or closed, the loop's timers end."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        timers = timers_on(loop)
        items = [add(timers, Item(clock, HOUR)) for _ in range(10)]
        for item in items[:5]:
            timers.schedule.remove(item)
        del items, item
        await asyncio.sleep(31)
        before = loop.timers
        await asyncio.sleep(2 * HOUR)
        assert (loop.timers - before, calls.value) == (1, 0)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_at_most_sixty_four_refreshes_run_on_one_loop(clock: Clock) -> None:
    """The next ones begin as others end; meanwhile no timer ticks for nothing."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        gate = asyncio.Event()

        def work() -> Any:
            calls.count()
            return gate.wait()

        timers = timers_on(loop)
        items = [add(timers, start(clock, 0, work)) for _ in range(100)]
        await asyncio.sleep(1)
        assert calls.value == 64
        before = loop.timers
        await asyncio.sleep(HOUR)
        assert (loop.timers - before, calls.value) == (1, 64)
        gate.set()
        await asyncio.sleep(1)
        assert calls.value == len(items)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_while_some_refresh_others_find_the_rest_of_the_places(clock: Clock) -> None:
    """A look takes no more out than there are places, and what it leaves comes later."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        gate = asyncio.Event()

        def work() -> Any:
            calls.count()
            return gate.wait()

        timers = timers_on(loop)
        items = [add(timers, start(clock, 0, work)) for _ in range(40)]
        await asyncio.sleep(1)
        items += [add(timers, start(clock, 0, work)) for _ in range(50)]
        await asyncio.sleep(1)
        assert calls.value == 64
        gate.set()
        await asyncio.sleep(1)
        assert calls.value == len(items)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_the_places_of_cancelled_refreshes_are_not_filled_at_once(clock: Clock) -> None:
    """The end of ``asyncio.run`` would start refreshes that nobody cancels any more."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        def work() -> Any:
            return asyncio.sleep(HOUR if calls.count() <= 64 else 0)

        timers = timers_on(loop)
        items = [add(timers, start(clock, 0, work)) for _ in range(90)]
        await asyncio.sleep(1)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        add(timers, items[0])
        for _ in range(9):
            await asyncio.sleep(0)
        assert (len(tasks), calls.value) == (64, 64)
        await asyncio.sleep(2)
        assert calls.value == 90

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_an_item_that_needs_no_refresh_holds_no_place(clock: Clock) -> None:
    """A credential that somebody else has refreshed meanwhile starts no task."""
    calls = Tally()

    async def main() -> None:
        timers = timers_on(asyncio.get_running_loop())
        idle = [add(timers, Item(clock, 0)) for _ in range(90)]
        busy = add(timers, counting(clock, 0, calls))
        await asyncio.sleep(1)
        assert (calls.value, len(idle), busy.entry > 0) == (1, 90, True)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_an_item_armed_on_another_loop_is_refreshed_there(clock: Clock) -> None:
    """Its entry on the first loop is void."""
    calls: list[asyncio.AbstractEventLoop] = []

    def work() -> Any:
        calls.append(asyncio.get_running_loop())
        return asyncio.sleep(0)

    item = start(clock, 10, work)

    async def arm() -> None:
        add(timers_on(asyncio.get_running_loop()), item)

    with clock_loop(clock) as first, clock_loop(clock) as second:
        first.run_until_complete(arm())
        second.run_until_complete(arm())
        first.run_until_complete(asyncio.sleep(20))
        assert calls == []
        second.run_until_complete(asyncio.sleep(20))
        assert calls == [second]


def test_a_loop_that_runs_again_takes_no_item_back(clock: Clock) -> None:
    """What changed right before it stopped may have been armed on another loop since."""
    calls = Tally()
    item: Any = counting(clock, 60, calls)

    async def arm() -> None:
        """Arm it in the loop's last iteration."""
        loop = asyncio.get_running_loop()
        timers_on(loop)
        loop.call_soon(aio_scheduler.arm, item, refresh)

    with clock_loop(clock) as first, clock_loop(clock) as second:
        first.run_until_complete(arm())
        second.run_until_complete(arm())
        second.run_until_complete(asyncio.sleep(1))
        first.run_until_complete(asyncio.sleep(1))
        assert calls.value == 0
        second.run_until_complete(asyncio.sleep(60))
        assert calls.value == 1


def test_a_loop_may_be_closed_while_an_item_is_sent_to_it(clock: Clock) -> None:
    """The next use on a loop arms it; whoever caused the change is not troubled."""

    class Closing:
        calls = 0

        def is_running(self) -> bool:
            return True

        def call_soon_threadsafe(self, *_: object, **__: object) -> None:
            self.calls += 1
            msg = "Event loop is closed"
            raise RuntimeError(msg)

    loop, item = Closing(), Item(clock, 0)
    item.loop = lambda: loop
    aio_scheduler.arm(item, refresh)  # type: ignore[arg-type]
    assert (loop.calls, item.entry) == (1, 0)


def test_a_closed_loop_is_collected_with_its_scheduler(clock: Clock) -> None:
    """Items that are still armed keep neither alive."""
    item = counting(clock, 10, Tally())

    async def main() -> None:
        timers = timers_on(asyncio.get_running_loop())
        add(timers, item)
        await asyncio.sleep(20)
        add(timers, item)
        await asyncio.sleep(20)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())
    gone: list[weakref.ref[Any]] = [
        weakref.ref(loop),
        weakref.ref(aio_scheduler.schedulers[loop]),
    ]
    del loop
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_refresh_does_not_run_in_the_context_of_whoever_armed_first(clock: Clock) -> None:
    """What belongs to one request, its trace for example, does not show in the refreshes of all."""
    request = contextvars.ContextVar("request", default="none")
    seen = []

    def work() -> Any:
        seen.append(request.get())
        return asyncio.sleep(0)

    async def main() -> None:
        request.set("the first")
        timers = timers_on(asyncio.get_running_loop())
        items = [add(timers, start(clock, after, work)) for after in (10, 100)]
        await asyncio.sleep(200)
        assert seen == ["none"] * len(items)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_no_thread_is_left_a_minute_after_the_last_credential_is_closed() -> None:
    """The longest sleep, and then the linger of the thread or of a worker that ran meanwhile."""
    assert schedule_module.LONGEST_SLEEP_SECONDS + 2 * sync_scheduler.IDLE_SECONDS <= 60
