"""What the tests share: clocks that are moved by hand, an issuer that follows a script, threads and
loops whose outcome can be asked for, and schedulers that look when the test says so.

Nothing here sleeps; whatever waits gives up after ``DEADLINE`` seconds and fails the test. This is
the one place that knows the private names of the package's engine: tests take them from here.
"""

import asyncio
import base64
import contextlib
import gc
import inspect
import itertools
import json
import os
import random
import selectors
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextvars import Context
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar

import pytest
from azure.communication.common import _cache as cache_module
from azure.communication.common import _errors as errors  # noqa: F401 - for its own tests
from azure.communication.common import _refresh as rules
from azure.communication.common import _schedule as schedule_module
from azure.communication.common._sync import _credential as sync_credential
from azure.communication.common._sync import _scheduler as sync_scheduler
from azure.communication.common.aio import _credential as aio_credential
from azure.communication.common.aio import _scheduler as aio_scheduler
from azure.core.credentials import AccessToken

__all__ = ["aio_credential", "aio_scheduler", "cache_module", "rules", "schedule_module"]

TokenCache = cache_module.TokenCache
Schedule, Reference = schedule_module.Schedule, schedule_module.Reference
Scheduler, Workers = sync_scheduler.Scheduler, sync_scheduler.Workers
LoopScheduler = aio_scheduler.LoopScheduler

DEADLINE = 30  # seconds of real time that pass only where a test fails

_CODE = (type, ModuleType, FunctionType, CodeType)

T = TypeVar("T")
E = TypeVar("E", bound=cache_module.CachedTokenCredential)

_serials = itertools.count(1)
_PACKAGE = str(Path(cache_module.__file__).parent)


def make_token(exp: float, **claims: Any) -> str:
    """Return a JWT that expires at ``exp``, in Unix seconds. No two are the same."""
    payload = {"exp": int(exp), "jti": str(next(_serials)), **claims}
    segments = ({"alg": "RS256", "typ": "JWT"}, payload)
    texts = (base64.urlsafe_b64encode(json.dumps(segment).encode()) for segment in segments)
    return b".".join((*(text.rstrip(b"=") for text in texts), b"c2lnbmF0dXJl")).decode()


class Clock:
    """A wall clock and a monotonic clock, both in seconds, that only a test moves.

    Pass ``clock.wall`` and ``clock.mono`` on as the functions that tell the time.
    """

    def __init__(self, wall: float = 1_700_000_000.0, mono: float = 1_000.0) -> None:
        self._wall = wall
        self._mono = mono

    def wall(self) -> float:
        """Return Unix time, as ``time.time`` does."""
        return self._wall

    def mono(self) -> float:
        """Return time since some moment, as ``time.monotonic`` does."""
        return self._mono

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._wall += seconds
        self._mono += seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: the monotonic clock stands still meanwhile."""
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, to the future or the past."""
        self._wall = wall

    def sources(self, rand: Callable[[], float] = lambda: 0.0) -> cache_module.Clock:
        """Return this clock as the package takes it."""
        return cache_module.Clock(self.wall, self.mono, rand)


def on_clock(cls: type[E], clock: Clock, jitter: float = 0.0) -> type[E]:
    """Return a subclass of a credential that reads this clock, and draws ``jitter`` every time."""
    attributes = {"__slots__": (), "_clock": clock.sources(lambda: jitter)}
    return type(cls.__name__, (cls,), attributes)


def cache_of(credential: Any) -> TokenCache:
    """Return the cache that a credential has."""
    cache: TokenCache = credential._cache
    return cache


def state_of(credential: Any) -> rules.State:
    """Return all that a credential knows about its token."""
    return cache_of(credential).state


def source_of(credential: Any) -> Any:
    """Return what a credential gets its tokens from."""
    return cache_of(credential).source


def waiting(credential: Any) -> int:
    """Return how many threads and coroutines wait for a refresh; in aio its leader does, too."""
    waiters = list(cache_of(credential).waiters.values())
    return sum(getattr(waiter, "count", 1) for waiter in waiters)


def twin_of(
    cache: TokenCache, state: rules.State, clock: cache_module.Clock, schedule: Schedule
) -> TokenCache:
    """Return a cache in this state, on a schedule of its own where its timer is as the other's."""
    twin = TokenCache(
        None, cache.source, proactive=state.proactive, clock=clock, on_change=schedule.add
    )
    is_fast = cache.snapshot.fast[2] > -rules.INFINITY
    twin.snapshot = cache_module.Snapshot(state, clock, is_fast=is_fast)
    entries = cache.on_change.__self__.heap if cache.on_change else ()
    for when, number, reference, counts in entries:
        if reference() is cache and cache.entry == number:
            schedule.heap.append((when, number, weakref.ref(twin), counts))
            twin.entry = number
    return twin


def twin_of_refresh(refresh: rules.Refresh) -> rules.Refresh:
    """Return a refresh that is as far as this one."""
    twin = object.__new__(rules.Refresh)
    for name in rules.Refresh.__slots__:
        setattr(twin, name, getattr(refresh, name))
    return twin


class Item:
    """What a schedule needs of a cache: a state that says when it is due.

    :param after: In how many seconds it is due, as one that has failed before; None for a first
        token, which is due at once.
    :param refresh: What a worker or a loop calls to refresh it.
    """

    def __init__(
        self, clock: Clock, after: float | None, refresh: Callable[[], Any] = lambda: None
    ) -> None:
        self.clock = clock
        self.entry = 0
        self.loop: Any = None
        self.is_inherited = False
        self.refresh = refresh
        self.looks_after_fork = 0
        self.state = rules.State(proactive=True)
        if after is not None:
            self.due_in(after)

    @classmethod
    def valid(cls, clock: Clock, life: float, *, left: float) -> "Item":
        """Return one with a valid token, to be refreshed when so much of its life is left."""
        item = cls(clock, None)
        token = AccessToken("t", int(clock.wall() + life))
        state = rules.start(item.state, token, clock.sources().now())
        item.state = rules.replace(state, next_left=left, latest_left=left)
        return item

    def due_in(self, seconds: float) -> None:
        """Have it due then."""
        self.state = rules.State(proactive=True, background_at=self.clock.mono() + seconds)

    def look_after_fork(self) -> None:
        self.looks_after_fork += 1


class Tally:
    """A number that one thread counts up and another waits for."""

    def __init__(self) -> None:
        self.value = 0
        self._changed = threading.Condition()

    def count(self) -> int:
        """Add one and return the sum."""
        with self._changed:
            self.value += 1
            self._changed.notify_all()
            return self.value

    def wait_for(self, value: int) -> None:
        """Block until the count is reached."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.value >= value, DEADLINE):
                msg = f"{self.value} of {value} came within {DEADLINE} seconds"
                raise AssertionError(msg)


def count_waiting(cls: type[E]) -> tuple[type[E], Tally]:
    """Return a subclass of a credential and the count of callers that wait for its refreshes.

    The leader of a refresh counts, too. Once a caller has been counted, no outcome of the refresh
    escapes it, though it may not have begun to wait.
    """
    counted = Tally()

    class CountingCache(TokenCache):
        __slots__ = ()

        def begin(self, *args: Any) -> Any:
            decision = super().begin(*args)
            if decision.action in (rules.Action.LEAD, rules.Action.WAIT):
                counted.count()
            return decision

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.__init__(self, *args, **kwargs)
        self._cache.__class__ = CountingCache

    return type(cls.__name__, (cls,), {"__slots__": (), "__init__": construct}), counted


class Late:
    """A step of an issuer's script that is taken when it is released, and not before."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.gate: Future[None] = Future()

    def release(self) -> None:
        """Let the call go on."""
        self.gate.set_result(None)


class Issuer:
    """A refresher that follows a script and counts its calls.

    ``Issuer(...)`` itself is a synchronous refresher, its method ``issue`` an asynchronous one.
    Each call takes the next step of the script: an exception (or its class) is raised, a function
    is called, what is :class:`Late` is waited for, anything else is returned. Once the script is
    over, every call returns a new token that lives for ``life`` seconds. Between :meth:`hold` and
    :meth:`release` calls are counted, but do not return.
    """

    def __init__(
        self, *script: Any, life: float = 3600, wall: Callable[[], float] = time.time
    ) -> None:
        self.script = list(script)
        self._life = life
        self._wall = wall
        self._calls = Tally()
        self._gate: Future[None] = Future()
        self._gate.set_result(None)

    @property
    def calls(self) -> int:
        """How often it was called."""
        return self._calls.value

    def wait_for_call(self, number: int = 1) -> None:
        """Block until it has been called that often."""
        self._calls.wait_for(number)

    def hold(self) -> None:
        """Let no call return until further notice."""
        self._gate = Future()

    def release(self) -> None:
        """Let the calls that are held return, and later ones at once."""
        self._gate.set_result(None)

    def release_in_child(self) -> None:
        """Do the same after a fork. The gate has a lock, which a thread of the parent may hold."""
        self.hold()
        self.release()

    def __call__(self) -> Any:
        gate, step = self._begin()
        gate.result(DEADLINE)
        return self._take(step)

    async def issue(self) -> Any:
        """Do the same as a coroutine, awaiting what a function of the script returns."""
        gate, step = self._begin()
        if not gate.done():  # shielded, because a cancelled call would cancel the gate
            await asyncio.shield(asyncio.wrap_future(gate))
        value = self._take(step)
        return await value if inspect.isawaitable(value) else value

    def _begin(self) -> "tuple[Future[None], Any]":
        """Count a call; return what it waits for, and its step."""
        number = self._calls.count()
        if number > len(self.script):
            return self._gate, lambda: make_token(self._wall() + self._life)
        step = self.script[number - 1]
        return (step.gate, step.step) if isinstance(step, Late) else (self._gate, step)

    def _take(self, step: Any) -> Any:
        if isinstance(step, BaseException) or (
            isinstance(step, type) and issubclass(step, BaseException)
        ):
            raise step
        return step() if callable(step) else step


class Call(threading.Thread, Generic[T]):
    """A function called on a thread of its own, started at once.

    The thread is a daemon, so one that hangs fails its test but does not hang the run at its end.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._value: T | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Call the function. Runs on the new thread."""
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error

    def settle(self) -> None:
        """Block until the call has ended, however it did."""
        self.join(DEADLINE)
        assert not self.is_alive(), f"the call has not ended within {DEADLINE} seconds"

    def value(self) -> T:
        """Return what the function returned, or raise what it raised."""
        self.settle()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def error(self) -> BaseException:
        """Return what the function raised."""
        self.settle()
        assert self._error is not None, f"returned {self._value!r}"
        return self._error


def call_together(count: int, function: Callable[[], T]) -> list[Call[T]]:
    """Call a function on ``count`` threads that start it at the same moment."""
    barrier = threading.Barrier(count)

    def start() -> T:
        barrier.wait(DEADLINE)
        return function()

    return [Call(start) for _ in range(count)]


def wait_until(condition: Callable[[], bool]) -> None:
    """Block until something has happened that no counter counts; other threads run meanwhile."""
    give_up_at = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up_at, f"it has not happened within {DEADLINE} seconds"
        time.sleep(0)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run`` does, but fail the test if its loop freezes."""
    return Call(lambda: asyncio.run(main)).value()


async def turn_until(condition: Callable[[], bool]) -> None:
    """Run the event loop until something has happened."""
    give_up_at = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up_at, f"it has not happened within {DEADLINE} seconds"
        await asyncio.sleep(0)


class InlineWorkers(Workers):
    """Refreshes on the thread that asks for it."""

    def __init__(self) -> None:
        super().__init__(refresh_ahead, lambda: None)

    def submit(self, reference: Reference) -> None:
        """Refresh a credential at once."""
        cache = reference()
        if cache is not None:
            refresh_ahead(cache)

    def start_needed(self) -> None:
        """Start none."""


def refresh_ahead(cache: TokenCache) -> None:
    """Do what a worker does with a cache that is due."""
    sync_credential.refresh_ahead(cache)


def threadless(clock: Clock, workers: Workers | None = None, seed: int = 1) -> Scheduler:
    """Return a scheduler that looks at what is due when the test says so, with ``run_due``."""
    scheduler = Scheduler(refresh_ahead, clock.sources(random.Random(seed).random))
    scheduler.runner["thread"] = weakref.ref(threading.main_thread())  # so it starts no other
    if workers is not None:
        scheduler.workers = workers
    return scheduler


def install(monkeypatch: pytest.MonkeyPatch, scheduler: Scheduler) -> Scheduler:
    """Make it this process's scheduler."""
    monkeypatch.setitem(sync_scheduler.schedulers, os.getpid(), scheduler)
    return scheduler


def manual_scheduler(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Scheduler:
    """Replace this process's scheduler by one without a thread of its own, but with workers."""
    return install(monkeypatch, threadless(clock))


def run_all_due(scheduler: Scheduler) -> int:
    """Have the scheduler look as often as its thread would without a sleep; return how often."""
    looks = 1
    while scheduler.run_due() == 0:
        looks += 1
    return looks


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


def loop_scheduler(loop: asyncio.AbstractEventLoop, clock: Clock) -> LoopScheduler:
    """Give a loop a scheduler on this clock."""
    sources = clock.sources(random.Random(1).random)
    scheduler = LoopScheduler(aio_credential.refresh_ahead, sources)
    aio_scheduler.schedulers[loop] = scheduler
    return scheduler


def armed_caches() -> list[TokenCache]:
    """Return what is on the schedule of the running loop."""
    loop = asyncio.get_running_loop()
    return aio_scheduler.scheduler(loop, aio_credential.refresh_ahead).schedule.caches()


@contextlib.contextmanager
def clock_loop(clock: Clock) -> Iterator[ClockLoop]:
    """Yield a loop whose scheduler is on the same clock; cancel in the end what runs on it."""
    loop = ClockLoop(clock)
    loop_scheduler(loop, clock)
    try:
        yield loop
    finally:
        end_loop(loop)


@contextlib.contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield a loop that runs on a thread of its own; cancel in the end what runs on it."""
    loop = asyncio.new_event_loop()
    thread = Call(loop.run_forever)
    try:
        yield loop
    finally:
        if loop.is_running():
            stop_loop(loop)
        thread.settle()
        end_loop(loop)


def stop_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Stop a loop that runs on another thread, in the middle of whatever it does."""
    loop.call_soon_threadsafe(loop.stop)
    wait_until(lambda: not loop.is_running())


def end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what runs on a loop that has stopped, and close it."""
    tasks = set() if loop.is_closed() else asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.close()


def reachable(root: object) -> Iterator[object]:
    """Yield everything that an object refers to, directly or not, except code and modules."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        thing = todo.pop()
        is_global = isinstance(thing, dict) and "__builtins__" in thing
        if id(thing) in seen or is_global or isinstance(thing, _CODE):
            continue
        seen.add(id(thing))
        yield thing
        todo.extend(gc.get_referents(thing))


class ThreadWatch:
    """The package's threads that have been started since it was made."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def alive(self) -> list[threading.Thread]:
        """Return those that run."""
        name = "azure-communication-refresh"
        return [t for t in threading.enumerate() if t.name == name and t not in self._before]

    def wait_for_end(self) -> None:
        """Block until none runs, nor any that those have started."""
        give_up_at = time.monotonic() + DEADLINE
        while threads := self.alive():
            if time.monotonic() > give_up_at:
                frame = sys._current_frames().get(threads[0].ident or 0)
                where = "".join(traceback.format_stack(frame))
                msg = f"threads still run after {DEADLINE} seconds:\n{where}"
                raise AssertionError(msg)
            threads[0].join(DEADLINE)


class Fault:
    """Something that happens at the nth point of what a thread does in ``with fault:``.

    The points are where CPython delivers signals and starts the garbage collector: where a Python
    function is entered and where a C function returns. Callbacks of weak references do not count,
    because an exception in one of them is lost.
    """

    def __init__(self, nth: int, happen: Callable[[], object]) -> None:
        self._left = nth
        self._happen = happen
        self.where = "nowhere"
        """The file and line where it happened."""

    @property
    def happened(self) -> bool:
        """Return whether there were that many points."""
        return self._left <= 0

    def __enter__(self) -> "Fault":
        gc.disable()  # an exception in another test's finalizer would be lost as well
        sys.setprofile(self._pass)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _pass(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_return") and "weakref" not in frame.f_code.co_filename:
            self._count(frame)

    def _count(self, frame: FrameType) -> None:
        self._left -= 1
        if self._left == 0:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self._happen()


class CallFault(Fault):
    """The same at those points that are in the package's own functions, or in what they call."""

    def _pass(self, frame: FrameType, event: str, arg: object) -> None:
        if _is_own(frame) or (frame.f_back and _is_own(frame.f_back)):
            super()._pass(frame, event, arg)


class LineFault(Fault):
    """The same at each line of the package's own code."""

    def __enter__(self) -> "Fault":
        gc.disable()
        self._tracer = sys.gettrace()
        sys.settrace(self._enter_frame)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._tracer)
        gc.enable()

    def _enter_frame(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._pass_line if _is_own(frame) else None

    def _pass_line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self._count(frame)
        return self._pass_line


def distinct_points(kind: type[Fault], act: Callable[[], object], passes: int) -> list[int]:
    """Do something, which may fail, and return the numbers of its points, except in loops.

    A line that is reached in the same way counts only that many times.
    """
    found: list[int] = []
    numbers = itertools.count(1)
    counts: Counter[tuple[object, ...]] = Counter()

    class Recorder(kind):  # type: ignore[misc, valid-type]
        def _count(self, frame: FrameType) -> None:
            way = tuple((f.f_code, f.f_lineno) for f in _frames(frame) if _is_own(f))
            counts[way] += 1
            number = next(numbers)
            if counts[way] <= passes:
                found.append(number)

    with contextlib.suppress(Exception), Recorder(0, act):
        act()
    return found


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_own(frame: FrameType) -> bool:
    if frame.f_code.co_name in ("_count_void", "<genexpr>"):
        return False  # Python loses what a weak reference's callback or a generator's end raises
    return frame.f_code.co_filename.startswith(_PACKAGE)
