"""What the tests of ``samples/web`` run on: the command that the README shows, as a process of its
own, and a service behind it with users who take part in one chat thread.
"""

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from local_service import LocalService, Thread, as_identifier
from scaffolding import DEADLINE

SAMPLE = Path(__file__).parents[3] / "samples" / "web"
THREAD = "19:meeting@thread.v2"
README = (SAMPLE / "README.md").read_text(encoding="utf-8")


def command_of(program: str) -> tuple[list[str], dict[str, str]]:
    """Return the README's command that runs a program, on any free port, and its environment."""
    [line] = re.findall(rf"^(?:\w+=\S+ )?{program} .*$", README, re.MULTILINE)
    words = shlex.split(line.replace("8000", "0"))
    settings = dict(word.split("=") for word in words[: words.index(program)])
    return [sys.executable, "-m", *words[words.index(program) :]], settings


def settings_of(service: LocalService) -> dict[str, str]:
    """Return the settings that have a process use the service, and trust it."""
    return {
        "COMMUNICATION_SERVICES_CONNECTION_STRING": service.connection_string,
        "SSL_CERT_FILE": service.ca_path,
        "REQUESTS_CA_BUNDLE": service.ca_path,
    }


def add_users(service: LocalService, names: list[str]) -> dict[str, str]:
    """Return new users by name, all of whom take part in ``THREAD``; no token is issued."""
    users = {name: f"8:acs:{service.resource_id}_{name}" for name in names}
    service.live.update({user: set() for user in users.values()})
    thread = service.threads.setdefault(THREAD, Thread({"id": THREAD, "topic": "Meeting"}))
    present = {user: {"communicationIdentifier": as_identifier(user)} for user in users.values()}
    thread.participants.update(present)
    return users


class Server:
    """A process, and what it has printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return "".join(self._lines)

    def wait_for(self, pattern: str, times: int = 1) -> "re.Match[str]":
        """Wait until it has printed something so often, and return the last of these."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = re.finditer(pattern, self.output)
            return len(found) >= times or not self._reader.is_alive()

        with self._changed:
            self._changed.wait_for(look, DEADLINE)
        assert len(found) >= times, self.output
        return found[-1]

    def end(self) -> str:
        """Have it end, as an orchestrator does; return all that it has printed."""
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
        self._reader.join(DEADLINE)
        return self.output

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextmanager
def server(program: str, settings: Mapping[str, str], *options: str) -> Iterator[Server]:
    """Run the README's command; check in the end that nothing failed and no token was shown."""
    command, environment = command_of(program)
    process = subprocess.Popen(
        [*command, *options],
        cwd=SAMPLE,
        env={**os.environ, **settings, **environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Server(process)
    try:
        yield running
    finally:
        output = running.end()
    assert "Traceback" not in output, output
    assert "eyJ" not in output
    assert process.returncode in (0, -15), output


def wait_for(condition: Callable[[], bool], what: str, seconds: float = DEADLINE) -> None:
    """Wait until something has happened in another process."""
    give_up_at, never = time.monotonic() + seconds, threading.Event()
    while not condition():
        assert time.monotonic() < give_up_at, f"{what} has not happened within {seconds} seconds"
        never.wait(0.01)


class Crowd:
    """Threads that call something again and again, one call after the other, until told to stop."""

    def __init__(self, callers: list[Callable[[requests.Session], object]]) -> None:
        self.calls = 0
        self.errors: list[BaseException] = []
        self._stopping = threading.Event()
        self._began = time.monotonic()
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in callers]
        for thread in self._threads:
            thread.start()

    def stop_when(self, condition: Callable[[], bool]) -> float:
        """Wait for a condition, and then for all; return for how many seconds they have called."""
        try:
            wait_for(lambda: bool(self.errors) or condition(), "what the test waits for")
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(DEADLINE)
        if self.errors:
            raise self.errors[0]
        return time.monotonic() - self._began

    def _run(self, call: Callable[[requests.Session], object]) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stopping.is_set():
                try:
                    call(session)
                except BaseException as error:
                    self.errors.append(error)
                    return
                self.calls += 1


def post(session: requests.Session, url: str, account: str, body: Any = None) -> Any:
    """Call a web app as an account that has signed in, and return the JSON of its answer."""
    headers = {"X-MS-CLIENT-PRINCIPAL-ID": account}
    answer = session.post(url, json=body, headers=headers, timeout=DEADLINE)
    assert answer.ok, f"{answer.status_code} {answer.text}"
    return answer.json()


def tokens_sent(service: LocalService) -> set[str]:
    """Return the different tokens with which chat was called."""
    chat = [each for each in list(service.requests) if each.target.startswith("/chat/")]
    return {each.headers["Authorization"] for each in chat}


def assert_token_is_not_cached(url: str) -> None:
    """Check that an app lets no cache keep the token that it gives to a user."""
    headers = {"X-MS-CLIENT-PRINCIPAL-ID": "alice"}
    answer = requests.post(f"{url}/token", headers=headers, timeout=10)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["token"].startswith("eyJ")


def status_for(url: str, thread: str, body: bytes) -> int:
    """Return the status with which an app answers a message of a user, valid or not."""
    headers = {"X-MS-CLIENT-PRINCIPAL-ID": "alice", "Content-Type": "application/json"}
    target = f"{url}/threads/{thread}/messages"
    return requests.post(target, data=body, headers=headers, timeout=10).status_code
