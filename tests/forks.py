"""A process that forks while its background threads import and refresh.

Run by test_forks.py, and by hand: ``python tests/forks.py 400 [without-hook]``. Prints what it did,
and ends with status 1 if a child hangs.
"""

import importlib
import os
import select
import signal
import sys
import threading
import time
import warnings

from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken

from scaffolding import Scheduler

PROMPTLY = 10  # seconds in which a child has to answer, even on a busy machine
CREDENTIALS = 40
MODULES = ("colorsys", "wave", "netrc", "fractions", "csv", "there_is_no_such_module")


def fork() -> int:
    """Fork, and return what ``os.fork`` does."""
    with warnings.catch_warnings():
        # Python 3.12 and newer warn about forks beside threads, which are the subject here.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def main(forks: int, without_hook: bool) -> int:
    """Fork repeatedly, and return how many children hung."""
    if without_hook:  # as in uWSGI, which forks in C
        Scheduler.look_after_fork = lambda self: None  # type: ignore[method-assign]
    refreshed: set[str] = set()

    def refresh() -> AccessToken:
        refreshed.add(threading.current_thread().name)
        return AccessToken(f"token {time.monotonic()}", int(time.time()) + 2)

    credentials = [
        CommunicationTokenCredential(token_refresher=refresh, proactive_refresh=True)
        for _ in range(CREDENTIALS)
    ]
    is_over = threading.Event()

    def import_on_and_on() -> None:
        while not is_over.is_set():
            for name in MODULES:
                sys.modules.pop(name, None)
                try:
                    importlib.import_module(name)
                except ImportError:
                    continue

    importer = threading.Thread(target=import_on_and_on, daemon=True)
    importer.start()
    hung = sum(not answers(credentials) for _ in range(forks))
    is_over.set()
    importer.join()
    print(f"{forks} forks, {hung} hung, background: {'azure-communication-refresh' in refreshed}")
    return hung


def answers(credentials: list[CommunicationTokenCredential]) -> bool:
    """Fork a child that asks each credential for a token, and return whether it does so in time."""
    reader, writer = os.pipe()
    child = fork()
    if not child:
        try:
            for credential in credentials:
                assert credential.get_token().expires_on > time.time()
            os.write(writer, b"y")
        finally:
            os._exit(0)
    os.close(writer)
    ready = select.select([reader], [], [], PROMPTLY)[0]
    if not ready:
        os.kill(child, signal.SIGKILL)
    answer = os.read(reader, 1)
    os.close(reader)
    os.waitpid(child, 0)
    return answer == b"y"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), "without-hook" in sys.argv) > 0)
