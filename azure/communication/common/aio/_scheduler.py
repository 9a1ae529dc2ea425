"""Proactive refresh on event loops: one heap and one timer for each loop, no thread.

An entry belongs to the loop on which its credential was armed, and all methods run on that loop. No
timer is kept to be cancelled, for it would keep its loop alive: one that has been overtaken by an
earlier one does nothing, so that one chain of timers goes on. They run in an empty context, since
that of whoever armed the first credential (its request, its trace) has nothing to do with the
others.
"""

import asyncio
import contextvars
import random
import time
import weakref
from collections.abc import Callable

from .._schedule import Refreshable, Schedule

MAX_REFRESHES = 64


class LoopScheduler:
    """The timer that refreshes the credentials of one loop ahead of need."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._schedule = Schedule(wall, mono, rand)
        self._next_look = float("inf")  # in the loop's time
        # Weak, since a reference to a task would keep its closed loop alive.
        self._under_way: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()

    def add(self, item: Refreshable, earliest: float, latest: float) -> None:
        """Arm a credential, or arm it anew."""
        self._schedule.add(item, earliest, latest)
        self._set_timer()

    def remove(self, item: Refreshable) -> None:
        """Disarm a credential. May be called from any thread."""
        self._schedule.remove(item)

    def _look(self) -> None:
        for reference in self._schedule.pop_due(MAX_REFRESHES - len(self._under_way)):
            item = reference()
            task = item._refresh_ahead() if item is not None else None
            if task is not None:
                self._under_way.add(task)
                task.add_done_callback(self._land)
        self._set_timer()

    def _land(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        self._set_timer()

    def _set_timer(self) -> None:
        if not len(self._schedule) or len(self._under_way) >= MAX_REFRESHES:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + self._schedule.delay()
        if when < self._next_look:
            self._next_look = when
            loop.call_at(when, self._on_time, when, context=contextvars.Context())

    def _on_time(self, when: float) -> None:
        if when == self._next_look:
            self._next_look = float("inf")
            self._look()


_schedulers: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopScheduler]"
_schedulers = weakref.WeakKeyDictionary()


def scheduler(loop: asyncio.AbstractEventLoop) -> LoopScheduler:
    """Return the scheduler of the running loop, made at its first use."""
    found = _schedulers.get(loop)
    if found is None:
        found = _schedulers[loop] = LoopScheduler()
    return found
