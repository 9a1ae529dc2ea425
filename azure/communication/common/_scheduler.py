"""Proactive refresh for any number of credentials: one heap, one thread, at most eight workers.

Theory of operation
-------------------
:class:`Schedule` is the heap, used by the thread here and by the event loops' timers in ``aio``. It
holds weak references only, so a dropped credential is collected without ``close()``; its entry,
like that of a closed or re-armed one, is skipped when it comes up, or swept out when such entries
are more than half; so locks are held for a constant time on average, and no dispatch looks at more
than a batch. A weak reference's callback may run at any time, even while this very thread holds a
lock, so it takes none: it counts.

:class:`Scheduler` is one per process. Its thread starts with the first armed credential and ends
when the heap has been empty for a while. It sleeps in slices of at most 30 seconds and reads the
wall clock after each, since a suspended machine's time does not count as slept. User code runs on
the workers, which end when idle, so that a refresher that hangs delays nobody else. All of them are
daemon threads: none delays the interpreter's exit.

A forked child has none of the threads, and locks in an unknown state. It gets a scheduler of its
own at its first use: the dictionary of schedulers is keyed by process id, and ``setdefault`` is
atomic. The at-fork hook makes that first use visit the credential's slow path; without the hook
(uWSGI forks in C) the credential arms itself when its token comes due.
"""

import heapq
import itertools
import logging
import os
import random
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ._refresh import CLOCK_CHECK_SECONDS

_LOGGER = logging.getLogger(__name__)

IDLE_SECONDS = 10
MAX_WORKERS = 8
# 100 refreshes in 10 seconds are a third of what the identity service allows one resource.
BUCKET_SECONDS, BUCKET_SIZE = 10, 100
BATCH = 1_000  # entries looked at under one hold of the lock

_numbers = itertools.count(1)  # for all heaps: a credential may move to another loop's


class Refreshable(Protocol):
    """What the scheduler needs of a credential."""

    _entry: int
    """The number of its live entry in the heap, 0 if it has none."""

    def _refresh_ahead(self) -> Any: ...

    def _visit_after_fork(self) -> None: ...


Reference = weakref.ref[Refreshable]
Entry = tuple[float, int, Reference]


class Schedule:
    """A heap of credentials by due time. Not thread-safe, except for :meth:`remove`.

    :param wall: Returns the Unix time in seconds.
    :type wall: ~collections.abc.Callable[[], float]
    :param mono: Returns the time since some moment in seconds; nobody sets this clock.
    :type mono: ~collections.abc.Callable[[], float]
    :param rand: Returns a random number from 0 to 1.
    :type rand: ~collections.abc.Callable[[], float]
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._wall = wall
        self._mono = mono
        self._rand = rand
        self._heap: list[Entry] = []
        self._void = 0  # entries whose credential was dropped, closed or armed anew; about right
        self._buckets: Counter[int] = Counter()
        self._offset = wall() - mono()
        self._on_drop = self._count_void

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, item: Refreshable, earliest: float, latest: float) -> bool:
        """Arm a credential and tell whether it is the next one due; an older entry becomes void.

        A single credential is due at ``latest``. Once as many are due in the same ten seconds as
        the service should see, a random earlier time is tried, from a range that doubles.
        """
        self.remove(item)
        self._tidy_up()
        due, width = latest, 0.0
        while self._buckets[_bucket(due)] >= BUCKET_SIZE and width < latest - earliest:
            width = min(2 * width + BUCKET_SECONDS, latest - earliest)
            due = latest - self._rand() * width
        self._buckets[_bucket(due)] += 1
        item._entry = next(_numbers)
        entry = (due, item._entry, weakref.ref(item, self._on_drop))
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def remove(self, item: Refreshable) -> None:
        """Disarm a credential. Takes no lock and may be called from any thread."""
        if item._entry:
            item._entry = 0
            self._void += 1

    def pop_due(self, limit: int = BATCH) -> list[Reference]:
        """Take out what is due, looking at so many entries at most."""
        self._tidy_up()
        now = self._wall()
        due: list[Reference] = []
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                break
            entry = heapq.heappop(self._heap)
            self._leave_bucket(entry)
            item = _live(entry)
            if item is not None:
                item._entry = 0
                due.append(entry[2])
        return due

    def delay(self) -> float:
        """Return how many seconds to sleep before the next look, 0 if something is due."""
        if not self._heap:
            return CLOCK_CHECK_SECONDS
        return min(max(self._heap[0][0] - self._wall(), 0.0), CLOCK_CHECK_SECONDS)

    def items(self) -> list[Refreshable]:
        """Return the credentials that are armed."""
        return [item for item in map(_live, self._heap) if item is not None]

    def _count_void(self, _: Reference) -> None:
        self._void += 1

    def _leave_bucket(self, entry: Entry) -> None:
        bucket = _bucket(entry[0])
        self._buckets[bucket] -= 1
        if not self._buckets[bucket]:
            del self._buckets[bucket]

    def _tidy_up(self) -> None:
        """Follow the clock, and sweep where it is worth it."""
        offset = self._wall() - self._mono()
        step = offset - self._offset
        if abs(step) >= 1:
            self._offset = offset
        if step <= -1:  # set back: what is due stays where the monotonic clock saw it
            self._rebuild((due + step, number, item) for due, number, item in self._heap)
        if self._void > len(self._heap) // 2:
            self._void = 0
            self._rebuild(entry for entry in self._heap if _live(entry) is not None)

    def _rebuild(self, entries: Iterable[Entry]) -> None:
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._buckets = Counter(_bucket(due) for due, _, _ in self._heap)


def _bucket(due: float) -> int:
    return int(due // BUCKET_SECONDS)


def _live(entry: Entry) -> Refreshable | None:
    """Return the credential of an entry; None if it is void."""
    _, number, reference = entry
    item = reference()
    return item if item is not None and item._entry == number else None


class Scheduler:
    """The thread that refreshes synchronous credentials ahead of need, and its workers."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._schedule = Schedule(wall, mono, rand)
        # Guards the schedule and _running. Always taken itself and not through the condition, whose
        # __enter__ is Python code that an interrupt may end with the lock held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._running = False
        self._workers = Workers()

    def add(self, item: Refreshable, earliest: float, latest: float) -> None:
        """Arm a credential, or arm it anew. Does not block; starts the thread where needed."""
        if sys.is_finalizing():  # the thread is gone, and the lock may have gone with it
            return
        with self._lock:
            is_next = self._schedule.add(item, earliest, latest)
            if not self._running:
                self._running = start_thread(self._run)
            elif is_next:
                self._changed.notify()

    def remove(self, item: Refreshable) -> None:
        """Disarm a credential."""
        self._schedule.remove(item)

    def visit_all_after_fork(self) -> None:
        """Have each armed credential notice at its next use that its process is a new one."""
        for item in self._schedule.items():
            item._visit_after_fork()

    def run_due(self) -> float:
        """Hand what is due to the workers; return how many seconds to sleep, 0 if there is more."""
        with self._lock:
            due = self._schedule.pop_due()
            delay = self._schedule.delay()
        for reference in due:
            self._workers.run(reference)
        return delay

    def _run(self) -> None:
        idle = False
        while True:
            delay = self.run_due()
            with self._lock:
                if not len(self._schedule):
                    if idle:
                        self._running = False
                        return
                    delay = IDLE_SECONDS
                idle = not len(self._schedule)
                # An entry added since run_due() may be due sooner; only then is delay out of date.
                self._changed.wait(min(delay, self._schedule.delay()))


class Workers:
    """At most eight daemon threads that refresh the credentials handed to them, in order."""

    def __init__(self) -> None:
        self._queue: deque[Reference] = deque()
        self._changed = threading.Condition()  # guards all attributes
        self._threads = 0
        self._idle = 0

    def run(self, reference: Reference) -> None:
        """Have a credential refreshed as soon as a worker is free."""
        with self._changed:
            self._queue.append(reference)
            if self._idle >= len(self._queue):
                self._changed.notify()
            elif self._threads < MAX_WORKERS and start_thread(self._work):
                self._threads += 1

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._idle += 1
                    notified = self._changed.wait(IDLE_SECONDS)
                    self._idle -= 1
                    if not notified and not self._queue:
                        self._threads -= 1
                        return
                reference = self._queue.popleft()
            try:
                _refresh(reference)
            except BaseException:  # noqa: BLE001 - not the refresher's: a log handler's, say
                args = (*sys.exc_info(), threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(args))


def _refresh(reference: Reference) -> None:
    item = reference()
    if item is not None:
        item._refresh_ahead()


_warned = False


def start_thread(target: Callable[[], None]) -> bool:
    """Start a daemon thread; where none can be had, say so once and leave it to the callers."""
    global _warned
    try:
        threading.Thread(target=target, name="azure-communication-refresh", daemon=True).start()
    except RuntimeError as error:  # the limit of threads, or the interpreter is about to exit
        if not _warned:
            _warned = True
            _LOGGER.warning(
                "Tokens are not refreshed proactively, for no thread could be started (%s). "
                "They are refreshed when they are asked for.",
                error,
            )
        return False
    return True


_schedulers: dict[int, Scheduler] = {}


def scheduler() -> Scheduler:
    """Return this process's scheduler, made at its first use."""
    process = os.getpid()
    if process not in _schedulers:
        # A child inherits the registration; Windows has neither.
        if not _schedulers and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_visit_after_fork)
        _schedulers.setdefault(process, Scheduler())
        for other in list(_schedulers):
            if other != process:
                _schedulers.pop(other, None)
    return _schedulers[process]


def _visit_after_fork() -> None:
    for inherited in list(_schedulers.values()):
        inherited.visit_all_after_fork()
