"""One credential for each of many users, sync and aio, of which a bounded number is kept."""

import asyncio
import gc
import os
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest
from azure.communication.common import CommunicationTokenCredential, aio

from scaffolding import Issuer, call_together, run_async
from web.user_credentials import UserCredentials

FORMS = {"sync": CommunicationTokenCredential, "aio": aio.CommunicationTokenCredential}

Cached = UserCredentials[Any]


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def credentials(request: pytest.FixtureRequest) -> Cached:
    """Credentials of three users at most."""
    return UserCredentials(lambda user: request.param(token_refresher=Issuer()), size=3)


def test_one_for_each_user(credentials: Cached) -> None:
    """A user has the same credential every time, and no other user has it."""
    first = credentials.get("a")
    assert credentials.get("b") is not first
    assert credentials.get("a") is first


def test_least_recently_used_makes_room(credentials: Cached) -> None:
    """Beyond the size, the one that was not used for longest is gone, and the others stay."""
    kept = {user: weakref.ref(credentials.get(user)) for user in "abc"}
    credentials.get("a")
    credentials.get("d")
    gc.collect()
    assert [user for user, reference in kept.items() if reference() is None] == ["b"]
    assert credentials.get("a") is kept["a"]()
    assert credentials.get("c") is kept["c"]()


def test_one_that_makes_room_can_still_be_used() -> None:
    """A request that holds a credential gets its token, though others have come meanwhile."""
    made = UserCredentials(lambda _: CommunicationTokenCredential(token_refresher=Issuer()), size=1)
    held = made.get("a")
    made.get("b")
    assert held.get_token() is held.get_token()
    assert made.get("a") is not held


def test_threads_that_are_first_together() -> None:
    """They get the same credential, however long it takes to make it."""
    together, made = threading.Barrier(2), []

    def create(user: str) -> object:
        made.append(user)
        with suppress(threading.BrokenBarrierError):  # as nobody else comes here meanwhile
            together.wait(0.2)
        return object()

    credentials = UserCredentials(create, size=3)
    calls = call_together(8, lambda: credentials.get("a"))
    assert len({id(call.value()) for call in calls}) == 1
    assert made == ["a"]


def test_one_refresh_for_all_requests_of_a_user() -> None:
    """On an event loop, requests of one user that come at once cause one issue."""
    issuer = Issuer()
    credentials = UserCredentials(
        lambda user: aio.CommunicationTokenCredential(token_refresher=issuer.issue), size=3
    )

    async def request() -> str:
        token: str = (await credentials.get("a").get_token()).token
        return token

    async def main() -> list[str]:
        return await asyncio.gather(*(request() for _ in range(20)))

    assert len(set(run_async(main()))) == 1
    assert issuer.calls == 1


def test_clear(credentials: Cached) -> None:
    """Nothing is kept afterwards, and each user gets a new one."""
    reference = weakref.ref(credentials.get("a"))
    credentials.clear()
    gc.collect()
    assert reference() is None
    assert credentials.get("a") is credentials.get("a")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of threads of other tests
def test_child_of_a_fork_goes_on() -> None:
    """A forked child has the credential with its token, and can make others."""
    issuer = Issuer()
    credentials = UserCredentials(
        lambda user: CommunicationTokenCredential(token_refresher=issuer), size=3
    )
    token = credentials.get("a").get_token()
    child = os.fork()
    if child == 0:
        is_same = credentials.get("a").get_token() == token
        os._exit(0 if is_same and credentials.get("b").get_token() != token else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert issuer.calls == 1
