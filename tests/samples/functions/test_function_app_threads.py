"""One async credential in six threads of the worker's pool at once, each with ``asyncio.run``.

A credential with an ``asyncio.Lock`` answers one of six such invocations, fails most others because
the lock is bound to a different event loop, and never ends the rest.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import InstanceClock, Room
    from functions_host import FunctionsHost
    from local_service import LocalService

DAY = 86400  # seconds that a token lives


@pytest.fixture
def six_threads(worker: Any, settings: dict[str, str]) -> Iterator[FunctionsHost]:
    """Load the app of this test in a worker with six threads."""
    settings = {**settings, "PYTHON_THREADPOOL_THREAD_COUNT": "6"}
    with worker.FunctionsHost(Path(__file__).with_name("threads_app"), settings) as host:
        yield host


@pytest.mark.parametrize("credential", ["proactive", "on-demand"])
def test_async_credential_serves_six_threads_at_once(
    six_threads: FunctionsHost,
    room: Room,
    service: LocalService,
    clock: InstanceClock,
    credential: str,
) -> None:
    """Cold, after a revocation and after an expiry, six loops of their own share one refresh."""
    call = ("POST", f"/api/six/{credential}/{room.thread}", None)

    def invoke() -> Counter[int]:
        return Counter(reply.status for reply in six_threads.requests([call] * 6))

    assert invoke() == {200: 6}
    first = service.issued[room.user]  # the proactive credential has fetched one in any case
    service.revoke(room.user)
    assert invoke() == {200: 6}
    assert service.issued[room.user] == first + 1
    clock.advance(DAY + 1)  # expiries are rounded up
    assert invoke() == {200: 6}
    assert service.issued[room.user] == first + 2


def test_async_credential_serves_threads_and_the_loop_at_once(
    six_threads: FunctionsHost, room: Room, service: LocalService, clock: InstanceClock
) -> None:
    """Async functions on the worker's loop share the refresh with those in the threads."""
    loop = ("POST", f"/api/loop/proactive/{room.thread}", None)
    six = ("POST", f"/api/six/proactive/{room.thread}", None)
    calls = [loop] * 7 + [six] * 6 + [loop] * 7
    for tokens in (1, 2):
        replies = six_threads.requests(calls)
        assert Counter(reply.status for reply in replies) == {200: 20}
        assert service.issued[room.user] == tokens
        clock.advance(DAY + 1)
