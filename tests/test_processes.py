"""What forked and spawned processes, and the end of the interpreter, do to a credential."""

import asyncio
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from azure.communication.common import CommunicationTokenCredential, aio

from forks import fork
from scaffolding import (
    DEADLINE,
    Call,
    Clock,
    Fault,
    Issuer,
    Scheduler,
    armed_caches,
    cache_of,
    make_token,
    on_clock,
    refresh_ahead,
    run_async,
    state_of,
    sync_scheduler,
    turn_until,
    wait_until,
)

T = TypeVar("T")

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


def in_child(function: Callable[[], T]) -> T:
    """Fork, call a function in the child, and return in the parent what it returned there."""
    reader, writer = os.pipe()
    child = fork()
    if not child:
        try:
            answer = pickle.dumps((function(), None))
        except BaseException:
            answer = pickle.dumps((None, traceback.format_exc()))
        os.write(writer, answer)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        if not select.select([pipe], [], [], DEADLINE)[0]:
            os.kill(child, signal.SIGKILL)
        answer = pipe.read()
    os.waitpid(child, 0)
    assert answer, f"the child has not answered within {DEADLINE} seconds"
    value, error = pickle.loads(answer)
    assert error is None, error
    return value  # type: ignore[no-any-return]


def own_threads() -> int:
    """Return how many threads of the package run in this process."""
    return [thread.name for thread in threading.enumerate()].count("azure-communication-refresh")


def refresh_now() -> None:
    """Wake the scheduler, which does not know that a test has moved the clock."""
    sync_scheduler.scheduler(refresh_ahead).wake()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["at-fork hook", "process id alone"])
def forking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways to notice a fork; the second is all there is under uWSGI, which forks in C."""
    if request.param == "process id alone":
        monkeypatch.setattr(Scheduler, "look_after_fork", lambda _: None)
    return str(request.param)


@pytest.fixture(autouse=True)
def schedulers(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> dict[int, Any]:
    """Have each process make a scheduler that follows the clock, with real threads."""
    fresh: dict[int, Any] = {}
    monkeypatch.setattr(sync_scheduler, "schedulers", fresh)
    monkeypatch.setattr(
        sync_scheduler, "Scheduler", lambda refresh: Scheduler(refresh, clock.sources())
    )
    return fresh


# ---- Fork, synchronous


@needs_fork
@pytest.mark.usefixtures("forking")
def test_a_child_serves_the_inherited_token_and_then_refreshes_for_itself(clock: Clock) -> None:
    """Forked while nothing happens, the child calls the refresher when it needs to."""
    issuer = Issuer(wall=clock.wall)
    first = make_token(clock.wall() + 3_600)
    credential = on_clock(CommunicationTokenCredential, clock)(first, token_refresher=issuer)

    def use() -> tuple[str, str, int]:
        before = credential.get_token().token
        clock.advance(3_600)  # or those beside the leader would get the old one
        after = {call.value().token for call in [Call(credential.get_token) for _ in range(5)]}
        return before, *after, issuer.calls  # type: ignore[return-value]

    before, after, calls = in_child(use)
    assert before == first != after
    assert calls == 1
    assert (credential.get_token().token, issuer.calls) == (first, 0)


@needs_fork
def test_a_child_goes_on_refreshing_ahead(
    clock: Clock, forking: str, schedulers: dict[int, Any]
) -> None:
    """Forked while the scheduler sleeps, the child gets one of its own at first use."""
    issuer = Issuer(wall=clock.wall)
    first = make_token(clock.wall() + 3_600)
    credential = on_clock(CommunicationTokenCredential, clock)(
        first, token_refresher=issuer, proactive_refresh=True
    )
    wait_until(lambda: cache_of(credential).entry > 0)
    entry = cache_of(credential).entry

    def use() -> tuple[list[bool], str]:
        idle = own_threads() == 0
        tokens = [credential.get_token().token]
        armed = list(schedulers) == [os.getpid()] and own_threads() == 1
        clock.advance(3_000)  # after which the process id alone is enough
        tokens.append(credential.get_token().token)
        while credential.get_token().token == first:  # or the parent ends the child
            refresh_now()
        return [idle, armed, tokens == [first, first]], credential.get_token().token

    observed, fresh = in_child(use)
    assert observed == [True, forking == "at-fork hook", True]
    assert fresh != first
    assert (cache_of(credential).entry, credential.get_token().token, issuer.calls) == (
        entry,
        first,
        0,
    )
    assert list(schedulers) == [os.getpid()]
    credential.close()


@needs_fork
@pytest.mark.usefixtures("forking")
def test_a_child_forked_in_the_middle_of_a_refresh_leads_its_own(clock: Clock) -> None:
    """The child waits for no thread that it does not have; the parent is unaffected."""
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer)
    leader = Call(credential.get_token)
    issuer.wait_for_call(1)

    def use() -> tuple[int, int]:
        issuer.release_in_child()
        tokens = {call.value().token for call in [Call(credential.get_token) for _ in range(5)]}
        return len(tokens), issuer.calls

    assert in_child(use) == (1, 2)
    assert len(state_of(credential).refreshes) == 1
    issuer.release()
    assert leader.value() is credential.get_token()
    assert issuer.calls == 1


@needs_fork
@pytest.mark.usefixtures("forking")
def test_a_child_forked_in_the_middle_of_a_background_refresh_leads_its_own(clock: Clock) -> None:
    """The child has a worker of its own do what the parent's worker is at."""
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    first = make_token(clock.wall() + 3_600)
    credential = on_clock(CommunicationTokenCredential, clock)(
        first, token_refresher=issuer, proactive_refresh=True
    )
    clock.advance(3_100)
    refresh_now()
    issuer.wait_for_call(1)

    def use() -> tuple[bool, int]:
        issuer.release_in_child()
        while credential.get_token().token == first:  # or the parent ends the child
            refresh_now()
        return own_threads() >= 1, issuer.calls

    assert in_child(use) == (True, 2)
    assert len(state_of(credential).refreshes) == 1
    assert credential.get_token().token == first
    issuer.release()
    wait_until(lambda: not state_of(credential).refreshes)
    assert credential.get_token().token != first
    assert issuer.calls == 1
    credential.close()


@needs_fork
@pytest.mark.usefixtures("forking")
def test_a_refresher_may_fork(clock: Clock) -> None:
    """A child that the refresher itself forked may ask for a token, and refreshes."""
    in_children = []

    def fork() -> str:
        in_children.append(in_child(lambda: credential.get_token().token))
        return own

    own, fresh = make_token(clock.wall() + 3_600), make_token(clock.wall() + 3_600)
    issuer = Issuer(fork, fresh)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer)
    assert credential.get_token().token == own
    assert in_children == [fresh]
    assert issuer.calls == 1


@needs_fork
@pytest.mark.usefixtures("forking")
def test_unused_workers_of_a_preloading_server_issue_nothing(clock: Clock) -> None:
    """Eight forked children have no thread of the package, even if a refresh is due."""
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credentials = [
        on_clock(CommunicationTokenCredential, clock)(
            make_token(clock.wall() + 3_600), token_refresher=issuer, proactive_refresh=True
        )
        for _ in range(3)
    ]
    credentials.append(
        on_clock(CommunicationTokenCredential, clock)(
            token_refresher=issuer, proactive_refresh=True
        )
    )
    issuer.wait_for_call(1)

    def idle() -> tuple[int, int]:
        clock.advance(3_500)
        issuer.release_in_child()
        return own_threads(), issuer.calls

    def close() -> tuple[int, int]:
        for credential in credentials:
            credential.close()
        return idle()

    assert [in_child(idle) for _ in range(4)] == [(0, 1)] * 4
    assert [in_child(close) for _ in range(4)] == [(0, 1)] * 4
    issuer.release()
    for credential in credentials:
        credential.close()


@needs_fork
@pytest.mark.usefixtures("forking")
@pytest.mark.parametrize("victim", [0, 1], ids=["itself", "another one"])
def test_a_finalizer_may_close_a_credential_at_its_first_use(clock: Clock, victim: int) -> None:
    """What a child does at the first use may be interrupted at any point."""
    issuer = Issuer(wall=clock.wall)
    credentials = [
        on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer) for _ in range(2)
    ]

    def use() -> list[Any]:
        def ask() -> str:
            with fault:
                try:
                    return str(credentials[0].get_token().expires_on)
                except RuntimeError as error:
                    return str(error).partition(":")[0]

        return [Call(ask).value(), repr(credentials[victim]), fault.happened]

    for nth in range(1, 1_000, 13):
        fault = Fault(nth, credentials[victim].close)
        outcome, closed, happened = in_child(use)
        if not happened:
            break
        assert closed == "<CommunicationTokenCredential: closed>"
        expected = {str(int(clock.wall()) + 3_600)}
        if not victim:
            expected.add("The credential has been closed")
        assert outcome in expected
    assert nth > 20


# ---- Fork, asynchronous


@needs_fork
def test_entering_a_credential_in_a_child_arms_it_there(clock: Clock) -> None:
    """The parent's loop seems to run in the child, too."""
    clock.set_wall(time.time())  # which the loops' timers go by
    credential = on_clock(aio.CommunicationTokenCredential, clock)(
        token_refresher=Issuer(wall=clock.wall).issue, proactive_refresh=True
    )

    async def enter() -> bool:
        async with credential:
            for _ in range(3):
                await asyncio.sleep(0)
            return armed_caches() == [cache_of(credential)]

    async def main() -> bool:
        await credential.get_token()
        return bool(in_child(lambda: asyncio.run(enter())))

    assert run_async(main())


@needs_fork
@pytest.mark.parametrize("proactive", [False, True])
@pytest.mark.parametrize("at", ["rest", "a refresh", "a refresh, on its thread"])
def test_a_child_runs_a_loop_of_its_own(clock: Clock, proactive: bool, at: str) -> None:
    """The aio credential is served on the child's loop, whatever the parent's was at."""
    clock.set_wall(time.time())  # which the loops' timers go by
    issuer = Issuer(wall=clock.wall)
    credential = on_clock(aio.CommunicationTokenCredential, clock)(
        token_refresher=issuer.issue, proactive_refresh=proactive
    )

    async def ask() -> int:
        tokens = await asyncio.gather(*(credential.get_token() for _ in range(5)))
        expected = [cache_of(credential)] if proactive else []
        await turn_until(lambda: armed_caches() == expected)
        return len({token.token for token in tokens})

    def use() -> tuple[int, int]:
        issuer.release_in_child()
        return asyncio.run(ask()), issuer.calls

    async def main() -> None:
        if at == "rest":
            await credential.get_token()
            clock.advance(3_601)
        else:
            issuer.hold()
        caller = asyncio.create_task(credential.get_token())
        await turn_until(lambda: issuer.calls == (2 if at == "rest" else 1))
        if at == "rest":
            await caller
        if at == "a refresh":
            answers.append(await asyncio.to_thread(in_child, use))
        elif at == "a refresh, on its thread":
            answers.append(in_child(use))
        if at != "rest":
            issuer.release()
        await caller

    answers: list[tuple[int, int]] = []
    run_async(main())
    calls = issuer.calls
    if at == "rest":
        clock.advance(3_601)
        issuer.hold()
        answers.append(in_child(use))
    assert answers == [(1, calls + 1)]
    assert issuer.calls == calls
    asyncio.run(credential.close())


# ---- Other ways to another process

SCRIPT = """
import json, multiprocessing, sys
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken

def make_credential():
    return CommunicationTokenCredential(
        token_refresher=lambda: AccessToken("issued", 4_000_000_000), proactive_refresh=True
    )

def use(pipe, make):
    with make() as credential:
        pipe.send(credential.get_token().token)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    try:
        context.Process(target=use, args=(None, make_credential())).start()
    except TypeError as error:
        print(error)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=use, args=(sender, make_credential))
    process.start()
    print(receiver.recv())
    process.join()
"""


def run(code: str, *arguments: str) -> str:
    """Run a script in an interpreter of its own and return what it prints to either stream."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments]
        if not code.endswith(".py")
        else [sys.executable, code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_credential_is_made_in_each_process(tmp_path: Path, method: str) -> None:
    """Passing one on is refused with a remedy; one that is created there works."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert run(str(script), method).splitlines() == [
        "A CommunicationTokenCredential cannot be pickled or copied: it holds a secret. Create one "
        "in each process; within a process, share the object itself",
        "issued",
    ]


# ---- The end of the interpreter

PRELUDE = """
import asyncio, atexit, itertools, threading, time
from azure.communication.common import CommunicationTokenCredential, aio
from azure.core.credentials import AccessToken

entered = threading.Event()

def issue(numbers=itertools.count()):
    return AccessToken(f"issued {next(numbers)}", int(time.time()) + 3_600)

def hang():
    entered.set()
    threading.Event().wait()

async def hang_async():
    entered.set()
    await asyncio.Event().wait()

async def wait_until_entered():
    while not entered.is_set():
        await asyncio.sleep(0)
"""

ENDS = {
    "an idle scheduler": """
        credential = CommunicationTokenCredential(
            issue(), token_refresher=issue, proactive_refresh=True
        )
    """,
    "a background refresh that hangs": """
        credential = CommunicationTokenCredential(token_refresher=hang, proactive_refresh=True)
        entered.wait()
    """,
    "callers who wait for a refresh that hangs": """
        credential = CommunicationTokenCredential(token_refresher=hang)
        for _ in range(3):
            threading.Thread(target=credential.get_token, daemon=True).start()
        entered.wait()
    """,
    "a refresh under way on a loop": """
        credential = aio.CommunicationTokenCredential(token_refresher=hang_async)
        async def main():
            caller = asyncio.create_task(credential.get_token())
            await wait_until_entered()
        asyncio.run(main())
    """,
    "a background refresh under way on a loop": """
        credential = aio.CommunicationTokenCredential(
            token_refresher=hang_async, proactive_refresh=True
        )
        async def main():
            async with credential:
                await wait_until_entered()
        asyncio.run(main())
        credential = aio.CommunicationTokenCredential(
            AccessToken("first", int(time.time()) + 2),
            token_refresher=hang_async,
            proactive_refresh=True,
        )
        async def main():
            entered.clear()
            await credential.get_token()
            await wait_until_entered()
        asyncio.run(main())
    """,
    "credentials used by an exit handler": """
        credential = CommunicationTokenCredential(token_refresher=issue, proactive_refresh=True)
        first = credential.get_token()
        other = aio.CommunicationTokenCredential(token_refresher=issue)
        @atexit.register
        def use():
            credential.invalidate_token(first.token)
            assert credential.get_token() != first
            assert asyncio.run(other.get_token()) != first
            credential.close()
    """,
    "credentials used by finalizers": """
        class Client:
            def __init__(self, **options):
                self.credential = CommunicationTokenCredential(token_refresher=issue, **options)
                self.circle = self
            def __del__(self):
                self.credential.get_token()
                self.credential.close()
        clients = [Client(), Client(proactive_refresh=True)]
        for client in clients:
            client.credential.get_token()
            client.credential.invalidate_token(client.credential.get_token().token)
    """,
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_at_once_and_in_silence(end: str) -> None:
    """Nothing delays the end, and nothing is printed on the way."""
    assert run(PRELUDE + textwrap.dedent(ENDS[end])) == ""


# ---- Import


def test_importing_starts_and_loads_nothing() -> None:
    """No thread, no at-fork hook, and no module that azure-core does not load."""
    code = """
        import os, sys, threading
        import azure.core.credentials, azure.core.exceptions
        hooks = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork = lambda **hook: hooks.append(hook)
        before = set(sys.modules)
        from azure.communication.common import CommunicationTokenCredential
        CommunicationTokenCredential(token_refresher=str)
        loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
        heavy = {"jwt", "cryptography", "asyncio", "aiohttp", "requests", "concurrent"}
        print(threading.active_count(), hooks, sorted(loaded & heavy))
    """
    assert run(textwrap.dedent(code)) == "1 [] []\n"
