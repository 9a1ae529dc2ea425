"""A Redis that is down, hangs, is slow or answers by errors: no request fails, and none waits for
long. Members of a fleet within one process; the times that are measured are real.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken

import shared_token_cache
from scaffolding import DEADLINE, Clock, call_together
from shared_cache.fleet import KEYS, START, Ledger, Member, RedisServer, SlowClient
from shared_token_cache import name_of

USERS = [f"8:acs:resource_user-{number}" for number in range(50)]
KEY = name_of(KEYS, USERS[0])

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
    run_script, seen = member.cache._client.eval, []

    def ask_beside(*args: Any) -> Any:
        seen.append(member.cache._retry_at - patience.mono())
        return run_script(*args)

    member.cache._client.eval = ask_beside
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


WRONG_VALUES = {
    "a list": ["lpush", KEY, "value"],
    "a hash": ["hset", KEY, "field", "value"],
    "a megabyte": ["setrange", KEY, "1048576", "x"],
    "too long by a byte": ["setrange", KEY, "16384", "x"],
    "nothing": ["set", KEY, ""],
}


@pytest.mark.parametrize("command", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_value_of_another_kind(
    join: Join,
    ledger: Ledger,
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    command: list[str],
) -> None:
    """A value of another type or size, under one user's key, is replaced; Redis stays in use."""
    server.cli(*command)
    first, second = join(), join()
    for user in USERS[:2]:
        assert first.get_token(user) == second.get_token(user)
    assert ledger.total == 2
    assert first.cache._retry_at == second.cache._retry_at == 0
    sent = re.search(r"total_net_output_bytes:(\d+)", server.cli("info", "stats"))
    assert sent
    assert int(sent[1]) < 50_000  # it was not sent to anybody
    assert [record.getMessage() for record in caplog.records] == [
        "Redis held a value that none of the keys decrypts; dropped."
    ]


def test_longest_token(join: Join, ledger: Ledger) -> None:
    """A token of eight thousand characters, the most that servers take in a header, is shared."""
    first, second = join(), join()
    first.issue = lambda user: AccessToken("x" * 8190, int(START) + 3600)
    assert first.get_token(USERS[0]) == second.get_token(USERS[0])
    assert ledger.total == 0


@pytest.mark.parametrize("command", [["lpush", KEY, "value"], ["setrange", KEY, "99999", "x"]])
def test_value_that_changes_while_a_token_is_issued(
    join: Join, ledger: Ledger, server: RedisServer, command: list[str]
) -> None:
    """If another kind of value gets there meanwhile, the next request replaces it."""
    member = join()
    issue = member.issue

    def replace_and_issue(user: str) -> object:
        server.cli(*command)
        return issue(user)

    member.issue = replace_and_issue
    member.get_token(USERS[0])
    assert member.cache._retry_at == 0
    newcomer = join()
    assert newcomer.get_token(USERS[0]) == join().get_token(USERS[0])
    assert ledger.total == 2


LOCKS = {
    "forever": ["set", f"{KEY}:lock", "x"],
    "for a day": ["set", f"{KEY}:lock", "x", "ex", "86400"],
    "for two seconds too long": ["set", f"{KEY}:lock", "x", "px", "12000"],
    "by a list": ["lpush", f"{KEY}:lock", "x"],
}


@pytest.mark.parametrize("command", LOCKS.values(), ids=LOCKS)
def test_lock_that_does_not_expire_in_time(
    join: Join, ledger: Ledger, server: RedisServer, command: list[str]
) -> None:
    """Nobody waits for a lock that none of us would have set."""
    server.cli(*command)
    member, naps = join(), []
    member.cache._sleep = naps.append
    token = member.get_token(USERS[0])
    assert naps == []
    assert join().get_token(USERS[0]) == token
    assert ledger.total == 1
    assert server.cli("exists", f"{KEY}:lock") == "0"


def test_options_go_to_the_client(keys: str, server: RedisServer) -> None:
    """What redis-py offers can be used, also in place of what the cache sets."""
    cache = shared_token_cache.SharedTokenCache(server.url, keys, db=3, socket_timeout=DEADLINE)
    options = cache._client.connection_pool.connection_kwargs
    cache.close()
    assert options["db"] == 3
    assert options["socket_timeout"] == DEADLINE
    assert options["socket_connect_timeout"] == 0.2
    assert options["retry"] is None
