"""The Functions sample with a service behind it: called directly, or loaded by the real worker.

The worker library needs Python 3.13. Where ``FUNCTIONS_WORKER_REQUIRED`` is set, its absence is an
error, and elsewhere its tests are skipped.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp.connector
import pytest
from azure.communication.chat import ChatClient
from azure.communication.common import CommunicationTokenCredential
from azure.communication.identity import CommunicationIdentityClient

from local_service import LocalService
from scaffolding import LoopScheduler, aio_scheduler, cache_module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from functions_host import FunctionsHost

HERE = Path(__file__).parent
SAMPLE = HERE.parents[2] / "samples/azure_functions"

sys.path.insert(0, str(HERE))  # for functions_host and its like


class InstanceClock:
    """The clocks of the instance and of the service: the real ones, and what a test adds."""

    def __init__(self) -> None:
        self._wall, self._mono = time.time, time.monotonic
        self._passed = self._frozen = 0.0

    def wall(self) -> float:
        """Return Unix time, as ``time.time`` does."""
        return self._wall() + self._passed + self._frozen

    def mono(self) -> float:
        """Return time since some moment, as ``time.monotonic`` does."""
        return self._mono() + self._passed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._passed += seconds

    def freeze(self, seconds: float) -> None:
        """Let time pass while the instance is suspended and its monotonic clock stands still."""
        self._frozen += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> InstanceClock:
    """Have the credentials, azure-core's policies and the service read clocks of our own."""
    clock = InstanceClock()
    monkeypatch.setattr(time, "time", clock.wall)  # read by azure-core
    sources = cache_module.Clock(clock.wall, clock.mono, random.random)
    monkeypatch.setattr(cache_module.CachedTokenCredential, "_clock", sources)
    monkeypatch.setattr(LoopScheduler.__init__, "__defaults__", (sources,))
    return clock


@pytest.fixture
def service(clock: InstanceClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalService]:
    """Run the service, and have this process trust it as SSL_CERT_FILE does from the start."""
    with LocalService(clock=clock.wall, date_tolerance=float("inf")) as service:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", service.ca_path)
        # aiohttp reads SSL_CERT_FILE once, when it is imported, which it has been by now.
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", service.ssl_context)
        yield service


@dataclass(frozen=True)
class Room:
    """A chat thread of the app's own user."""

    user: str  # the raw id
    thread: str

    def post(self, content: str = "Hello", *, sync: bool = False) -> tuple[str, str, object]:
        """Return the request for a message: method, path and body."""
        prefix = "/api/sync" if sync else "/api"
        return "POST", f"{prefix}/threads/{self.thread}/messages", {"content": content}


@pytest.fixture
def room(service: LocalService) -> Room:
    """Make the app's user and a thread, without a trace in the service's counts."""
    identity = CommunicationIdentityClient.from_connection_string(service.connection_string)
    with identity._identity_service_client:  # the client itself has no close
        user, token = identity.create_user_and_token(["chat"])
    # For type checkers, Any: the client's annotations are not right.
    credential: Any = CommunicationTokenCredential(token.token)
    chat: Any = ChatClient(service.endpoint, credential)
    with chat:
        thread = chat.create_chat_thread("A thread").chat_thread.id
    service.issued.clear()
    service.statuses.clear()
    return Room(user.raw_id, thread)


@pytest.fixture
def settings(service: LocalService, room: Room) -> dict[str, str]:
    """Return the app settings that have the sample use the service."""
    return {
        "COMMUNICATION_SERVICES_CONNECTION_STRING": service.connection_string,
        "COMMUNICATION_SERVICES_USER_ID": room.user,
    }


@pytest.fixture
def sample() -> Path:
    """Return the folder of the sample."""
    return SAMPLE


@pytest.fixture
def worker() -> Any:
    """Return the module ``functions_host``, which needs the worker library."""
    if not os.environ.get("FUNCTIONS_WORKER_REQUIRED"):
        reason = "azure-functions-runtime, which needs Python 3.13, is not installed"
        pytest.importorskip("azure_functions_runtime", reason=reason)
    return importlib.import_module("functions_host")


@pytest.fixture
def host(worker: Any, settings: dict[str, str]) -> Iterator[FunctionsHost]:
    """Load the sample in the worker."""
    with worker.FunctionsHost(SAMPLE, settings) as host:
        yield host
        host.run(settle())


async def settle() -> None:
    """End what the sample would continue with: its first refresh, and its connections."""
    await asyncio.gather(*own_scheduler().in_progress)
    await sys.modules["clients"].async_connections().close()


def own_scheduler() -> LoopScheduler:
    """Return the scheduler of the running loop."""
    return aio_scheduler.schedulers[asyncio.get_running_loop()]
