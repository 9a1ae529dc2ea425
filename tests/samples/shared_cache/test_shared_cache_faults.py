"""A Redis that is down, hangs, is slow or answers by errors: no request fails, and none waits for
long. Members of a fleet within one process; the times that are measured are real.
"""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shared_token_cache
from scaffolding import DEADLINE, Clock, call_together
from shared_cache.fleet import START, Ledger, Member, RedisServer, SlowClient
from shared_token_cache import digest

USERS = [f"8:acs:resource_user-{number}" for number in range(50)]
KEY = f"acs-token:{digest(USERS[0])}"

Join = Callable[..., Member]


@pytest.fixture(params=["sync", "aio"])
def alone(
    request: pytest.FixtureRequest, keys: str, ledger: Ledger, clock: Clock
) -> Iterator[Callable[[str], Member]]:
    """A function that returns a member whose Redis is at a URL, where a user's would look."""
    members = []

    def alone(url: str) -> Member:
        is_async = request.param == "aio"
        members.append(Member(url, keys, ledger, clock, asynchronous=is_async, timeout=0.2))
        return members[-1]

    yield alone
    for member in members:
        member.close()


def time_of_each(member: Member) -> list[float]:
    """Ask for the token of each user, and return how many seconds each took."""
    times = []
    for user in USERS:
        began = time.monotonic()
        member.get_token(user)
        times.append(time.monotonic() - began)
    return times


def test_no_redis_at_all(
    alone: Callable[[str], Member],
    ledger: Ledger,
    clock: Clock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Tokens are issued, roll over and are replaced as without a cache; a warning tells why."""
    member = alone(f"unix://{tmp_path}/nobody.sock")
    for period in range(1, 4):
        for user in USERS:
            assert member.get_token(user).expires_on > clock.wall()
        assert ledger.total == period * len(USERS)
        clock.advance(3500)
    assert len(caplog.records) == 1
    warning = caplog.records[0].getMessage()
    assert warning.startswith("Redis failed, so tokens are issued without it for 30 seconds.")


def test_hanging_redis(
    alone: Callable[[str], Member], ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """One that accepts connections and never answers delays one request, by less than a second."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        times = time_of_each(alone(f"redis://127.0.0.1:{hanging.getsockname()[1]}"))
        assert max(times) < 1
        assert ledger.total == len(USERS)
        assert len(caplog.records) == 1
        hanging.accept()[0].close()
        hanging.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has tried a second time
            hanging.accept()


def test_hanging_redis_and_many_threads(keys: str, ledger: Ledger, clock: Clock) -> None:
    """Requests that come at once wait at the same time, each for less than a second."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hanging:
        url = f"redis://127.0.0.1:{hanging.getsockname()[1]}"
        member = Member(url, keys, ledger, clock, timeout=0.2)
        credentials = [member.credential(user) for user in USERS[:20]]
        unasked = iter(credentials)

        def ask() -> float:
            credential = next(unasked)
            began = time.monotonic()
            credential.get_token()
            return time.monotonic() - began

        calls = call_together(len(credentials), ask)
        assert max(call.value() for call in calls) < 1
        assert ledger.total == len(credentials)
        member.close()


@pytest.mark.parametrize(
    ("seconds", "is_left"), [(0.01, False), (0.05, False), (0.1, True), (0.15, True), (0.19, True)]
)
def test_slow_redis(join: Join, ledger: Ledger, seconds: float, is_left: bool) -> None:
    """However many answers it takes, and however slow each is: no request waits for a second."""
    member, patience = join(timeout=0.2), Clock()
    slow = SlowClient(member.cache._client, patience, seconds)
    member.cache._mono, member.cache._client = patience.mono, slow
    for user in USERS[:3]:
        began = patience.mono()
        member.get_token(user)
        assert patience.mono() - began < 1
    assert ledger.total == 3
    assert bool(member.cache._retry_at) is is_left


def test_redis_that_comes_back(
    join: Join, ledger: Ledger, clock: Clock, server: RedisServer
) -> None:
    """Tokens are shared again as soon as it is tried again."""
    first, second, patience = join(), join(), Clock()
    for member in (first, second):
        member.cache._mono = patience.mono
    assert first.get_token(USERS[0]) == second.get_token(USERS[0])
    server.stop()
    clock.advance(3500)
    assert first.get_token(USERS[0]) != second.get_token(USERS[0])
    assert ledger.total == 3
    server.start()
    patience.advance(30)
    clock.advance(3500)
    assert first.get_token(USERS[0]) == second.get_token(USERS[0])
    assert ledger.total == 4


def test_redis_is_left_alone(join: Join, server: RedisServer) -> None:
    """After an error it is not tried for thirty seconds, whoever asks."""
    member, patience = join(), Clock()
    member.cache._mono = patience.mono
    server.stop()
    member.get_token(USERS[0])
    server.start()
    patience.advance(29)
    member.get_token(USERS[1])
    assert server.cli("dbsize") == "0"
    patience.advance(1)
    member.get_token(USERS[2])
    assert server.cli("dbsize") == "1"


def test_one_request_tries(
    alone: Callable[[str], Member], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When Redis is tried again, only one request may be delayed: those beside it do without."""
    member, patience = alone(f"unix://{tmp_path}/nobody.sock"), Clock()
    member.cache._mono = patience.mono
    member.get_token(USERS[0])
    assert len(caplog.records) == 1
    patience.advance(30)
    get, seen = member.cache._client.get, []

    def ask_beside(key: str) -> Any:
        seen.append(member.cache._retry_at - patience.mono())
        return get(key)

    member.cache._client.get = ask_beside
    member.get_token(USERS[1])
    assert seen == [2]
    assert member.cache._retry_at == patience.mono() + 30
    assert len(caplog.records) == 2


def test_error_after_the_lock(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """When Redis goes away while a token is issued, the token is returned all the same."""
    member = join()
    issue = member.issue

    def stop_and_issue(user: str) -> object:
        server.stop()
        return issue(user)

    member.issue = stop_and_issue
    assert member.get_token(USERS[0]).expires_on == START + 3600
    assert ledger.total == 1


def test_issuer_fails_with_redis(join: Join, server: RedisServer) -> None:
    """When both go away, the error is the issuer's."""
    member = join()

    def fail(user: str) -> str:
        server.stop()
        msg = "the issuer is away"
        raise OSError(msg)

    member.issue = fail
    with pytest.raises(OSError, match="the issuer is away"):
        member.get_token(USERS[0])


def test_value_of_another_type(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """A key that holds no text is an error of Redis, which no request notices."""
    server.cli("lpush", KEY, "value")
    assert join().get_token(USERS[0]).expires_on == START + 3600
    assert ledger.total == 1


def test_options_go_to_the_client(keys: str, server: RedisServer) -> None:
    """What redis-py offers can be used, also in place of what the cache sets."""
    cache = shared_token_cache.SharedTokenCache(server.url, keys, db=3, socket_timeout=DEADLINE)
    options = cache._client.connection_pool.connection_kwargs
    cache.close()
    assert options["db"] == 3
    assert options["socket_timeout"] == DEADLINE
    assert options["socket_connect_timeout"] == 0.2
    assert options["retry"] is None
