"""Proactive refresh for any number of credentials: one heap, one thread, at most eight workers.

Theory of operation
-------------------
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

import logging
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from .._schedule import Reference, Refreshable, Schedule

_LOGGER = logging.getLogger(__name__)

IDLE_SECONDS = 10
MAX_WORKERS = 8


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
