"""What the credentials do under gevent, eventlet, trio, uvloop, eager tasks and sub-interpreters.

Each test runs its script in an interpreter of its own, because these libraries change a whole
process. The README next to them says what they show.
"""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

START = """
import asyncio, logging, os, sys, threading, time
from azure.communication.common import CommunicationTokenCredential, aio
from azure.core.credentials import AccessToken

calls, ticks, ticked = [], [0], []

def issue(life=2):
    calls.append(life)
    return AccessToken(f"token {len(calls)}", int(time.time()) + life)

def refresh(life=2):
    before = ticks[0]
    time.sleep(0.3)  # which the library has replaced
    ticked.append(ticks[0] - before)
    return issue(life)

async def refresh_async():
    await asyncio.sleep(0.1)
    return issue()

async def use(credential):
    tokens = await asyncio.gather(*(credential.get_token() for _ in range(5)))
    print("one refresh for all:", len(calls) == 1 and len(set(tokens)) == 1)
    deadline = time.monotonic() + 10
    while len(calls) < 3 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    print("refreshed ahead:", len(calls) >= 3)
    await credential.close()

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message).200s")
"""

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
GREEN = {
    "gevent": """
from gevent import sleep, spawn
def wait_for(thread): return thread.get()
""",
    "eventlet": """
from eventlet import sleep, spawn
def wait_for(thread): return thread.wait()
""",
}
TICKS = """
def tick():
    while True:
        sleep(0.01)
        ticks[0] += 1

def ask_all(credential):
    tokens = [wait_for(t) for t in [spawn(credential.get_token) for _ in range(5)]]
    return len({token.token for token in tokens})

ticker = spawn(tick)
"""
PROACTIVE = """
credential = CommunicationTokenCredential(token_refresher=refresh, proactive_refresh=True)
print("one refresh for all:", ask_all(credential) == 1 == len(calls))
deadline = time.monotonic() + 10
while len(calls) < 3 and time.monotonic() < deadline:
    sleep(0.05)
print("refreshed ahead:", len(calls) >= 3)
print("the hub went on:", min(ticked) >= 2)
credential.close()
"""
WORKS = "one refresh for all: True\nrefreshed ahead: True\n"

each_green = pytest.mark.parametrize("library", list(PATCHES))


def run(*parts: str) -> str:
    """Run a script, and return what it prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "\n".join((*parts, "sys.stdout.flush(); os._exit(0)")),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def need(*modules: str) -> None:
    """Skip the test where one of these is not installed."""
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed")


# ---- Green threads


@each_green
@pytest.mark.parametrize("patched", ["before the import", "after the import"])
def test_patched_before_proactive_refresh(library: str, patched: str) -> None:
    """Callers share a refresh, the background refreshes ahead, and the hub never stands still."""
    need(library)
    parts = (
        [PATCHES[library], START] if patched == "before the import" else [START, PATCHES[library]]
    )
    output = run(*parts, GREEN[library], TICKS, PROACTIVE)
    assert output == f"{WORKS}the hub went on: True\n"


@each_green
def test_patched_after_proactive_refresh_has_begun(library: str) -> None:
    """No other credential is armed; the one that is continues on demand, and nobody hangs."""
    need(library)
    output = run(
        START,
        """
credential = CommunicationTokenCredential(token_refresher=refresh, proactive_refresh=True)
old = credential.get_token()
""",
        PATCHES[library],
        GREEN[library],
        TICKS,
        """
try:
    CommunicationTokenCredential(token_refresher=refresh, proactive_refresh=True)
except RuntimeError as error:
    print(str(error).partition(": ")[2])
while time.time() < old.expires_on:
    sleep(0.1)
print("one token for all:", ask_all(credential) == 1)
print("another one:", credential.get_token().token != old.token)
print("the hub went on:", ticked[-1] >= 2)
""",
    )
    *lines, last = output.splitlines()
    assert last == "the hub went on: True"
    assert "call gevent.monkey.patch_all(), or its equivalent, before that" in lines
    assert "another one: True" in lines
    warning = "WARNING Proactive refresh is off: threading was patched, as gevent does, after"
    assert any(line.startswith(warning) for line in lines)


@each_green
def test_patched_during_a_background_refresh(library: str) -> None:
    """Green threads that wait for the real thread get its token within a second."""
    need(library)
    output = run(
        START,
        """
real_sleep, is_over = time.sleep, []

def refresh_until_told():
    while not is_over:
        real_sleep(0.01)
    return issue(3600)

credential = CommunicationTokenCredential(
    token_refresher=refresh_until_told, proactive_refresh=True
)
while threading.active_count() < 3:
    time.sleep(0.01)
""",
        PATCHES[library],
        GREEN[library],
        """
waiting = [spawn(credential.get_token) for _ in range(5)]
sleep(0.2)
is_over.append(True)
began = time.monotonic()
tokens = [wait_for(t) for t in waiting]
print(len({token.token for token in tokens}), len(calls), time.monotonic() - began < 2)
""",
    )
    assert output.startswith("1 1 True\n")


@each_green
def test_a_real_thread_that_refreshes_wakes_a_green_one(library: str) -> None:
    """A green thread that waits for a refresh on a real one gets its token within a second."""
    need(library)
    pool = {
        "gevent": "import gevent; start = gevent.get_hub().threadpool.spawn",
        "eventlet": "from eventlet import tpool; start = lambda f: spawn(tpool.execute, f)",
    }
    output = run(
        PATCHES[library],
        START,
        GREEN[library],
        TICKS,
        pool[library],
        """
credential = CommunicationTokenCredential(token_refresher=lambda: refresh(3600))
start(credential.get_token)
sleep(0.1)
began = time.monotonic()
print(ask_all(credential) == 1 == len(calls), time.monotonic() - began < 2)
""",
    )
    assert output == "True True\n"


@each_green
def test_the_asynchronous_credential_under_patched_modules(library: str) -> None:
    """An asyncio loop in a patched process is a loop like any other."""
    need(library)
    output = run(
        PATCHES[library],
        START,
        """
async def main():
    await use(aio.CommunicationTokenCredential(
        token_refresher=refresh_async, proactive_refresh=True
    ))

asyncio.run(main())
""",
    )
    assert output == WORKS


# ---- Other loops


def test_trio() -> None:
    """The asynchronous credential says that it needs asyncio; the synchronous one has threads."""
    need("trio")
    output = run(
        START,
        """
import trio

async def main():
    for proactive in (False, True):
        try:
            credential = aio.CommunicationTokenCredential(
                token_refresher=refresh_async, proactive_refresh=proactive
            )
            await credential.get_token()
        except RuntimeError as error:
            print(error)
    credential = CommunicationTokenCredential(token_refresher=refresh, proactive_refresh=True)
    with credential:
        print((await trio.to_thread.run_sync(credential.get_token)).token)

trio.run(main)
""",
    )
    *errors, token = output.splitlines()
    assert (
        errors
        == [
            "the credential of azure.communication.common.aio needs a running asyncio event loop: "
            "with trio, use trio-asyncio, or the synchronous credential in a thread"
        ]
        * 2
    )
    assert token == "token 1"


def test_trio_asyncio() -> None:
    """On trio-asyncio's loop the asynchronous credential works, its timers included."""
    need("trio", "trio_asyncio")
    output = run(
        START,
        """
import trio, trio_asyncio

async def main():
    async with trio_asyncio.open_loop():
        credential = aio.CommunicationTokenCredential(
            token_refresher=refresh_async, proactive_refresh=True
        )
        await trio_asyncio.aio_as_trio(use)(credential)

trio.run(main)
""",
    )
    assert output == WORKS


@pytest.mark.parametrize("how", ["uvloop", "eager tasks"])
def test_other_loops_and_tasks(how: str) -> None:
    """Callers share a refresh, and the loop's timers refresh ahead."""
    if how == "uvloop":
        need("uvloop")
        runner = "import uvloop; uvloop.run(main())"
    else:
        if sys.version_info < (3, 12):
            pytest.skip("asyncio has no eager tasks yet")
        runner = """
with asyncio.Runner() as runner:
    runner.get_loop().set_task_factory(asyncio.eager_task_factory)
    runner.run(main())
"""
    output = run(
        START,
        """
async def main():
    await use(aio.CommunicationTokenCredential(
        token_refresher=refresh_async, proactive_refresh=True
    ))
""",
        runner,
    )
    assert output == WORKS


@pytest.mark.parametrize("how", ["the caller", "everything"])
def test_cancellation_on_uvloop(how: str) -> None:
    """A cancelled call changes nothing for others; when all are cancelled, the next call works."""
    need("uvloop")
    output = run(
        START,
        f"""
import uvloop

async def main():
    credential = aio.CommunicationTokenCredential(token_refresher=refresh_async)
    tasks = [asyncio.ensure_future(credential.get_token()) for _ in range(2)]
    await asyncio.sleep(0)
    everything = asyncio.all_tasks() - {{asyncio.current_task()}}
    for task in everything if {how == "everything"} else tasks[:1]:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    print([type(end).__name__ for end in ends][:{2 if how == "everything" else 1}])
    print((await asyncio.wait_for(credential.get_token(), 5)).token)

uvloop.run(main())
""",
    )
    count = 2 if how == "everything" else 1
    assert output == f"{['CancelledError'] * count}\ntoken 1\n"


# ---- Sub-interpreters

SUBINTERPRETERS = next(
    (name for name in ("_interpreters", "_xxsubinterpreters") if find_spec(name)), None
)


@pytest.mark.skipif(SUBINTERPRETERS is None, reason="this Python has no sub-interpreters")
def test_a_sub_interpreter_has_no_background_thread() -> None:
    """Tokens are refreshed on demand there; a warning says why. Loops need no thread."""
    output = run(
        "import os, sys",
        f"import {SUBINTERPRETERS} as interpreters",
        f"SOURCE = {START!r}",
        '''
SOURCE += """
sys.modules["jwt"] = type(sys)("jwt")  # cryptography, where installed, can't be loaded here
sys.modules["jwt.utils"] = utils = type(sys)("jwt.utils")
utils.base64url_decode = None
credential = CommunicationTokenCredential(token_refresher=refresh, proactive_refresh=True)
print(credential.get_token().token, threading.active_count(), flush=True)

async def main():
    calls.clear()
    await use(aio.CommunicationTokenCredential(
        token_refresher=refresh_async, proactive_refresh=True
    ))
    sys.stdout.flush()

asyncio.run(main())
"""
failure = interpreters.run_string(interpreters.create(), SOURCE)
if failure is not None:
    print(failure)
''',
    )
    warning, *lines = output.splitlines()
    assert warning.startswith("WARNING Proactive refresh is off: no thread could be started (")
    assert lines == ["token 1 1", *WORKS.splitlines()]
