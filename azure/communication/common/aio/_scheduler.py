"""Proactive refresh on event loops: one heap and one timer for each loop, no thread.

A cache belongs to the loop on which it was armed last, and all methods of a scheduler run on its
loop. Whoever changes a cache records that in the scheduler; only the timer touches the
:class:`Schedule`, so a finalizer that comes in between finds nothing half done.

No timer is kept in order to be cancelled, because it would keep its loop alive: one that an earlier
one has overtaken does nothing, so a single chain of timers goes on. They run in an empty context,
because the context of whoever armed the first credential (its request, its trace) has nothing to do
with the others.
"""

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from .._cache import SYSTEM_CLOCK, Clock, TokenCache, nowhere
from .._schedule import Reference, Schedule

MAX_REFRESHES = 64
LATE_SECONDS = 1
NEVER = float("inf")

Loop: TypeAlias = asyncio.AbstractEventLoop
RefreshAhead: TypeAlias = Callable[[TokenCache], "asyncio.Task[None] | None"]


class LoopScheduler:
    """The timer that refreshes the credentials of one loop ahead of need.

    :param refresh: Starts to refresh a cache if it should be; returns the task, if there is one.
    :type refresh: ~collections.abc.Callable[[TokenCache], asyncio.Task[None] or None]
    :param clock: The source of time and of random numbers.
    :type clock: ~azure.communication.common._cache.Clock
    """

    def __init__(self, refresh: RefreshAhead, clock: Clock = SYSTEM_CLOCK) -> None:
        self.schedule = Schedule(clock)
        self.changed: dict[Reference, None] = {}
        self.refresh = refresh
        self._next_look = NEVER  # in the loop's time
        # Weak, since a reference to a task would keep its closed loop alive.
        self.in_progress: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()

    def add(self, cache: TokenCache) -> None:
        """Record that a cache has changed; the next iteration of the loop checks it."""
        self.changed[weakref.ref(cache)] = None
        self._look_in(0)

    def run_due(self) -> None:
        """Set the timers of what has changed, and refresh what is due: at most 64 at once."""
        loop = asyncio.get_running_loop()
        # Not those that have moved to another loop, because this one stood still.
        self.schedule.take(self.changed, lambda cache: cache.loop is None or cache.loop() is loop)
        for reference in self.schedule.pop_due(MAX_REFRESHES - len(self.in_progress)):
            cache = reference()
            task = self.refresh(cache) if cache is not None else None
            if task is not None:
                self.in_progress.add(task)
                task.add_done_callback(self._discard)
        if len(self.schedule) and len(self.in_progress) < MAX_REFRESHES:
            self._look_in(self.schedule.delay())

    def _discard(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            # Its place stays taken for a moment: where everything is being cancelled, as at the end
            # of asyncio.run, nobody would cancel the next one.
            loop = asyncio.get_running_loop()
            loop.call_later(LATE_SECONDS, self._free, task, context=contextvars.Context())
        else:
            self._free(task)

    def _free(self, task: "asyncio.Task[None]") -> None:
        self.in_progress.discard(task)
        self._look_in(0)

    def _look_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        when = now + seconds
        if self._next_look < now - LATE_SECONDS:
            self._next_look = NEVER  # it may have been lost to an interrupt just as it started
        if when < self._next_look:
            if seconds > 0:  # asked for by an earlier look, so in its empty context
                loop.call_at(when, self._look, when)
            else:  # a finalizer may ask for this while a timer is being added to the loop's heap
                loop.call_soon(self._look, when, context=contextvars.Context())
            self._next_look = min(when, self._next_look)  # or for this, in between

    def _look(self, when: float) -> None:
        try:
            if when == self._next_look:
                self._next_look = NEVER
                self.run_due()
        except BaseException:
            self._next_look = NEVER
            self._look_in(LATE_SECONDS)
            raise


schedulers: "weakref.WeakKeyDictionary[Loop, LoopScheduler]" = weakref.WeakKeyDictionary()


def scheduler(loop: Loop, refresh: RefreshAhead) -> LoopScheduler:
    """Return the scheduler of a loop, which is created at its first use."""
    found = schedulers.get(loop)
    if found is None:
        found = schedulers.setdefault(loop, LoopScheduler(refresh))
    return found


def arm(cache: TokenCache, refresh: RefreshAhead) -> None:
    """Set the timer of a cache, or remove it if the cache has been closed.

    The cache stays with the loop on which it is armed as long as that runs, and otherwise moves to
    the running one. If there is none, its next use on a loop arms it. Does not block; may be called
    from any thread.

    :param TokenCache cache: The cache, which has changed.
    :param refresh: Starts to refresh a cache if it should be.
    :type refresh: ~collections.abc.Callable[[TokenCache], asyncio.Task[None] or None]
    """
    running, own = running_loop(), _own_loop(cache)
    if running is not None and own in (running, None):
        scheduler(running, refresh).add(cache)
        cache.loop = weakref.ref(running)  # last, so that after an interrupt the next use does it
    elif own is None:
        cache.loop = nowhere
    else:
        with suppress(RuntimeError):  # closed by now: the next use arms it
            own.call_soon_threadsafe(arm, cache, refresh, context=contextvars.Context())


def is_adrift(cache: TokenCache) -> bool:
    """Return whether a cache has to be armed on the running loop, because its own has stopped."""
    return cache.loop is not None and _own_loop(cache) is None


def _own_loop(cache: TokenCache) -> Loop | None:
    """Return the loop on which a cache is armed, if that is running."""
    loop: Loop | None = cache.loop() if cache.loop is not None else None
    # The parent process's seems to run in a child, too.
    return loop if loop is not None and loop.is_running() and not cache.is_inherited else None


def running_loop() -> Loop | None:
    """Return the loop that runs on this thread, if there is one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
