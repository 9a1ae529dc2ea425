"""A fleet of real processes on one Redis, half of them asyncio: how many tokens are issued."""

from collections.abc import Callable, Iterator

import pytest

from scaffolding import wait_until
from shared_cache.fleet import Fleet, Ledger, RedisServer, Report, why_not

SIZE = 8
USERS = [f"8:acs:resource_user-{number}" for number in range(200)]


@pytest.fixture(scope="module")
def processes() -> Iterator[Fleet]:
    """Eight processes, for all tests of the module: starting them takes the most time."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    fleet = Fleet(SIZE)
    yield fleet
    fleet.close()


Join = Callable[..., None]


@pytest.fixture
def join(processes: Fleet, server: RedisServer, keys: str, ledger: Ledger) -> Iterator[Join]:
    """A function that makes a process a member of the fleet."""

    def join(number: int, **options: float) -> None:
        arguments = (server.url, keys, ledger.path)
        is_async = bool(number % 2)
        processes.call("join", *arguments, who=[number], asynchronous=is_async, **options)

    yield join
    processes.call("leave")


@pytest.fixture
def fleet(processes: Fleet, join: Join) -> Fleet:
    """The processes, all of them members of one fleet."""
    for number in range(SIZE):
        join(number)
    return processes


def test_one_issue_for_each_user_and_period(fleet: Fleet, ledger: Ledger) -> None:
    """24,000 requests of eight processes for 200 users, in five periods: 1,000 issues."""
    total = Report()
    for _ in range(5):
        total += fleet.ask(USERS, times=2)
        fleet.advance(1700)
        total += fleet.ask(USERS)  # nobody has a reason to refresh
        fleet.advance(1800)
    assert total.failures == []
    assert total.expired == 0
    assert total.warnings == 0
    assert total.requests == 24_000
    counts = ledger.counts()
    assert set(counts.values()) == {1}
    assert len(counts) == len(USERS) * 5


def test_wrong_clocks(processes: Fleet, join: Join, ledger: Ledger) -> None:
    """With clocks up to a minute wrong there are as many issues, and no token has expired."""
    fleet = processes
    for number, wrong_by in enumerate([-60, -45, -30, -5, 0, 15, 30, 45]):
        join(number, wrong_by=wrong_by)
    total = Report()
    for _ in range(4):
        total += fleet.ask(USERS[:50])
        fleet.advance(3540)  # the slowest clock sees two minutes left, the fastest a quarter
    assert total.failures == []
    assert total.expired == 0
    assert ledger.total == 4 * 50


def ask_and_interrupt(fleet: Fleet, ledger: Ledger, act: Callable[[], None]) -> Report:
    """Have all processes ask in a new period, and act once it has issued a hundred tokens."""
    fleet.advance(3500)
    before = ledger.total
    asking = fleet.begin("ask", USERS, 1)
    wait_until(lambda: ledger.total >= before + 100)
    act()
    return sum(fleet.end(asking), Report())


def test_restart_of_redis(fleet: Fleet, server: RedisServer, ledger: Ledger) -> None:
    """Redis stops and starts while all processes ask: no request fails, then all share again."""
    fleet.call("set", "BREAK_SECONDS", 0)
    total = fleet.ask(USERS)
    assert ledger.total == len(USERS)
    stopping = ask_and_interrupt(fleet, ledger, server.stop)
    stopped = ledger.total
    assert stopping.warnings > 0
    assert 2 * len(USERS) < stopped < (1 + SIZE) * len(USERS)  # neither all nor none are shared
    starting = ask_and_interrupt(fleet, ledger, server.start)
    before = ledger.total
    assert starting.warnings > 0
    assert before < stopped + SIZE * len(USERS)  # some are shared again
    total += stopping + starting
    fleet.advance(3500)
    total += fleet.ask(USERS)
    fleet.call("set", "BREAK_SECONDS", 30)
    assert ledger.total == before + len(USERS)
    assert total.failures == []
    assert total.expired == 0


def test_no_redis(fleet: Fleet, server: RedisServer, ledger: Ledger) -> None:
    """Redis is down all the time: each process issues its own tokens, and warns once."""
    server.stop()
    total = Report()
    for _ in range(3):
        total += fleet.ask(USERS)
        fleet.advance(3500)
    assert total.failures == []
    assert total.expired == 0
    assert total.requests == 4800
    assert total.warnings == SIZE
    assert ledger.total == 4800


def test_hanging_redis(processes: Fleet, join: Join, server: RedisServer, ledger: Ledger) -> None:
    """Redis stops answering: in each process one request is delayed, by less than a second."""
    for number in range(SIZE):
        join(number, timeout=0.2)
    server.pause()
    report = processes.ask(USERS)
    server.resume()
    assert report.failures == []
    assert report.longest < 1
    assert report.warnings == SIZE
    assert ledger.total == SIZE * len(USERS)


def test_killed_holders(fleet: Fleet, ledger: Ledger) -> None:
    """Two processes die by SIGKILL while they hold a lock: two more tokens are issued, no more, and
    no request of the others fails.
    """
    killed, others = [0, 1], range(2, SIZE)
    fleet.call("set", "LOCK_SECONDS", 5)  # ten would be five more to wait here
    for number in killed:
        fleet.call("hang_in_issue", USERS[number], ledger.path, who=[number])
        fleet.begin("ask", [USERS[number]], 1, who=[number])
    wait_until(lambda: ledger.total == len(killed))
    asking = fleet.begin("ask", USERS, 1, who=others)
    for number in killed:
        fleet.kill(number)
    report = sum(fleet.end(asking), Report())
    fleet.call("set", "LOCK_SECONDS", 10)
    assert report.failures == []
    assert report.requests == len(others) * len(USERS)
    counts = ledger.counts()
    assert counts.pop("hanging 0") == len(killed)
    assert set(counts.values()) == {1}
    assert len(counts) == len(USERS)
