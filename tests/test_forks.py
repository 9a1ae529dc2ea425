"""Forks of a process whose background threads import, or refresh a token.

A child that is forked while another thread imports a module waits forever when it needs that
module, because the thread that holds the module's lock does not exist there.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaffolding import DEADLINE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

TESTS = Path(__file__).parent

BACKGROUND = """
import logging, os, select, sys, threading, time, warnings
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken

class Finder:
    \"""Has every import of another thread take its time, for the main thread to fork.\"""

    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            imported.append(name)
            is_busy.set()
            time.sleep(0.3)

class Handler(logging.Handler):
    def emit(self, record):
        is_busy.set()

class EntraUser:
    def get_token(self, *scopes, **kwargs):
        return AccessToken("entra-token", 4_000_000_000)

def refresh():
    if "is_child" in globals():
        return token
    try:
        return token
    finally:
        threading.Timer(0.1, is_busy.set).start()

# {"exp": 4000000000}
token = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQwMDAwMDAwMDB9.c2ln"
imported, is_busy = [], threading.Event()
forms = {
    "callback": {"token_refresher": refresh},
    "Entra": {
        "resource_endpoint": "https://127.0.0.1:9",
        "token_credential": EntraUser(),
        "retry_total": 0,
    },
}
logger = logging.getLogger("azure.communication.common")
logger.addHandler(Handler())
logger.propagate = False
threading.Timer(0, int).start()  # what threads and logging themselves import late
logger.warning("")
is_busy.clear()
sys.meta_path.insert(0, Finder())
credential = CommunicationTokenCredential(proactive_refresh=True, **forms[sys.argv[1]])
assert is_busy.wait(20)
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
reader, writer = os.pipe()
child = os.fork()
if not child:
    is_child = True
    try:
        credential.get_token()
    except Exception as error:
        os.write(writer, type(error).__name__.encode())
    else:
        os.write(writer, b"a token")
    os._exit(0)
is_ready = select.select([reader], [], [], 10)[0]
print(os.read(reader, 100).decode() if is_ready else "hung", imported)
if not is_ready:
    os.kill(child, 9)
os.waitpid(child, 0)
"""


def run(*arguments: str) -> str:
    """Run Python, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("form", "outcome"), [("callback", "a token"), ("Entra", "ServiceRequestError")]
)
def test_background_threads_import_nothing(form: str, outcome: str) -> None:
    """What they will need is loaded on the thread that makes the credential, before they start.

    The child, forked while another thread imports, if one does, gets an answer.
    """
    assert run("-c", BACKGROUND, form) == f"{outcome} []\n"


@pytest.mark.parametrize("how", ["with-hook", "without-hook"])
def test_no_child_hangs(how: str) -> None:
    """Children that are forked while other threads import and refresh get a token at once."""
    output = run(str(TESTS / "forks.py"), "20", how)
    assert output == "20 forks, 0 hung, background: True\n"
