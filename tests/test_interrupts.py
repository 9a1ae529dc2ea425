"""What an interrupt leaves behind, whatever line it hits.

An interrupt is what a signal handler raises, or what another thread sends to a thread. Each test
repeats what one of those who use a credential does, once for each point at which it can be
interrupted. Afterwards nobody hangs, no refresh is left that nobody leads, the interrupted thread
can refresh again, and the background goes on.
"""

import asyncio
import gc
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Protocol

import pytest
from azure.communication.common import CommunicationTokenCredential, aio

from scaffolding import (
    DEADLINE,
    Call,
    CallFault,
    Clock,
    ClockLoop,
    InlineWorkers,
    Issuer,
    LineFault,
    Schedule,
    Scheduler,
    ThreadWatch,
    Workers,
    cache_of,
    distinct_points,
    install,
    let_pass,
    loop_scheduler,
    make_token,
    on_clock,
    refresh_ahead,
    schedule_module,
    state_of,
    sync_scheduler,
    threadless,
    wait_until,
    waiting,
)

LIFE = 300  # of a token; half of it is over when the background refreshes it
DUE = 160
IN_WINDOW = 250

PROMPTLY = 2  # seconds of real time within which everybody has to return

Steps = Iterator[Callable[[], object]]

# An interrupt may come between a coroutine and its task. The warning of that may itself fail,
# depending on which frame it comes in.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"
    ),
]


def interrupt() -> None:
    raise KeyboardInterrupt


class Everywhere(Protocol):
    def __call__(
        self, scenario: Callable[[], Steps], *, swallows: bool = False, passes: int = 2
    ) -> None: ...


@pytest.fixture(params=[LineFault, CallFault], ids=["lines", "calls"])
def everywhere(request: pytest.FixtureRequest) -> Everywhere:
    """What plays a scenario for each point of what it yields, which is interrupted there."""

    def play(scenario: Callable[[], Steps], *, swallows: bool = False, passes: int = 2) -> None:
        # On a thread of its own, because when a trace function raises in an except clause, what was
        # handled there continues to be handled.
        call = Call(lambda: repeat(scenario, swallows, passes))
        request.node.user_properties.append(("points", call.value()))

    def repeat(scenario: Callable[[], Steps], swallows: bool, passes: int) -> int:
        failures: list[str] = []
        steps = scenario()
        points = distinct_points(request.param, next(steps), passes)
        assert next(steps, None) is None
        for nth in points:
            fault = request.param(nth, interrupt)
            steps = scenario()
            act = next(steps)
            is_interrupted = False
            try:
                with fault:
                    act()
            except KeyboardInterrupt:
                is_interrupted = True
            except Exception as error:
                del error  # which is the scenario's own
            try:
                assert swallows or fault.happened == is_interrupted
                assert next(steps, None) is None
            except Exception as error:
                what = str(error).partition("\n")[0]
                failures.append(f"{fault.where} (point {nth}): {type(error).__name__}: {what}")
        assert not failures, "\n".join(failures)
        assert len(points) > 20
        return len(points)

    return play


class Scene:
    """A credential on a clock of its own, and a scheduler without a thread."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, life: float | None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.scheduler = install(monkeypatch, threadless(self.clock, InlineWorkers()))
        self.issuer = Issuer(life=LIFE, wall=self.clock.wall)
        self.answers: list[Callable[[], str]] = []
        self.token = None if life is None else make_token(self.clock.wall() + life)
        self.credential = self.make()
        self.others: list[Call[Any]] = []

    def make(self) -> CommunicationTokenCredential:
        return on_clock(CommunicationTokenCredential, self.clock)(
            self.token, token_refresher=self.issue, proactive_refresh=True
        )

    def issue(self) -> str:
        """Give the next of the answers, or a new token. This is the refresher."""
        token: str = self.issuer()
        return self.answers.pop(0)() if self.answers else token

    def ask_elsewhere(self) -> None:
        """Have another thread wait for the refresh that is in progress."""
        self.others.append(Call(self.credential.get_token))
        wait_until(lambda: waiting(self.credential) > 0)

    def check(self) -> None:
        """Check that everything goes on: the waiters, this thread, and the background."""
        self.answers.clear()
        for other in self.others:
            other.join(PROMPTLY)
            assert not other.is_alive(), "another thread still waits"
        assert state_of(self.credential).refreshes == (), "a refresh is in progress"
        assert not waiting(self.credential)
        assert self.credential.get_token().expires_on > self.clock.wall()
        calls = self.issuer.calls
        self.clock.advance(LIFE)
        assert self.credential.get_token().expires_on > self.clock.wall()
        assert self.issuer.calls == calls + 1
        let_pass(DUE, self.clock, self.scheduler)
        assert self.issuer.calls == calls + 2, "the background has not refreshed the token"
        self.credential.close()


@pytest.mark.parametrize("life", [None, LIFE], ids=["no token", "a valid token"])
@pytest.mark.parametrize(
    ("outcome", "options"),
    [("token", {}), ("token", {"claims": "{}"}), ("error", {})],
    ids=["token", "token for claims", "error"],
)
def test_leader(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
    life: float | None,
    options: dict[str, Any],
    outcome: str,
) -> None:
    """Others who wait for the interrupted leader of a refresh return, and the next call works."""

    def scenario() -> Steps:
        def answer() -> str:
            if life is None:
                scene.ask_elsewhere()
            if outcome == "error":
                raise ConnectionError
            return make_token(scene.clock.wall() + LIFE)

        scene = Scene(monkeypatch, life)
        scene.clock.advance(IN_WINDOW)
        scene.answers.append(answer)
        yield lambda: scene.credential.get_token(**options)
        scene.check()

    everywhere(scenario)


@pytest.mark.parametrize("outcome", ["token", "error"])
def test_waiter(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
    outcome: str,
) -> None:
    """An interrupted waiter affects nobody else, and its thread can refresh afterwards."""

    def scenario() -> Steps:
        is_over: list[bool] = []

        def answer() -> str:
            wait_until(lambda: is_over or waiting(scene.credential) == 2)
            if outcome == "error":
                raise ConnectionError
            return make_token(scene.clock.wall() + LIFE)

        scene = Scene(monkeypatch, None)
        scene.answers.append(answer)
        scene.others.append(Call(scene.credential.get_token))
        wait_until(lambda: state_of(scene.credential).refreshes != ())
        scene.ask_elsewhere()
        yield scene.credential.get_token
        is_over.append(True)
        scene.check()

    everywhere(scenario)


@pytest.mark.parametrize("life", [None, LIFE], ids=["no token", "a valid token"])
@pytest.mark.parametrize("outcome", ["token", "error"])
def test_background_refresh(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
    life: float | None,
    outcome: str,
) -> None:
    """Those who wait for an interrupted background refresh return, and the next one comes."""

    def scenario() -> Steps:
        def answer() -> str:
            if life is None:
                scene.ask_elsewhere()
            if outcome == "error":
                raise ConnectionError
            return make_token(scene.clock.wall() + LIFE)

        scene = Scene(monkeypatch, life)
        scene.clock.advance(DUE)
        scene.answers.append(answer)
        yield lambda: refresh_ahead(cache_of(scene.credential))
        scene.check()

    everywhere(scenario, swallows=True)


@pytest.mark.parametrize("how", ["close", "with"])
def test_close_while_others_wait(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
    how: str,
) -> None:
    """If an interrupted ``close`` has closed the credential, those who wait are told of it."""

    def scenario() -> Steps:
        def answer() -> str:
            assert is_over.wait(DEADLINE)
            return make_token(scene.clock.wall() + LIFE)

        is_over = threading.Event()
        scene = Scene(monkeypatch, None)
        scene.answers.append(answer)
        leader = Call(scene.credential.get_token)
        wait_until(lambda: state_of(scene.credential).refreshes != ())
        scene.ask_elsewhere()
        yield scene.credential.close if how == "close" else scene.credential.__exit__
        if state_of(scene.credential).closed:
            (waiter,) = scene.others
            waiter.join(PROMPTLY)
            assert not waiter.is_alive(), "a waiter still waits"
            assert "closed" in str(waiter.error())
        is_over.set()
        leader.settle()
        if not state_of(scene.credential).closed:
            scene.check()

    everywhere(scenario)


def test_close_with_a_token(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """An interrupted ``close`` has closed the credential for everybody, or for nobody."""

    def scenario() -> Steps:
        scene = Scene(monkeypatch, LIFE)
        yield scene.credential.close
        try:
            token = scene.credential.get_token().token
        except RuntimeError:
            token = None
        assert token == (None if state_of(scene.credential).closed else scene.token)
        if token is not None:
            scene.check()
        scene.credential.close()
        with pytest.raises(RuntimeError, match="closed"):
            scene.credential.get_token()
        scene.scheduler.run_due()
        assert scene.scheduler.schedule.caches() == []

    everywhere(scenario)


def test_invalidate_token(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """An interrupted ``invalidate_token`` has dropped the token for everybody, or for nobody."""

    def scenario() -> Steps:
        scene = Scene(monkeypatch, LIFE)
        scene.clock.advance(60)
        yield lambda: scene.credential.invalidate_token(scene.token or "")
        token = scene.credential.get_token().token
        if state_of(scene.credential).refused:
            assert token != scene.token
        else:
            assert token == scene.token
        scene.check()

    everywhere(scenario)


def test_the_background_after_invalidate_token(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """If the token is gone, the background fetches another one at once, as usual."""

    def scenario() -> Steps:
        scene = Scene(monkeypatch, LIFE)
        scene.clock.advance(60)
        yield lambda: scene.credential.invalidate_token(scene.token or "")
        is_gone = state_of(scene.credential).token is None
        let_pass(30, scene.clock, scene.scheduler)
        assert scene.issuer.calls == int(is_gone)
        scene.check()

    everywhere(scenario)


def test_constructor(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """After an interrupted constructor, the next one makes a credential that is refreshed."""

    def scenario() -> Steps:
        hooks.clear()
        monkeypatch.setattr(sync_scheduler, "has_hook", False)
        scene = Scene(monkeypatch, LIFE, clock)
        # A scheduler of its own, which has no threads.
        monkeypatch.setattr(sync_scheduler, "schedulers", {})
        yield scene.make
        scene.credential = scene.make()
        assert len(hooks) >= 1
        scene.scheduler = sync_scheduler.scheduler(refresh_ahead)
        scene.check()

    hooks: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hook: hooks.append(hook), raising=False)
    monkeypatch.setattr(sync_scheduler, "Scheduler", lambda _: threadless(clock, InlineWorkers()))
    clock = Clock()
    everywhere(scenario)


def test_first_use_in_a_child_process(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """After an interrupt of a forked child's first call, the next one arms the credential there."""

    def scenario() -> Steps:
        monkeypatch.setattr(os, "getpid", lambda: 1)
        scene = Scene(monkeypatch, LIFE)
        scene.scheduler.run_due()
        scene.scheduler.look_after_fork()
        monkeypatch.setattr(os, "getpid", lambda: 2)
        scene.scheduler = install(monkeypatch, threadless(scene.clock, InlineWorkers()))
        yield scene.credential.get_token
        assert scene.credential.get_token().token == scene.token
        let_pass(DUE, scene.clock, scene.scheduler)
        assert scene.issuer.calls == 1, "the background has not refreshed the token"
        scene.check()

    everywhere(scenario)


class Due(Scene):
    """A scene in which a refresh is due; the one that comes closes the credential."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch, LIFE)
        monkeypatch.setattr(sync_scheduler, "Scheduler", lambda _: self.make_scheduler())
        monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0)
        monkeypatch.setattr(schedule_module, "LONGEST_SLEEP_SECONDS", 0)
        self.clock.advance(DUE)
        self.answers.append(self.close)

    def make_scheduler(self) -> Scheduler:
        return threadless(self.clock, InlineWorkers())

    def close(self) -> str:
        self.credential.close()
        return make_token(self.clock.wall() + LIFE)

    def is_refreshed(self) -> bool:
        """Return whether the current scheduler has refreshed the token within a minute."""
        scheduler = sync_scheduler.scheduler(refresh_ahead)
        for _ in range(2):
            scheduler.run_due()
            self.clock.advance(60)
        scheduler.run_due()
        return self.issuer.calls > 0


def test_scheduler_thread(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """When an interrupt ends the thread, another one continues with all that is armed."""
    before_it_began = 0

    def scenario() -> Steps:
        nonlocal before_it_began
        scene = Due(monkeypatch)
        scene.scheduler.workers.submit = (  # type: ignore[method-assign]
            lambda _: scene.credential.close()  # so that the thread ends
        )
        yield scene.scheduler.run
        if state_of(scene.credential).closed:
            return
        if not scene.scheduler.is_retired:  # it had not begun, so the next change finds it gone
            before_it_began += 1
            scene.scheduler.runner["thread"] = weakref.ref(threading.Thread())
            scene.make()
        assert scene.is_refreshed()

    everywhere(scenario)
    assert before_it_began <= 2


def test_worker_thread(
    monkeypatch: pytest.MonkeyPatch,
    everywhere: Everywhere,
) -> None:
    """When an interrupt ends a worker, what it leaves behind is done by another one."""
    started: list[Callable[[], None]] = []

    class Thread:
        """One that ends before anybody looks."""

        def __init__(self, target: Callable[[], None]) -> None:
            self.start = lambda: started.append(target)

        def is_alive(self) -> bool:
            return False

    def scenario() -> Steps:
        scene = Due(monkeypatch)
        started.clear()
        scheduler = scene.scheduler
        scheduler.workers = Workers(refresh_ahead, scheduler.wake)
        scheduler.run_due()
        yield started.pop()
        # This thread has not ended, as a worker's would have.
        scheduler.workers.idle.pop(threading.current_thread(), None)
        for _ in range(6):  # an interrupt of the refresher itself is a failure
            scheduler.run_due()
            while started:
                started.pop()()
            scene.clock.advance(60)
        assert scene.issuer.calls > 0

    monkeypatch.setattr(sync_scheduler, "new_thread", Thread)
    everywhere(scenario, swallows=True)


def test_an_interrupted_thread_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt is reported as that of any thread, and the background goes on."""
    reports: list[Any] = []
    called = threading.Event()

    def interrupted(limit: int = 0) -> list[Any]:
        monkeypatch.setattr(Schedule, "pop_due", pop_due)
        raise KeyboardInterrupt

    def issue() -> str:
        called.set()
        return make_token(4_000_000_000)

    threads, pop_due = ThreadWatch(), Schedule.pop_due
    monkeypatch.setattr(sync_scheduler, "schedulers", {})
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(threading, "excepthook", reports.append)
    monkeypatch.setattr(Schedule, "pop_due", interrupted)
    with CommunicationTokenCredential(token_refresher=issue, proactive_refresh=True):
        assert called.wait(DEADLINE)
    sync_scheduler.scheduler(refresh_ahead).wake()
    threads.wait_for_end()
    assert [report.exc_type for report in reports] == [KeyboardInterrupt]


@pytest.fixture(autouse=True, scope="module")
def collect() -> Iterator[None]:
    """Have what is never awaited collected here, where its warning is expected."""
    yield
    gc.collect()


# ---- On event loops

EAGER = getattr(asyncio, "eager_task_factory", None)


@pytest.fixture(autouse=True)
def close_loops() -> Iterator[None]:
    """Close the loops that a failed test leaves, or they would warn of it in another one."""
    yield
    while LoopScene.loops:
        loop = LoopScene.loops.pop()
        if not loop.is_closed():
            loop.close()


class LoopScene:
    """A credential on an event loop that takes no time to pass it."""

    loops: ClassVar[list[ClockLoop]] = []

    def __init__(
        self, life: float | None, *, is_eager: bool = False, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.loop = ClockLoop(self.clock)
        self.loops.append(self.loop)
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(str(context)))
        if is_eager:
            self.loop.set_task_factory(EAGER)
        self.scheduler = loop_scheduler(self.loop, self.clock)
        self.complaints: list[str] = []
        self.issuer = Issuer(life=LIFE, wall=self.clock.wall)
        self.answers: list[Callable[[], str]] = []
        self.token = None if life is None else make_token(self.clock.wall() + life)
        self.others: list[asyncio.Task[Any]] = []
        self.own: set[asyncio.Task[Any]] = set()
        self.credential = self.run(self.make)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call a function on the loop, and await what it returns if that can be awaited."""

        async def call() -> Any:
            value = function()
            return await value if inspect.isawaitable(value) else value

        task = self.start(call())
        try:
            return self.loop.run_until_complete(task)
        finally:
            if task.done():
                self.own.discard(task)

    def make(self, refresher: Any = None) -> aio.CommunicationTokenCredential:
        return on_clock(aio.CommunicationTokenCredential, self.clock)(
            self.token, token_refresher=refresher or self.issue, proactive_refresh=True
        )

    async def issue(self) -> str:
        """Give the next of the answers, or a new token. This is the refresher."""
        token = await self.issuer.issue()
        for _ in range(3):
            await asyncio.sleep(0)
        return self.answers.pop(0)() if self.answers else token

    async def ask(self) -> Any:
        """Ask for a token just when the old one has expired, before the background can."""
        self.clock.advance(LIFE)
        return await self.credential.get_token()

    def ask_beside(self) -> None:
        """Have another task wait for the refresh that is in progress."""
        self.others.append(self.start(self.credential.get_token()))

    def check(self) -> None:
        """Check that everything goes on: the waiters, this loop, and the background."""
        self.answers.clear()
        self.settle_interrupted()
        start = self.clock.mono()
        if self.others:
            self.run(lambda: asyncio.wait(self.others))
        assert self.run(self.credential.get_token).expires_on > self.clock.wall()
        assert self.clock.mono() - start <= PROMPTLY, "somebody has waited"
        self.run(self.settle)
        assert state_of(self.credential).refreshes == (), "a refresh is in progress"
        calls = self.issuer.calls
        self.clock.advance(LIFE)
        assert self.run(self.credential.get_token).expires_on > self.clock.wall()
        assert self.issuer.calls == calls + 1
        self.run(lambda: asyncio.sleep(DUE))
        assert self.issuer.calls == calls + 2, "the background has not refreshed the token"
        self.end()

    def settle_interrupted(self) -> None:
        """Let the loop stop once, or what is left of an interrupted run would stop the next one."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Start a task for the test itself."""
        task = self.loop.create_task(coroutine)
        self.own.add(task)
        return task

    def cancel_in(
        self,
        steps: int,
        victims: str,
        caller: asyncio.Task[Any] | None,
        cancelled: list[asyncio.Task[Any]],
    ) -> None:
        """Cancel tasks a number of loop iterations from now, and record which."""

        def cancel(left: int) -> None:
            if left:
                self.loop.call_soon(cancel, left - 1)
                return
            tasks = asyncio.all_tasks(self.loop)
            if victims == "the caller":
                tasks &= {caller}
            elif victims == "the refresh":
                tasks -= self.own
            for task in tasks:
                task.cancel()
            cancelled.extend(tasks)

        self.loop.call_soon(cancel, steps)

    async def settle(self) -> None:
        """Let a refresh that goes on come to its end, which takes it no time."""
        for _ in range(20):
            if state_of(self.credential).refreshes:
                await asyncio.sleep(0)

    def end(self) -> None:
        self.run(self.credential.close)
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run(lambda: asyncio.wait(tasks))
        self.loop.close()
        # Not those of the test's own tasks, whose errors are not checked.
        assert [text for text in self.complaints if "azure/communication/common" in text] == []


needs_eager_tasks = pytest.mark.skipif(not EAGER, reason="asyncio has no eager tasks yet")
each_factory = pytest.mark.parametrize(
    "is_eager",
    [False, pytest.param(True, marks=needs_eager_tasks)],
    ids=["tasks", "eager tasks"],
)


@pytest.mark.parametrize(
    ("outcome", "is_eager"),
    [
        ("token", False),
        ("error", False),
        pytest.param("token", True, marks=needs_eager_tasks),
    ],
    ids=["token", "error", "token, eager tasks"],
)
def test_leader_on_a_loop(everywhere: Everywhere, is_eager: bool, outcome: str) -> None:
    """An interrupt that stops the loop strands nobody when the loop goes on."""

    def scenario() -> Steps:
        def answer() -> str:
            scene.ask_beside()
            if outcome == "error":
                raise ConnectionError
            return make_token(scene.clock.wall() + LIFE)

        scene = LoopScene(LIFE, is_eager=is_eager)
        scene.answers.append(answer)
        yield lambda: scene.run(scene.ask)
        scene.check()

    everywhere(scenario, passes=1)


def test_background_refresh_on_a_loop(everywhere: Everywhere) -> None:
    """An interrupt of the timer, or of the refresh that it starts, does not end the background."""

    def scenario() -> Steps:
        scene = LoopScene(LIFE)
        yield lambda: scene.run(lambda: asyncio.sleep(DUE))
        scene.check()

    everywhere(scenario, passes=1)


def test_close_on_a_loop(everywhere: Everywhere) -> None:
    """If an interrupted ``close`` has closed the credential, those who wait are told of it."""

    def scenario() -> Steps:
        scene = LoopScene(None)
        scene.issuer.hold()
        scene.run(scene.ask_beside)
        yield lambda: scene.run(scene.credential.close)
        scene.settle_interrupted()
        start = scene.clock.mono()
        if not state_of(scene.credential).closed:
            scene.issuer.release()
        results = scene.run(lambda: asyncio.gather(*scene.others, return_exceptions=True))
        assert scene.clock.mono() - start <= PROMPTLY
        if state_of(scene.credential).closed:
            assert "closed" in str(results[0])
            scene.issuer.release()
            scene.end()
        else:
            scene.check()

    everywhere(scenario)


def test_moving_to_another_loop(everywhere: Everywhere) -> None:
    """After an interrupt of the first use on another loop, the next use arms the credential."""

    def scenario() -> Steps:
        old, scene = LoopScene(LIFE), LoopScene(LIFE)
        old.run(lambda: asyncio.sleep(0))
        old.loop.close()
        scene.credential = on_clock(aio.CommunicationTokenCredential, scene.clock)(
            scene.token, token_refresher=scene.issue, proactive_refresh=True
        )
        yield lambda: scene.run(scene.credential.get_token)
        scene.settle_interrupted()
        scene.run(scene.credential.get_token)
        scene.run(lambda: asyncio.sleep(DUE))
        if not scene.issuer.calls:  # its timer had not begun, so the next change finds it gone
            before_it_began.append(scene)
            scene.run(scene.make)
            scene.run(lambda: asyncio.sleep(1))
        assert scene.issuer.calls == 1, "the background has not refreshed the token"
        scene.check()

    before_it_began: list[LoopScene] = []
    everywhere(scenario)
    assert len(before_it_began) <= 2


def test_constructor_on_a_loop(everywhere: Everywhere) -> None:
    """After an interrupted constructor, the next one makes a credential that is refreshed."""

    def scenario() -> Steps:
        scene = LoopScene(LIFE)
        scene.scheduler = loop_scheduler(scene.loop, scene.clock)  # which has set no timer yet
        yield lambda: scene.run(lambda: scene.make(lambda: scene.token))
        scene.credential = scene.run(scene.make)
        scene.check()

    everywhere(scenario)


# ---- Cancellation, and refreshers that interrupt


STEPS = range(15)  # iterations of the loop, which are more than a refresh takes


@each_factory
@pytest.mark.parametrize("victims", ["the caller", "the refresh", "everything"])
def test_cancellation_at_each_step(is_eager: bool, victims: str) -> None:
    """Whoever is cancelled in whichever iteration of the loop, everybody else goes on."""
    hits = 0
    for step in STEPS:
        scene = LoopScene(LIFE, is_eager=is_eager)
        caller = scene.start(scene.ask())
        scene.ask_beside()
        cancelled: list[asyncio.Task[Any]] = []
        scene.cancel_in(step, victims, caller, cancelled)
        with suppress(asyncio.CancelledError):
            scene.run(lambda: asyncio.sleep(1))
        assert caller.done()
        scene.check()
        hits += bool(cancelled)
    assert hits > 4


@each_factory
@pytest.mark.parametrize("victims", ["the refresh", "everything"])
def test_cancellation_at_each_step_in_the_background(is_eager: bool, victims: str) -> None:
    """The background goes on, even if everything was cancelled in the tick of its timer."""
    hits = 0
    for step in STEPS:
        scene = LoopScene(LIFE, is_eager=is_eager)
        cancelled: list[asyncio.Task[Any]] = []
        scene.loop.call_at(
            scene.loop.time() + LIFE / 2, scene.cancel_in, step, victims, None, cancelled
        )
        with suppress(asyncio.CancelledError):
            scene.run(lambda: asyncio.sleep(DUE))
        scene.check()
        hits += not scene.own.issuperset(cancelled)
    assert hits > 4


@each_factory
@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "in the background"])
def test_a_refresher_that_interrupts_at_once(is_eager: bool, proactive: bool) -> None:
    """An eager task raises what its first step raises where it is made; the next call works."""
    scene = LoopScene(LIFE, is_eager=is_eager)
    scene.issuer = Issuer(KeyboardInterrupt, life=LIFE, wall=scene.clock.wall)
    with pytest.raises(KeyboardInterrupt):
        scene.run((lambda: asyncio.sleep(DUE)) if proactive else scene.ask)
    assert scene.issuer.calls == 1
    scene.check()


@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "in the background"])
def test_a_refresh_that_is_cancelled_before_its_first_step_ends(proactive: bool) -> None:
    """As at the end of ``asyncio.run``: a coroutine that never began runs no ``finally``."""
    scene = LoopScene(LIFE)

    run_due = scene.scheduler.run_due

    def cancel_all() -> None:
        for task in asyncio.all_tasks(scene.loop):
            task.cancel()

    def run_due_and_cancel() -> None:
        run_due()
        if state_of(scene.credential).refreshes:
            cancel_all()

    async def main() -> None:
        if proactive:
            scene.scheduler.run_due = run_due_and_cancel  # type: ignore[method-assign]
        else:
            scene.start(scene.ask())
            await asyncio.sleep(0)
            assert state_of(scene.credential).refreshes != ()
            cancel_all()
        await asyncio.sleep(DUE)

    with pytest.raises(asyncio.CancelledError):
        scene.run(main)
    scene.scheduler.run_due = run_due  # type: ignore[method-assign]
    assert scene.issuer.calls == 0
    scene.check()
