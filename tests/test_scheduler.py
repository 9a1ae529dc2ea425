"""The heap of due times, the thread and the workers on it, and the timers of event loops."""

import asyncio
import contextvars
import gc
import logging
import os
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.communication.common import _schedule
from azure.communication.common._schedule import Schedule
from azure.communication.common._sync import _scheduler
from azure.communication.common._sync._scheduler import Scheduler, Workers, scheduler
from azure.communication.common.aio import _scheduler as _aio_scheduler
from azure.communication.common.aio._scheduler import LoopScheduler

from scaffolding import (
    DEADLINE,
    Clock,
    ClockLoop,
    InlineWorkers,
    Tally,
    ThreadWatch,
    clock_loop,
    threadless,
)

HOUR = 3600


class Item:
    """What a scheduler needs of a credential; calls a function when it is to refresh."""

    def __init__(self, refresh: Callable[[], Any] = lambda: None) -> None:
        self._entry = 0
        self._refresh_ahead = refresh
        self.visits = 0

    def _visit_after_fork(self) -> None:
        self.visits += 1


@pytest.fixture
def clock() -> Clock:
    return Clock(wall=1_700_000_000.0, mono=1_000.0)


@pytest.fixture
def schedule(clock: Clock) -> Schedule:
    return Schedule(clock.wall, clock.mono, random.Random(1).random)


def add(schedule: Schedule | Scheduler | LoopScheduler, item: Item, due: float) -> Item:
    """Arm an item at a fixed time."""
    schedule.add(item, due, due)
    return item


def popped(schedule: Schedule, **limit: int) -> list[Any]:
    """Return the items that are due, and take them out."""
    return [reference() for reference in schedule.pop_due(**limit)]


# The heap


def test_items_come_up_when_they_are_due_and_in_that_order(
    clock: Clock, schedule: Schedule
) -> None:
    """What is due comes out once, the earliest first; the rest stays."""
    now = clock.wall()
    last, first, later = (add(schedule, Item(), now + after) for after in (20, 10, 20.5))
    assert popped(schedule) == []
    clock.advance(20)
    assert popped(schedule) == [first, last]
    assert popped(schedule) == []
    clock.advance(0.5)
    assert popped(schedule) == [later]


def test_add_tells_whether_the_item_is_the_next_one(clock: Clock, schedule: Schedule) -> None:
    """Only then has whoever sleeps until the next one to be woken."""
    now = clock.wall()
    items = [Item() for _ in range(3)]
    dues = [now + 20, now + 30, now + 10]
    assert [schedule.add(item, due, due) for item, due in zip(items, dues, strict=True)] == [
        True,
        False,
        True,
    ]


def test_the_next_look_is_within_thirty_seconds(clock: Clock, schedule: Schedule) -> None:
    """However far the next item is, a clock that was set is noticed within 30 seconds."""
    assert schedule.delay() == 30
    item = add(schedule, Item(), clock.wall() + HOUR)
    assert schedule.delay() == 30
    clock.advance(HOUR - 12.5)
    assert schedule.delay() == 12.5
    clock.advance(13)
    assert schedule.delay() == 0
    assert popped(schedule) == [item]
    assert schedule.delay() == 30


def test_a_removed_item_does_not_come_up(clock: Clock, schedule: Schedule) -> None:
    """Removing one, twice or before it was ever added, leaves the others."""
    gone, never, stays = (Item() for _ in range(3))
    add(schedule, gone, clock.wall())
    add(schedule, stays, clock.wall())
    for item in (gone, gone, never):
        schedule.remove(item)
    assert popped(schedule) == [stays]


def test_an_item_armed_anew_comes_up_at_its_new_time_alone(
    clock: Clock, schedule: Schedule
) -> None:
    """The older entry is void, whether the new time is earlier or later."""
    earlier, later = Item(), Item()
    add(schedule, earlier, clock.wall() + 50)
    add(schedule, later, clock.wall() + 10)
    add(schedule, earlier, clock.wall() + 10)
    add(schedule, later, clock.wall() + 50)
    clock.advance(10)
    assert popped(schedule) == [earlier]
    clock.advance(40)
    assert popped(schedule) == [later]


def test_a_dropped_item_is_collected_and_does_not_come_up(clock: Clock, schedule: Schedule) -> None:
    """The heap holds no item alive."""
    stays = add(schedule, Item(), clock.wall())
    dropped = weakref.ref(add(schedule, Item(), clock.wall()))
    assert dropped() is None
    assert popped(schedule) == [stays]


@pytest.mark.parametrize("how", ["dropped", "removed"])
def test_void_entries_are_swept_out_when_they_are_more_than_half(
    clock: Clock, schedule: Schedule, how: str
) -> None:
    """Items that go away long before they are due leave the heap at the next look."""
    items = [add(schedule, Item(), clock.wall() + HOUR) for _ in range(1000)]
    for item in items[500:]:
        schedule.remove(item)
    assert popped(schedule) == []
    assert len(schedule) == 1000
    if how == "dropped":
        del items[499:], item
    else:
        schedule.remove(items[499])
    assert popped(schedule) == []
    assert schedule.items() == items[:499]
    assert len(schedule) == 499


def test_the_heap_stays_within_twice_its_live_entries(clock: Clock, schedule: Schedule) -> None:
    """Items that are armed anew all the time, as their callers refresh them, do not fill it."""
    items = [Item() for _ in range(100)]
    for turn in range(5_000):
        add(schedule, items[turn % 100], clock.wall() + HOUR)
        assert len(schedule) <= 202
    assert schedule.items() != []


def test_items_due_together_are_spread_over_earlier_times(clock: Clock, schedule: Schedule) -> None:
    """About a hundred are due in ten seconds as long as there is room; the first are on time."""
    start = clock.wall()
    items = [Item() for _ in range(3_000)]
    for item in items:
        schedule.add(item, start + 1_000, start + 2_000)
    due: Counter[float] = Counter()
    while len(schedule):
        due += Counter({clock.wall() - start: len(popped(schedule))})
        clock.advance(schedule.delay())
    assert due.total() == 3_000
    assert min(due) >= 1_000
    assert max(due) == 2_000
    in_ten_seconds: Counter[float] = Counter()
    for when, count in due.items():
        in_ten_seconds[(start + when) // 10] += count
    assert max(in_ten_seconds.values()) <= 110


def test_the_first_hundred_are_on_time(clock: Clock, schedule: Schedule) -> None:
    """Nothing is refreshed earlier than it need be before there are many."""
    items = [Item() for _ in range(100)]
    for item in items:
        schedule.add(item, clock.wall(), clock.wall() + HOUR)
    clock.advance(HOUR - 0.001)
    assert popped(schedule) == []
    clock.advance(0.001)
    assert popped(schedule) == items


def test_a_due_time_that_cannot_move_is_kept(clock: Clock, schedule: Schedule) -> None:
    """Where the earliest time is the latest, all come up at it, however many there are."""
    items = [add(schedule, Item(), clock.wall()) for _ in range(500)]
    assert popped(schedule) == items


@pytest.mark.parametrize("how", ["come up", "are dropped"])
def test_items_that_are_gone_make_room_for_others(
    clock: Clock, schedule: Schedule, how: str
) -> None:
    """A newcomer is on time once those that filled its ten seconds have come up or been swept."""
    start = clock.wall() // 10 * 10
    items = [add(schedule, Item(), start + 15) for _ in range(200)]
    if how == "come up":
        clock.set_wall(start + 15)
        assert popped(schedule) == items
    items.clear()
    newcomer = Item()
    schedule.add(newcomer, start, start + 19)
    clock.set_wall(start + 18.9)
    assert popped(schedule) == []
    clock.set_wall(start + 19)
    assert popped(schedule) == [newcomer]
    assert not schedule._buckets


def test_a_clock_that_is_set_back_delays_nothing(clock: Clock, schedule: Schedule) -> None:
    """What is due in an hour is due in an hour, by the clock that nobody sets, and still spread."""
    first = add(schedule, Item(), clock.wall() + HOUR)
    second = add(schedule, Item(), clock.wall() + HOUR + 1)
    clock.set_wall(clock.wall() - 5 * HOUR)
    assert popped(schedule) == []
    newcomer = add(schedule, Item(), clock.wall() + HOUR + 2)
    clock.advance(HOUR)
    assert popped(schedule) == [first]
    clock.advance(1)
    assert popped(schedule) == [second]
    assert popped(schedule) == []
    clock.advance(1)
    assert popped(schedule) == [newcomer]


def test_a_newcomer_after_the_clock_was_set_back_is_not_early(
    clock: Clock, schedule: Schedule
) -> None:
    """Its due time was computed with the new clock, so the correction is not for it."""
    add(schedule, Item(), clock.wall())
    clock.set_wall(clock.wall() - 5 * HOUR)
    newcomer = add(schedule, Item(), clock.wall() + HOUR)
    clock.advance(HOUR - 1)
    assert newcomer not in popped(schedule)
    clock.advance(1)
    assert popped(schedule) == [newcomer]


def test_a_suspended_machine_makes_everything_due(clock: Clock, schedule: Schedule) -> None:
    """Time that only the wall clock saw counts."""
    item = add(schedule, Item(), clock.wall() + HOUR)
    clock.suspend(HOUR)
    assert popped(schedule) == [item]


def test_small_corrections_of_the_clock_add_up(clock: Clock, schedule: Schedule) -> None:
    """A clock that is slewed back by half a second at a time is followed all the same."""
    item = add(schedule, Item(), clock.wall() + HOUR)
    for _ in range(100):
        clock.set_wall(clock.wall() - 0.5)
        assert popped(schedule) == []
    clock.advance(HOUR - 2)
    assert popped(schedule) == []
    clock.advance(3)
    assert popped(schedule) == [item]


def test_one_look_is_limited(clock: Clock, schedule: Schedule) -> None:
    """Void entries count too, so the lock is held for a constant time."""
    items = [add(schedule, Item(), clock.wall() + turn) for turn in range(10)]
    clock.advance(10)
    for item in items[:4]:
        schedule.remove(item)
    assert popped(schedule, limit=5) == items[4:5]
    assert schedule.delay() == 0
    assert popped(schedule, limit=3) == items[5:8]
    assert popped(schedule, limit=0) == []
    assert popped(schedule) == items[8:]


# The thread


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadWatch]:
    """Watch the threads that the test starts; they end soon, for they are idle for a moment."""
    monkeypatch.setattr(_scheduler, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(_schedule, "CLOCK_CHECK_SECONDS", 0.01)
    watch = ThreadWatch()
    yield watch
    watch.wait_for_end()


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Have the system refuse every thread."""

    def refuse(thread: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(_scheduler, "_warned", False)
    with pytest.MonkeyPatch.context() as refusal:
        refusal.setattr(threading.Thread, "start", refuse)
        yield refusal


def test_the_thread_begins_with_the_first_item_and_ends_after_the_last(
    clock: Clock, threads: ThreadWatch
) -> None:
    """There is one daemon thread while anything is armed, and it can begin again."""
    scheduler = Scheduler(clock.wall, clock.mono)
    assert threads.alive() == []
    for _ in range(2):
        items = [add(scheduler, Item(), clock.wall() + HOUR) for _ in range(10)]
        assert [thread.daemon for thread in threads.alive()] == [True]
        for item in items[:5]:
            scheduler.remove(item)
        del items, item
        threads.wait_for_end()


def test_the_thread_looks_again_though_nothing_told_it_to(
    clock: Clock, threads: ThreadWatch
) -> None:
    """It sleeps in slices, so it notices the end of a suspension, which wakes no sleeper."""
    called = threading.Event()
    scheduler = Scheduler(clock.wall, clock.mono)
    item = add(scheduler, Item(called.set), clock.wall() + HOUR)
    clock.suspend(HOUR)
    assert called.wait(DEADLINE)
    assert item._entry == 0


def test_an_item_that_is_due_earlier_wakes_the_thread(
    clock: Clock, threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread does not sleep on until what was the next one."""
    monkeypatch.setattr(_schedule, "CLOCK_CHECK_SECONDS", HOUR)
    called = threading.Event()
    scheduler = Scheduler(clock.wall, clock.mono)
    first = add(scheduler, Item(), clock.wall() + HOUR)
    second = add(scheduler, Item(called.set), clock.wall())
    assert called.wait(DEADLINE)
    assert (first._entry != 0, second._entry) == (True, 0)
    scheduler.remove(first)
    monkeypatch.setattr(_schedule, "CLOCK_CHECK_SECONDS", 0.01)
    add(scheduler, Item(), clock.wall())  # has the thread look


def test_everything_due_at_once_is_handed_over_in_batches(clock: Clock) -> None:
    """The lock is free between two batches, and the thread does not sleep before the last."""
    calls = Tally()
    scheduler = threadless(clock, InlineWorkers())
    items = [add(scheduler, Item(calls.count), clock.wall()) for _ in range(2_500)]
    handed_over = []
    while scheduler.run_due() == 0:
        handed_over.append(calls.value)
    assert (handed_over, calls.value) == ([1_000, 2_000], 2_500)
    assert len(items) == 2_500


def test_without_threads_one_warning_is_enough(
    clock: Clock,
    threads: ThreadWatch,
    no_more_threads: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody is told twice, nothing is raised, and what was armed is served once there is one."""
    calls = Tally()
    scheduler = Scheduler(clock.wall, clock.mono)
    items = [add(scheduler, Item(calls.count), clock.wall()) for _ in range(10)]
    assert scheduler.run_due() > 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "can't start new thread" in caplog.text
    assert calls.value == 0
    no_more_threads.undo()
    items.append(add(scheduler, Item(calls.count), clock.wall()))
    calls.wait_for(11)


# The workers


def hand_over(workers: Workers, *items: Item) -> None:
    for item in items:
        workers.run(weakref.ref(item))


def test_there_are_eight_workers_at_most(threads: ThreadWatch) -> None:
    """The ninth item waits for one of them; when all is done they end, and others can begin."""
    calls, gate = Tally(), threading.Event()

    def refresh() -> None:
        calls.count()
        assert gate.wait(DEADLINE)

    workers = Workers()
    items = [Item(refresh) for _ in range(100)]
    hand_over(workers, *items)
    calls.wait_for(8)
    assert len(threads.alive()) == 8
    assert calls.value == 8
    gate.set()
    calls.wait_for(100)
    threads.wait_for_end()
    hand_over(workers, items[0])
    calls.wait_for(101)


class Announcing(threading.Condition):
    """A condition that counts those who begin to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.release()
        return super().wait(timeout)


def test_one_item_at_a_time_needs_one_worker(
    threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is idle is given the next item, and no other is started."""
    monkeypatch.setattr(_scheduler, "IDLE_SECONDS", DEADLINE)
    workers, calls = Workers(), Tally()
    workers._changed = condition = Announcing()
    item = Item(calls.count)
    for turn in range(20):
        hand_over(workers, item)
        calls.wait_for(turn + 1)
        assert condition.waits.acquire(timeout=DEADLINE)
    assert len(threads.alive()) == 1
    monkeypatch.setattr(_scheduler, "IDLE_SECONDS", 0.01)
    hand_over(workers, item)
    calls.wait_for(21)


def test_an_idle_worker_holds_no_item_alive(
    threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item it refreshed last can be collected."""
    monkeypatch.setattr(_scheduler, "IDLE_SECONDS", DEADLINE)
    workers = Workers()
    workers._changed = condition = Announcing()
    item = Item()
    hand_over(workers, item)
    assert condition.waits.acquire(timeout=DEADLINE)
    dropped = weakref.ref(item)
    del item
    assert dropped() is None
    monkeypatch.setattr(_scheduler, "IDLE_SECONDS", 0.01)
    hand_over(workers, Item())


def test_an_item_dropped_while_it_waits_for_a_worker_is_skipped(threads: ThreadWatch) -> None:
    """The queue holds no item alive either."""
    gate, calls = threading.Event(), Tally()
    workers = Workers()
    busy = [Item(lambda: gate.wait(DEADLINE)) for _ in range(8)]
    hand_over(workers, *busy)
    dropped, last = Item(calls.count), Item(calls.count)
    hand_over(workers, dropped, last)
    del dropped
    gate.set()
    threads.wait_for_end()
    assert calls.value == 1


def test_an_item_that_hangs_costs_one_worker(threads: ThreadWatch) -> None:
    """The others go on."""
    calls, gate = Tally(), threading.Event()
    workers = Workers()
    stuck = Item(lambda: gate.wait(DEADLINE))
    items = [Item(calls.count) for _ in range(1_000)]
    hand_over(workers, stuck, *items)
    calls.wait_for(1_000)
    gate.set()


def test_an_item_that_raises_costs_no_worker(
    threads: ThreadWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log handler of the user's that fails in a refresh is reported, and the worker goes on."""
    reports: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    called = threading.Event()
    workers = Workers()
    items = [Item(lambda: 1 // 0) for _ in range(100)]
    last = Item(called.set)
    hand_over(workers, *items, last)
    assert called.wait(DEADLINE)
    threads.wait_for_end()
    assert [report.exc_type for report in reports] == [ZeroDivisionError] * 100


# One scheduler for each process


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have ``os.getpid`` return the last of these, in a world without schedulers."""
    ids = [1001]
    monkeypatch.setattr(_scheduler, "_schedulers", {})
    monkeypatch.setattr(os, "getpid", lambda: ids[-1])
    return ids


def test_a_process_has_one_scheduler_and_a_child_its_own(
    processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child finds its own by its process id, drops its parent's, and inherits the hook."""
    hooks: list[Any] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **kwargs: hooks.append(kwargs))
    first = scheduler()
    assert scheduler() is first
    item = add(first._schedule, Item(), HOUR)
    assert [list(hook) for hook in hooks] == [["after_in_child"]]
    processes.append(1002)
    hooks[0]["after_in_child"]()
    assert item.visits == 1
    second = scheduler()
    assert second is not first
    assert scheduler() is second
    assert list(_scheduler._schedulers) == [1002]
    assert len(hooks) == 1


def test_a_system_that_does_not_fork_has_no_hook(
    processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has no ``os.register_at_fork``."""
    monkeypatch.delattr(os, "register_at_fork")
    assert scheduler() is scheduler()


# The timers of event loops


def start(work: Callable[[], Any]) -> Callable[[], "asyncio.Task[None]"]:
    """Return a refresh that awaits what ``work`` returns, in a task of its own."""

    async def refresh() -> None:
        await work()

    return lambda: asyncio.get_running_loop().create_task(refresh())


def counting(calls: Tally) -> Item:
    """Return an item whose refreshes are counted, and end at once."""

    def work() -> Any:
        calls.count()
        return asyncio.sleep(0)

    return Item(start(work))


def test_a_timer_refreshes_what_is_due(clock: Clock) -> None:
    """Each item is refreshed on its loop at its due time, once."""
    calls = Tally()

    async def main() -> None:
        now = clock.wall()
        timers = _aio_scheduler.scheduler(asyncio.get_running_loop())
        items = [add(timers, counting(calls), now + after) for after in (1_000, 10, 2_000)]
        for until, expected in [(9.9, 0), (10.1, 1), (999.9, 1), (1000.1, 2), (2000.1, 3)]:
            await asyncio.sleep(now + until - clock.wall())
            assert calls.value == expected
        await asyncio.sleep(HOUR)
        assert calls.value == len(items)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_a_loop_looks_again_within_thirty_seconds_of_its_own_time(clock: Clock) -> None:
    """A suspended machine stops the loop's clock, which tells nobody that it goes on."""
    calls = Tally()

    async def main() -> None:
        timers = _aio_scheduler.scheduler(asyncio.get_running_loop())
        item = add(timers, counting(calls), clock.wall() + 3 * HOUR)
        await asyncio.sleep(1)
        clock.suspend(3 * HOUR)
        await asyncio.sleep(30)
        assert (calls.value, item._entry) == (1, 0)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_timers_never_pile_up(clock: Clock) -> None:
    """A thousand items, each due before the one that the timer was set for, leave one timer."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        timers = _aio_scheduler.scheduler(loop)
        items = [add(timers, counting(calls), clock.wall() + 29 - i / 100) for i in range(1_000)]
        items.append(add(timers, counting(calls), clock.wall() + 9 * HOUR))
        await asyncio.sleep(60)
        assert calls.value == 1_000
        before = loop.timers
        items += [add(timers, counting(calls), clock.wall() + 9 * HOUR) for _ in range(1_000)]
        await asyncio.sleep(HOUR)
        assert loop.timers - before <= 122  # one each 30 seconds, and that of this sleep
        assert calls.value == 1_000

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_no_timer_is_set_for_nothing(clock: Clock) -> None:
    """When the last item was dropped or closed, the loop's timers end."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        timers = _aio_scheduler.scheduler(loop)
        items = [add(timers, counting(calls), clock.wall() + HOUR) for _ in range(10)]
        for item in items[:5]:
            timers.remove(item)
        del items, item
        await asyncio.sleep(31)
        before = loop.timers
        await asyncio.sleep(2 * HOUR)
        assert (loop.timers - before, calls.value) == (1, 0)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_at_most_sixty_four_refreshes_are_under_way_on_one_loop(clock: Clock) -> None:
    """The next ones begin as others end; meanwhile no timer ticks in vain."""
    calls = Tally()

    async def main(loop: ClockLoop) -> None:
        gate = asyncio.Event()

        def work() -> Any:
            calls.count()
            return gate.wait()

        timers = _aio_scheduler.scheduler(loop)
        items = [add(timers, Item(start(work)), clock.wall()) for _ in range(100)]
        await asyncio.sleep(1)
        assert calls.value == 64
        before = loop.timers
        await asyncio.sleep(HOUR)
        assert (loop.timers - before, calls.value) == (1, 64)
        gate.set()
        await asyncio.sleep(1)
        assert calls.value == len(items)
        assert not timers._under_way

    with clock_loop(clock) as loop:
        loop.run_until_complete(main(loop))


def test_an_item_that_needs_no_refresh_holds_no_place(clock: Clock) -> None:
    """A credential that somebody else has refreshed meanwhile starts no task."""
    calls = Tally()

    async def main() -> None:
        timers = _aio_scheduler.scheduler(asyncio.get_running_loop())
        idle = [add(timers, Item(), clock.wall()) for _ in range(200)]
        busy = add(timers, counting(calls), clock.wall())
        await asyncio.sleep(1)
        assert (calls.value, busy._entry, len(idle)) == (1, 0, 200)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_an_item_armed_on_another_loop_is_refreshed_there(clock: Clock) -> None:
    """Its entry on the first loop is void."""
    calls: list[asyncio.AbstractEventLoop] = []

    def work() -> Any:
        calls.append(asyncio.get_running_loop())
        return asyncio.sleep(0)

    item = Item(start(work))
    due = clock.wall() + 10

    async def arm() -> None:
        add(_aio_scheduler.scheduler(asyncio.get_running_loop()), item, due)

    with clock_loop(clock) as first, clock_loop(clock) as second:
        first.run_until_complete(arm())
        second.run_until_complete(arm())
        first.run_until_complete(asyncio.sleep(20))
        assert calls == []
        second.run_until_complete(asyncio.sleep(20))
        assert calls == [second]


def test_an_item_may_be_disarmed_from_another_thread(clock: Clock) -> None:
    """Closing a credential takes no lock and needs no loop."""
    calls = Tally()

    async def main() -> None:
        timers = _aio_scheduler.scheduler(asyncio.get_running_loop())
        item = add(timers, counting(calls), clock.wall() + 10)
        thread = threading.Thread(target=timers.remove, args=(item,))
        thread.start()
        thread.join(DEADLINE)
        await asyncio.sleep(20)
        assert calls.value == 0

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_a_closed_loop_is_collected_with_its_scheduler(clock: Clock) -> None:
    """Items that are still armed keep neither alive."""
    item = counting(Tally())

    async def main() -> None:
        timers = _aio_scheduler.scheduler(asyncio.get_running_loop())
        add(timers, item, clock.wall() + 10)
        await asyncio.sleep(20)
        add(timers, item, clock.wall() + HOUR)
        await asyncio.sleep(20)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())
    gone: list[weakref.ref[Any]] = [
        weakref.ref(loop),
        weakref.ref(_aio_scheduler._schedulers[loop]),
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
        timers = _aio_scheduler.scheduler(asyncio.get_running_loop())
        items = [add(timers, Item(start(work)), clock.wall() + after) for after in (10, 100)]
        await asyncio.sleep(200)
        assert seen == ["none"] * len(items)

    with clock_loop(clock) as loop:
        loop.run_until_complete(main())


def test_no_thread_is_left_a_minute_after_the_last_credential_is_closed() -> None:
    """The longest sleep, and then the linger of the thread or of a worker that ran meanwhile."""
    assert _scheduler.CLOCK_CHECK_SECONDS + 2 * _scheduler.IDLE_SECONDS <= 60
