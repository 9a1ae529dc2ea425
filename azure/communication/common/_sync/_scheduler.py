"""Proactive refresh for any number of synchronous credentials: one thread, at most eight workers.

Theory of operation
-------------------
Whoever changes a cache records that in the scheduler, in a dictionary whose operations are atomic,
and wakes its thread; only that thread clears the record and touches the :class:`Schedule`. The
thread sleeps for at most 30 seconds at a time and then reads the wall clock, because time during
which the machine is suspended does not count as sleep. User code runs on the workers, which end
when idle, so that a refresher that hangs delays nobody else. All of them are daemon threads: none
delays the interpreter's exit.

The thread starts with the first armed credential and ends when there has been none for a while. The
scheduler retires with it; what is recorded in the meantime is passed on to the next one. A forked
child has none of the threads, and gets its own scheduler at its first use: the dictionary of
schedulers is keyed by process id, and ``setdefault`` is atomic. The at-fork hook makes that first
use take the slow path; without the hook (uWSGI forks in C) the credential arms itself when its
token comes due.

Queues and threads are looked up in their modules when they are needed, because gevent replaces them
there.
"""

import functools
import logging
import os
import queue
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from .._cache import SYSTEM_CLOCK, Clock, TokenCache
from .._schedule import Reference, Schedule

_LOGGER = logging.getLogger("azure.communication.common")

IDLE_SECONDS = 10
MAX_WORKERS = 8

_OUTDATED = (
    "threading was patched, as gevent does, after the first credential with proactive_refresh was "
    "created: call gevent.monkey.patch_all(), or its equivalent, before that"
)

RefreshAhead = Callable[[TokenCache], object]


class Scheduler:
    """The thread that has synchronous credentials refreshed ahead of need.

    :param refresh: Refreshes a cache if it should be; called on a worker.
    :type refresh: ~collections.abc.Callable[[TokenCache], object]
    :param clock: The source of time and of random numbers.
    :type clock: ~azure.communication.common._cache.Clock
    """

    def __init__(self, refresh: RefreshAhead, clock: Clock = SYSTEM_CLOCK) -> None:
        self.refresh = refresh
        self.schedule = Schedule(clock)
        self.workers = Workers(refresh, self.wake)
        # Weak, instead of asking is_alive(), which may end what it is asked about if it is
        # interrupted (before Python 3.13).
        self.runner: dict[str, Callable[[], threading.Thread | None]] = {}
        self.is_retired = False
        self.changed: dict[Reference, None] = {}
        self.calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def has_died(self) -> bool:
        """Return whether the thread is gone: an interrupt came before it could do anything."""
        reference = self.runner.get("thread")
        return reference is not None and reference() is None

    @property
    def is_outdated(self) -> bool:
        """Return whether gevent, or the like, has replaced threads since this one was started."""
        return type(self.calls) is not queue.SimpleQueue

    def add(self, cache: TokenCache) -> None:
        """Record that a cache has changed. Does not block; may start the thread."""
        self.changed[weakref.ref(cache)] = None
        if self.runner:
            if self.calls.empty():
                self.wake()
            return
        thread = new_thread(self.run)
        reference = weakref.ref(thread)
        try:
            if self.runner.setdefault("thread", reference) is reference and not start(thread):
                self.runner.clear()  # the next call may be able to start it
        except BaseException:
            # threading may keep a thread that an interrupt has kept from starting.
            self.runner["thread"] = lambda: None  # so has_died, and the next call replaces it
            raise

    def wake(self) -> None:
        """Make the thread check what there is to do."""
        self.calls.put(None)

    def run_due(self) -> float:
        """Hand what is due to the workers; return how many seconds to sleep, 0 if there is more."""
        self.schedule.take(self.changed)
        for reference in self.schedule.pop_due():
            self.workers.submit(reference)
        self.workers.start_needed()
        return self.schedule.delay()

    def look_after_fork(self) -> None:
        """Make each armed credential notice at its next use that its process is a new one."""
        for cache in self._caches():
            cache.look_after_fork()

    def retire(self) -> None:
        """Give way to the next scheduler. Whoever adds to this one meanwhile adds to both."""
        process = os.getpid()
        if schedulers.get(process) is self:
            schedulers.pop(process, None)
        self.is_retired = True
        for cache in self._caches():
            arm(cache, self.refresh)

    def run(self) -> None:
        try:
            was_empty = False
            while True:
                if self.is_outdated:
                    _LOGGER.warning("Proactive refresh is off: %s", _OUTDATED)
                    return
                try:
                    delay = self.run_due()
                    is_empty = not len(self.schedule)
                    if is_empty and was_empty:
                        break
                    was_empty = is_empty
                    self._sleep(IDLE_SECONDS if is_empty else delay)
                except Exception:  # noqa: BLE001 - the thread must not end
                    report_exception()
            self.retire()
        except BaseException:
            self.retire()  # so that the next one takes over
            raise

    def _sleep(self, seconds: float) -> None:
        """Sleep until there is a call, for at most ``seconds``."""
        with suppress(queue.Empty):
            self.calls.get(timeout=seconds)
            while True:
                self.calls.get_nowait()

    def _caches(self) -> list[TokenCache]:
        changed = [reference() for reference in list(self.changed)]
        return [*self.schedule.caches(), *(cache for cache in changed if cache is not None)]


class Workers:
    """At most eight daemon threads that refresh the caches handed to them, in order.

    Only one thread submits; each cache waits at most once.

    :param refresh: Refreshes a cache if it should be.
    :type refresh: ~collections.abc.Callable[[TokenCache], object]
    :param wake: Called by a worker that leaves caches waiting: :meth:`start_needed` is due.
    :type wake: ~collections.abc.Callable[[], object]
    """

    def __init__(self, refresh: RefreshAhead, wake: Callable[[], object]) -> None:
        self.threads: list[threading.Thread] = []
        self._refresh = refresh
        self._wake = wake
        self._waiting: OrderedDict[Reference, None] = OrderedDict()
        # A queue for each: where several get from one, get(timeout=...) may wait forever if another
        # was faster and its time is over (seen with Python 3.11).
        self.idle: dict[threading.Thread, queue.SimpleQueue[None]] = {}

    def __len__(self) -> int:
        """Return the number of caches that wait for a worker."""
        return len(self._waiting)

    def submit(self, reference: Reference) -> None:
        """Have a cache refreshed as soon as a worker is free, unless it is waiting already."""
        self._waiting.setdefault(reference, None)

    def start_needed(self) -> None:
        """Call a worker for each cache that waits, and start those that are missing."""
        waiting = len(self._waiting)
        if not waiting:
            return
        self.threads = [thread for thread in self.threads if thread.is_alive()]
        for thread in list(self.idle):
            if not thread.is_alive():  # it could not be started, or an interrupt has ended it
                self.idle.pop(thread, None)
        idle = list(self.idle.values())
        for calls in idle[:waiting]:
            if calls.empty():
                calls.put(None)
        for _ in range(min(waiting - len(idle), MAX_WORKERS - len(self.threads))):
            calls = queue.SimpleQueue()
            thread = new_thread(functools.partial(self._work, calls))
            self.idle[thread] = calls  # before it runs, or it would be started twice
            if not start(thread):
                return
            self.threads.append(thread)

    def _work(self, calls: "queue.SimpleQueue[None]") -> None:
        while self._wait_for_call(threading.current_thread(), calls):
            try:
                self._refresh_next()
            except Exception:  # noqa: BLE001 - of a log handler, say
                report_exception()

    def _wait_for_call(self, me: threading.Thread, calls: "queue.SimpleQueue[None]") -> bool:
        """Wait until there is something to do; return whether there is."""
        try:
            self.idle[me] = calls
            if self._waiting:
                return True
            with suppress(queue.Empty):
                calls.get(timeout=IDLE_SECONDS)
                return True
        finally:
            self.idle.pop(me, None)
        return bool(self._waiting)  # something may have just arrived

    def _refresh_next(self) -> None:
        try:
            reference, _ = self._waiting.popitem(last=False)
        except KeyError:  # called once too often
            return
        if self._waiting and not self.idle:
            self._wake()
        cache = reference()
        if cache is not None:
            self._refresh(cache)


def new_thread(target: Callable[[], None]) -> threading.Thread:
    """Return a thread that has not been started."""
    return threading.Thread(target=target, name="azure-communication-refresh")


warned = False


def start(thread: threading.Thread) -> bool:
    """Start a daemon thread; if that fails, log it once and leave refreshing to the callers."""
    global warned
    try:
        thread.daemon = True  # which a sub-interpreter may refuse
        thread.start()
    except RuntimeError as error:  # too many threads, or the interpreter is about to exit
        if not warned:
            warned = True
            _LOGGER.warning(
                "Proactive refresh is off: no thread could be started (%s). Tokens are refreshed "
                "on demand.",
                str(error),  # not the error, whose frames refer to the credential
            )
        return False
    return True


def report_exception() -> None:
    """Report the exception that is being handled as Python reports one that ends a thread."""
    args = (*sys.exc_info(), threading.current_thread())
    threading.excepthook(threading.ExceptHookArgs(args))


schedulers: dict[int, Scheduler] = {}
has_hook = False


def scheduler(refresh: RefreshAhead) -> Scheduler:
    """Return this process's scheduler, which is created at its first use."""
    global has_hook
    process = os.getpid()
    found = schedulers.get(process)
    if found is not None and found.has_died and not found.is_outdated:
        found.retire()
        found = schedulers.get(process)
    if found is None:
        if not has_hook and hasattr(os, "register_at_fork"):  # Windows has none
            os.register_at_fork(after_in_child=_look_after_fork)
            has_hook = True  # for children, too
        found = schedulers.setdefault(process, Scheduler(refresh))
        for other in list(schedulers):
            if other != process:
                schedulers.pop(other, None)
    return found


def arm(cache: TokenCache, refresh: RefreshAhead) -> None:
    """Have the background set the timer of a cache, or remove it if it has been closed.

    Does not block; may be called from any thread.

    :param TokenCache cache: The cache, which has changed.
    :param refresh: Refreshes a cache if it should be.
    :type refresh: ~collections.abc.Callable[[TokenCache], object]
    """
    if sys.is_finalizing():  # the thread is gone
        return
    if cache.state.closed:
        found = schedulers.get(os.getpid())
        if found is not None:
            found.schedule.remove(cache)
        return
    while True:
        found = scheduler(refresh)
        if found.is_outdated:  # callers keep refreshing
            return
        found.add(cache)
        if not found.is_retired:
            return


def check_threads(refresh: RefreshAhead) -> None:
    """Refuse proactive refresh if gevent, or the like, has patched threads in the meantime.

    The background thread is then a real one, and whatever it starts is a greenlet of its own hub,
    which would stand still while the thread sleeps.
    """
    if scheduler(refresh).is_outdated:
        raise RuntimeError(_OUTDATED)


def _look_after_fork() -> None:
    for inherited in list(schedulers.values()):
        inherited.look_after_fork()
