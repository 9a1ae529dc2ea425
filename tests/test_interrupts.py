"""What an interrupt leaves behind, at whatever line it comes.

An interrupt is what a signal handler raises, or what another thread sends to a thread. Each test
repeats what one of those who use a credential does, once for each point at which it can be
interrupted. Afterwards nobody hangs, no refresh is left that nobody leads, the interrupted thread
can refresh again, and the background goes on.
"""

import asyncio
import inspect
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

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

PROMPTLY = 2  # seconds of real time within which everybody has to return

Steps = Iterator[Callable[[], object]]

pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")


def interrupt() -> None:
    raise KeyboardInterrupt


class Everywhere(Protocol):
    def __call__(self, scenario: Callable[[], Steps], *, swallows: bool = False) -> None: ...


@pytest.fixture(params=[LineFault, CallFault], ids=["lines", "calls"])
def everywhere(request: pytest.FixtureRequest) -> Everywhere:
    """What plays a scenario for each point of what it yields, which is interrupted there."""

    def play(scenario: Callable[[], Steps], *, swallows: bool = False) -> None:
        failures: list[str] = []
        for nth in itertools.count(1):
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
                failures.append(f"{fault.where} (point {nth}): {error!r}")
            if not fault.happened:
                break
        assert not failures, "\n".join(failures)
        assert nth > 20
        request.node.user_properties.append(("points", nth - 1))

    return play


class Scene:
    """A credential on a clock of its own, and a scheduler without a thread."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, life: float | None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.scheduler = install(monkeypatch, threadless(self.clock, InlineWorkers()))
        self.issuer = Issuer(wall=self.clock.wall)
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
        """Check that everybody goes on: those who wait, this thread, and the background."""
        self.answers.clear()
        for other in self.others:
            other.join(PROMPTLY)
            assert not other.is_alive(), "another thread still waits"
        assert state_of(self.credential).refreshes == (), "a refresh is in progress"
        assert not waiting(self.credential)
        assert self.credential.get_token().expires_on > self.clock.wall()
        calls = self.issuer.calls
        self.clock.advance(4_000)
        assert self.credential.get_token().expires_on > self.clock.wall()
        assert self.issuer.calls == calls + 1
        let_pass(3_100, self.clock, self.scheduler)
        assert self.issuer.calls == calls + 2, "the background has not refreshed the token"
        self.credential.close()


@pytest.mark.parametrize("life", [None, 3_600], ids=["no token", "a valid token"])
@pytest.mark.parametrize(
    ("outcome", "options"),
    [("token", {}), ("token", {"claims": "{}"}), ("error", {}), ("expired", {})],
    ids=["token", "token for claims", "error", "expired"],
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
            return make_token(scene.clock.wall() + (3_600 if outcome == "token" else -1))

        scene = Scene(monkeypatch, life)
        scene.clock.advance(3_500)
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
    """An interrupted waiter takes nobody with it, and its thread can refresh afterwards."""

    def scenario() -> Steps:
        is_over: list[bool] = []

        def answer() -> str:
            wait_until(lambda: is_over or waiting(scene.credential) == 2)
            if outcome == "error":
                raise ConnectionError
            return make_token(scene.clock.wall() + 3_600)

        scene = Scene(monkeypatch, None)
        scene.answers.append(answer)
        scene.others.append(Call(scene.credential.get_token))
        wait_until(lambda: state_of(scene.credential).refreshes != ())
        scene.ask_elsewhere()
        yield scene.credential.get_token
        is_over.append(True)
        scene.check()

    everywhere(scenario)


@pytest.mark.parametrize("life", [None, 3_600], ids=["no token", "a valid token"])
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
            return make_token(scene.clock.wall() + 3_600)

        scene = Scene(monkeypatch, life)
        scene.clock.advance(3_100)
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
            return make_token(scene.clock.wall() + 3_600)

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
        scene = Scene(monkeypatch, 3_600)
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
        scene = Scene(monkeypatch, 3_600)
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
    """If the token is gone, the background fetches another one at once, as ever."""

    def scenario() -> Steps:
        scene = Scene(monkeypatch, 3_600)
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
        monkeypatch.setattr(sync_scheduler, "_has_hook", False)
        scene = Scene(monkeypatch, 3_600, clock)
        # A scheduler of its own, whose threads are none.
        monkeypatch.setattr(sync_scheduler, "_schedulers", {})
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
        scene = Scene(monkeypatch, 3_600)
        scene.scheduler.run_due()
        scene.scheduler.look_after_fork()
        monkeypatch.setattr(os, "getpid", lambda: 2)
        scene.scheduler = install(monkeypatch, threadless(scene.clock, InlineWorkers()))
        yield scene.credential.get_token
        assert scene.credential.get_token().token == scene.token
        let_pass(3_100, scene.clock, scene.scheduler)
        assert scene.issuer.calls == 1, "the background has not refreshed the token"
        scene.check()

    everywhere(scenario)


class Due(Scene):
    """A scene in which a refresh is due; the one that comes closes the credential."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch, 3_600)
        monkeypatch.setattr(sync_scheduler, "Scheduler", lambda _: self.make_scheduler())
        monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0)
        monkeypatch.setattr(schedule_module, "LONGEST_SLEEP_SECONDS", 0)
        self.scheduler.run_due()
        self.clock.advance(3_100)
        self.answers.append(self.close)

    def make_scheduler(self) -> Scheduler:
        return threadless(self.clock, InlineWorkers())

    def close(self) -> str:
        self.credential.close()
        return make_token(self.clock.wall() + 3_600)

    def is_refreshed(self) -> bool:
        """Tell whether the present scheduler has refreshed the token within a minute."""
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
    """When an interrupt ends the thread, another one goes on with all that is armed."""
    before_it_began = 0

    def scenario() -> Steps:
        nonlocal before_it_began
        scene = Due(monkeypatch)
        scene.scheduler.workers.submit = (  # type: ignore[method-assign]
            lambda _: scene.credential.close()  # so that the thread ends
        )
        yield scene.scheduler._run
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
        scheduler.workers._idle.pop(threading.current_thread(), None)
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
    monkeypatch.setattr(sync_scheduler, "_schedulers", {})
    monkeypatch.setattr(sync_scheduler, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(threading, "excepthook", reports.append)
    monkeypatch.setattr(Schedule, "pop_due", interrupted)
    with CommunicationTokenCredential(token_refresher=issue, proactive_refresh=True):
        assert called.wait(DEADLINE)
    sync_scheduler.scheduler(refresh_ahead).wake()
    threads.wait_for_end()
    assert [report.exc_type for report in reports] == [KeyboardInterrupt]


# ---- On event loops

EAGER = getattr(asyncio, "eager_task_factory", None)


class LoopScene:
    """A credential on an event loop that takes no time to pass it."""

    def __init__(
        self, life: float | None, *, is_eager: bool = False, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.loop = ClockLoop(self.clock)
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        if is_eager:
            self.loop.set_task_factory(EAGER)
        loop_scheduler(self.loop, self.clock)
        self.complaints: list[dict[str, Any]] = []
        self.issuer = Issuer(wall=self.clock.wall)
        self.answers: list[Callable[[], str]] = []
        self.token = None if life is None else make_token(self.clock.wall() + life)
        self.others: list[asyncio.Task[Any]] = []
        self.credential = self.run(self.make)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call a function on the loop, and await what it returns if that can be awaited."""

        async def call() -> Any:
            value = function()
            return await value if inspect.isawaitable(value) else value

        return self.loop.run_until_complete(call())

    def make(self) -> aio.CommunicationTokenCredential:
        return on_clock(aio.CommunicationTokenCredential, self.clock)(
            self.token, token_refresher=self.issue, proactive_refresh=True
        )

    async def issue(self) -> str:
        """Give the next of the answers, or a new token. This is the refresher."""
        token = await self.issuer.issue()
        for _ in range(3):
            await asyncio.sleep(0)
        return self.answers.pop(0)() if self.answers else token

    def ask_beside(self) -> None:
        """Have another task wait for the refresh that is in progress."""
        self.others.append(self.loop.create_task(self.credential.get_token()))

    def check(self) -> None:
        """Check that everybody goes on: those who wait, this loop, and the background."""
        self.answers.clear()
        start = self.clock.mono()
        if self.others:
            self.run(lambda: asyncio.wait(self.others))
        assert self.run(self.credential.get_token).expires_on > self.clock.wall()
        assert self.clock.mono() - start <= PROMPTLY, "somebody has waited"
        self.run(lambda: asyncio.sleep(0))
        assert state_of(self.credential).refreshes == (), "a refresh is in progress"
        calls = self.issuer.calls
        self.clock.advance(4_000)
        assert self.run(self.credential.get_token).expires_on > self.clock.wall()
        assert self.issuer.calls == calls + 1
        self.run(lambda: asyncio.sleep(3_100))
        assert self.issuer.calls == calls + 2, "the background has not refreshed the token"
        self.end()

    def end(self) -> None:
        self.run(self.credential.close)
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run(lambda: asyncio.wait(tasks))
        self.loop.close()
        assert self.complaints == []


each_factory = pytest.mark.parametrize(
    "is_eager",
    [
        False,
        pytest.param(True, marks=pytest.mark.skipif(not EAGER, reason="Python 3.12 is the first")),
    ],
    ids=["tasks", "eager tasks"],
)


@each_factory
@pytest.mark.parametrize("life", [None, 3_600], ids=["no token", "a valid token"])
@pytest.mark.parametrize("outcome", ["token", "error"])
def test_leader_on_a_loop(
    everywhere: Everywhere, is_eager: bool, life: float | None, outcome: str
) -> None:
    """An interrupt that stops the loop strands nobody when the loop goes on."""

    def scenario() -> Steps:
        def answer() -> str:
            if life is None:
                scene.ask_beside()
            if outcome == "error":
                raise ConnectionError
            return make_token(scene.clock.wall() + 3_600)

        scene = LoopScene(life, is_eager=is_eager)
        scene.clock.advance(3_500)
        scene.answers.append(answer)
        yield lambda: scene.run(scene.credential.get_token)
        scene.check()

    everywhere(scenario)
