"""What the tests of proactive refresh share: schedulers on a clock that is moved by hand, with no
thread or with the real ones, and a watch over the threads that the package starts.
"""

import asyncio
import contextlib
import os
import random
import selectors
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any

import pytest
from azure.communication.common._schedule import Reference
from azure.communication.common._sync import _scheduler
from azure.communication.common._sync._scheduler import Scheduler, Workers
from azure.communication.common.aio import _scheduler as _aio_scheduler
from azure.communication.common.aio._scheduler import LoopScheduler

from fakes import DEADLINE, Clock


class InlineWorkers(Workers):
    """Refreshes on the thread that asks for it."""

    def run(self, reference: Reference) -> None:
        """Refresh a credential at once."""
        item = reference()
        if item is not None:
            item._refresh_ahead()


def threadless(clock: Clock, workers: Workers) -> Scheduler:
    """Return a scheduler that looks at what is due when the test says so."""
    scheduler = Scheduler(clock.wall, clock.mono, random.Random(1).random)
    scheduler._running = True  # so it starts no thread
    scheduler._workers = workers
    return scheduler


def install(monkeypatch: pytest.MonkeyPatch, scheduler: Scheduler) -> Scheduler:
    """Make it this process's scheduler."""
    monkeypatch.setitem(_scheduler._schedulers, os.getpid(), scheduler)
    return scheduler


def let_pass(seconds: float, clock: Clock, scheduler: Scheduler) -> None:
    """Let so much time pass on the clock, and the scheduler look whenever its thread would."""
    end = clock.mono() + seconds
    while clock.mono() < end:
        delay = scheduler.run_due()
        clock.advance(min(delay, end - clock.mono()))


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(DEADLINE if timeout is None else 0)
        if not ready:
            assert timeout is not None, "nothing will ever happen on this loop"
            self._clock.advance(timeout)
        return ready


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop that moves the clock on to its next timer instead of sleeping."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.timers = 0
        super().__init__(_Selector(clock))

    def time(self) -> float:
        """Return the clock's monotonic time."""
        return self._clock.mono()

    def call_at(  # type: ignore[override]  # to repeat the signature takes Python 3.11
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Set a timer, and count it in ``timers``."""
        self.timers += 1
        return super().call_at(when, callback, *args, context=context)


@contextlib.contextmanager
def clock_loop(clock: Clock) -> Iterator[ClockLoop]:
    """Yield a loop whose scheduler is on the same clock; cancel in the end what runs on it."""
    loop = ClockLoop(clock)
    _aio_scheduler._schedulers[loop] = LoopScheduler(
        clock.wall, clock.mono, random.Random(1).random
    )
    try:
        yield loop
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()


class ThreadWatch:
    """The package's threads that have been started since it was made."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def alive(self) -> list[threading.Thread]:
        """Return those that run."""
        name = "azure-communication-refresh"
        return [t for t in threading.enumerate() if t.name == name and t not in self._before]

    def wait_for_end(self) -> None:
        """Block until none runs."""
        for thread in self.alive():
            thread.join(DEADLINE)
        assert not self.alive(), f"threads still run after {DEADLINE} seconds"
