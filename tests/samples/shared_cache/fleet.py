"""What the tests of ``samples/shared_token_cache`` run on: a Redis server of their own, members of
a fleet within one process, and a fleet of real processes. All of them tell the time by a clock that
only the test moves; a ledger on disk counts the tokens that they issue.
"""

import asyncio
import logging
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.communication.common import CommunicationTokenCredential, aio
from azure.core.credentials import AccessToken
from cryptography.fernet import Fernet

import shared_token_cache
from scaffolding import (
    DEADLINE,
    Clock,
    aio_credential,
    cache_of,
    loop_scheduler,
    make_token,
    on_clock,
    refresh_ahead,
)
from shared_token_cache import AsyncSharedTokenCache, SharedTokenCache

KEYS = Fernet.generate_key().decode()
START = 4_000_000_000.0  # in the future, so that no token has really expired


class RedisServer:
    """A server on a Unix socket, which forgets everything when it stops.

    With ``tcp``, its URL is that of a port on the loopback interface.
    """

    def __init__(self, folder: Path, *, tcp: bool = False) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._port = 0
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._port = free.getsockname()[1]
            self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "unixsocket": str(self._socket),
            "save": "",
            "appendonly": "no",
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        self._process = subprocess.Popen(
            ["redis-server", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        deadline = threading.Timer(DEADLINE, self._process.kill)
        deadline.start()
        is_ready = any("ready to accept" in line.lower() for line in self._process.stdout)
        deadline.cancel()
        assert is_ready, "redis-server does not start"

    def stop(self) -> None:
        """Stop it, even if it is paused or has been stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        """Let it hang: the kernel accepts connections and requests, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def cli(self, *arguments: str) -> str:
        """Return what ``redis-cli`` prints."""
        command = ["redis-cli", "-s", str(self._socket), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE, check=True
        ).stdout.strip()


def why_not() -> str | None:
    """Return why there can be no server here, or None."""
    missing = [name for name in ("redis-server", "redis-cli") if shutil.which(name) is None]
    return f"there is no {' and no '.join(missing)} here" if missing else None


class Ledger:
    """Issues tokens for all processes, and has a line on disk for each."""

    def __init__(self, path: Path, life: int = 3600) -> None:
        self.path, self._life = path, life
        path.touch()

    def note(self, user: str, now: float) -> None:
        """Count an issue. The line is written in one piece, whoever else writes."""
        with self.path.open("a") as file:
            file.write(f"{user} {now:.0f}\n")

    def issue(self, user: str, now: float) -> str:
        """Issue a token that lives for ``life`` seconds from then on."""
        self.note(user, now)
        return make_token(now + self._life, sub=user, process=os.getpid())

    def counts(self) -> Counter[str]:
        """Return how many tokens were issued for each user at each time, as "user time"."""
        return Counter(self.path.read_text().splitlines())

    @property
    def total(self) -> int:
        """How many tokens were issued."""
        return self.counts().total()


class Member:
    """One process of a fleet, as far as the cache can tell: it has a cache and credentials of its
    own, synchronous or asynchronous.
    """

    def __init__(
        self,
        url: str,
        keys: str,
        ledger: Ledger,
        clock: Clock,
        *,
        asynchronous: bool = False,
        proactive: bool = False,
        timeout: float = 10,  # as long as a busy machine may take to answer
    ) -> None:
        self._loop = asyncio.new_event_loop() if asynchronous else None
        if self._loop is not None:
            loop_scheduler(self._loop, clock)
        cache = AsyncSharedTokenCache if asynchronous else SharedTokenCache
        on_time = type("Cache", (cache,), {"_wall": staticmethod(clock.wall)})
        self.cache: Any = on_time(url, keys, timeout=timeout)
        credential = aio.CommunicationTokenCredential if asynchronous else None
        self._type: Any = on_clock(credential or CommunicationTokenCredential, clock)
        self._proactive = proactive
        self._credentials: dict[str, Any] = {}
        self.issue: Callable[[str], Any] = lambda user: ledger.issue(user, clock.wall())

    def credential(self, user: str) -> Any:
        """Return the credential of a user, which asks for its first token when it is used."""
        if user not in self._credentials:
            refresher = self.cache.refresher(user, lambda: self.issue(user))
            self._credentials[user] = self._type(
                token_refresher=refresher, proactive_refresh=self._proactive
            )
        return self._credentials[user]

    def get_token(self, user: str, **options: Any) -> AccessToken:
        """Ask a user's credential for a token."""
        token: AccessToken = self._settle(self.credential(user).get_token(**options))
        return token

    def refuse(self, user: str, token: AccessToken) -> None:
        """Tell a user's credential that the service refused a token."""
        self.credential(user).invalidate_token(token.token)

    def refresh_ahead(self, user: str) -> None:
        """Do what the background does when it finds a user's token due."""
        cache = cache_of(self.credential(user))

        async def refresh() -> None:
            task = aio_credential.refresh_ahead(cache)
            if task is not None:
                await task

        if self._loop is None:
            refresh_ahead(cache)
        else:
            self._loop.run_until_complete(refresh())

    def forget(self) -> None:
        """Drop all credentials, as a process that starts again does."""
        for credential in self._credentials.values():
            self._settle(credential.close())
        self._credentials.clear()

    def close(self) -> None:
        """Close the credentials and the cache."""
        self.forget()
        self._settle(self.cache.close())
        if self._loop is not None:
            self._loop.run_until_complete(asyncio.sleep(0))  # for closed transports
            self._loop.close()

    def _settle(self, result: Any) -> Any:
        if self._loop is None or result is None:
            return result
        return self._loop.run_until_complete(result)


class SlowClient:
    """A client of Redis, each of whose operations takes some time by a clock that a test moves."""

    def __init__(self, client: Any, clock: Clock, seconds: float) -> None:
        self._client, self._clock, self._seconds = client, clock, seconds

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._client, name)

        def late(*args: Any, **options: Any) -> Any:
            self._clock.advance(self._seconds)
            return operation(*args, **options)

        return late if name == "eval" else operation


@dataclass
class Report:
    """What a process has to say about the tokens that it asked for."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    expired: int = 0
    longest: float = 0.0  # seconds that one request took
    warnings: int = 0  # of the cache

    def __add__(self, other: "Report") -> "Report":
        return Report(
            self.requests + other.requests,
            self.failures + other.failures,
            self.expired + other.expired,
            max(self.longest, other.longest),
            self.warnings + other.warnings,
        )


class Fleet:
    """Processes with one member each. A call goes to all of them, or to ``who``, at once."""

    def __init__(self, size: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._now = self._context.RawValue("d", START)
        self._lines, self._processes = [], []
        for number in range(size):
            line, process = self._start(number)
            self._lines.append(line)
            self._processes.append(process)

    def _start(self, number: int) -> tuple[Any, Any]:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._now, number)
        process = self._context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def advance(self, seconds: float) -> None:
        """Let time pass for all of them."""
        self._now.value += seconds

    def begin(
        self, what: str, *arguments: Any, who: Iterable[int] | None = None, **options: Any
    ) -> list[int]:
        """Have a method of :class:`_Worker` called."""
        chosen = list(range(len(self._lines)) if who is None else who)
        for number in chosen:
            self._lines[number].send((what, arguments, options))
        return chosen

    def end(self, chosen: Iterable[int]) -> list[Any]:
        """Return what the calls return."""
        results = []
        for number in chosen:
            assert self._lines[number].poll(2 * DEADLINE), f"process {number} does not answer"
            result, error = self._lines[number].recv()
            assert error is None, error
            results.append(result)
        return results

    def call(
        self, what: str, *arguments: Any, who: Iterable[int] | None = None, **options: Any
    ) -> list[Any]:
        """Have a method called, and wait for the results."""
        return self.end(self.begin(what, *arguments, who=who, **options))

    def ask(self, users: list[str], times: int = 1, who: Iterable[int] | None = None) -> Report:
        """Have all of them ask for the users' tokens at once."""
        return sum(self.call("ask", users, times, who=who), Report())

    def kill(self, number: int) -> None:
        """Kill a process by SIGKILL, whatever it is about, and start another in its place."""
        self._processes[number].kill()
        self._processes[number].join(DEADLINE)
        self._processes[number].close()
        self._lines[number].close()
        self._lines[number], self._processes[number] = self._start(number)

    def close(self) -> None:
        """End all processes."""
        for line in self._lines:
            line.close()
        for process in self._processes:
            process.join(DEADLINE)
            process.close()


class _FleetClock(Clock):
    """The fleet's clock; one process's wall clock may be wrong by so many seconds."""

    def __init__(self, now: Any, wrong_by: float) -> None:
        super().__init__()
        self._now, self._wrong_by = now, wrong_by

    def wall(self) -> float:
        return float(self._now.value) + self._wrong_by

    def mono(self) -> float:
        return float(self._now.value)


class _Worker(logging.Handler):
    """What runs in each process of a fleet."""

    def __init__(self, now: Any, number: int) -> None:
        super().__init__(logging.WARNING)
        self._now, self._random = now, random.Random(number)
        self._member: Member | None = None
        self._warnings = 0
        logging.getLogger("shared_token_cache").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._warnings += 1

    def join(self, url: str, keys: str, ledger: Path, wrong_by: float = 0, **options: Any) -> None:
        """Become a member of a fleet."""
        self.leave()
        clock = _FleetClock(self._now, wrong_by)
        self._member = Member(url, keys, Ledger(ledger), clock, **options)

    def leave(self) -> None:
        if self._member is not None:
            self._member.close()
        self._member = None

    def set(self, name: str, value: float) -> None:
        """Set one of the cache's constants."""
        setattr(shared_token_cache, name, value)

    def hang_in_issue(self, user: str, ledger: Path) -> None:
        """Never come back from the issue of this user's token."""
        assert self._member is not None
        issue = self._member.issue

        def hang(asked_for: str) -> Any:
            if asked_for == user:
                Ledger(ledger).note("hanging", 0)
                threading.Event().wait()
            return issue(asked_for)

        self._member.issue = hang

    def ask(self, users: list[str], times: int) -> Report:
        """Ask for the users' tokens, each so many times, in an order of this process's own."""
        assert self._member is not None
        report, self._warnings = Report(), 0
        for user in self._random.sample(users, len(users)):
            for _ in range(times):
                report.requests += 1
                began = time.monotonic()
                try:
                    token = self._member.get_token(user)
                except Exception:
                    report.failures.append(traceback.format_exc())
                else:
                    report.expired += token.expires_on <= self._now.value
                report.longest = max(report.longest, time.monotonic() - began)
        report.warnings = self._warnings
        return report


def _serve(line: Any, now: Any, number: int) -> None:
    worker = _Worker(now, number)
    while True:
        try:
            what, arguments, options = line.recv()
        except EOFError:  # the test has ended
            worker.leave()
            return
        try:
            line.send((getattr(worker, what)(*arguments, **options), None))
        except Exception:
            line.send((None, traceback.format_exc()))
