"""A Redis server and a ledger for each test of the shared token cache."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scaffolding import Clock, manual_scheduler
from shared_cache.fleet import KEYS, START, Ledger, Member, RedisServer, why_not


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis server of the test's own, started."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:  # short, as sockets' paths must be
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def keys() -> str:
    """One encryption key."""
    return KEYS


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """What counts the issues."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def clock() -> Clock:
    """The clock of all members."""
    return Clock(wall=START)


@pytest.fixture(params=["sync", "aio"])
def join(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    server: RedisServer,
    keys: str,
    ledger: Ledger,
    clock: Clock,
) -> Iterator[Callable[..., Member]]:
    """A function that returns another member of a fleet, with either driver. Nothing refreshes
    ahead but what the test has refreshed.
    """
    manual_scheduler(monkeypatch, clock)
    members = []

    def join(**options: Any) -> Member:
        settings = {"url": server.url, "keys": keys, "ledger": ledger, "clock": clock, **options}
        members.append(Member(asynchronous=request.param == "aio", **settings))
        return members[-1]

    yield join
    for member in members:
        member.close()
