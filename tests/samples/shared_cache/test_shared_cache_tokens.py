"""Members of a fleet within one process, on a real Redis: who issues, and who gets which token."""

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from cryptography.fernet import Fernet

import shared_token_cache
from scaffolding import Call, Clock, make_token
from shared_cache.fleet import KEYS, START, Ledger, Member, RedisServer, SlowClient
from shared_token_cache import DROP, LOCK, READ, Record, name_of, read_keys, seal

USER = "8:acs:resource_user"
KEY = name_of(KEYS, USER)
LOCK_KEY = f"{KEY}:lock"

Join = Callable[..., Member]


def before(member: Member, script: str, act: Callable[[], object]) -> None:
    """Have something happen just before a member next has Redis run a script."""
    client, steps = member.cache._client, [act]
    run_script = client.eval

    def act_and_run(which: str, *args: Any) -> Any:
        while steps and which == script:
            Call(steps.pop()).value()  # on a thread, for the event loop of another member
        return run_script(which, *args)

    client.eval = act_and_run


def test_one_issue_for_all(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """The first member issues, the others and those that start again take its token."""
    first, second = join(), join()
    token = first.get_token(USER)
    assert second.get_token(USER) == token
    second.forget()
    assert second.get_token(USER) == token
    assert ledger.total == 1
    assert server.cli("exists", LOCK_KEY) == "0"


def test_lock_expires(join: Join, server: RedisServer) -> None:
    """While a token is issued, others are kept from it for ten seconds at most."""
    member = join()
    issue, left = member.issue, []

    def look_first(user: str) -> object:
        left.append(int(server.cli("pttl", LOCK_KEY)))
        return issue(user)

    member.issue = look_first
    member.get_token(USER)
    assert 0 < left[0] <= 10_000


def test_users_have_tokens_of_their_own(join: Join) -> None:
    """One user's token is never another's."""
    member = join()
    assert member.get_token(USER).token != member.get_token("8:acs:resource_other").token


def test_roll_over_on_demand(join: Join, ledger: Ledger, clock: Clock) -> None:
    """In the last two minutes whoever asks first issues; the others, and newcomers, follow."""
    first, second, newcomer = join(), join(), join()
    old = first.get_token(USER)
    second.get_token(USER)
    clock.advance(3479)
    assert first.get_token(USER) == old
    clock.advance(1)
    new = first.get_token(USER)
    assert new.expires_on == START + 3480 + 3600
    assert newcomer.get_token(USER) == new
    assert second.get_token(USER) == new
    assert ledger.total == 2


def test_roll_over_proactive(join: Join, ledger: Ledger, clock: Clock) -> None:
    """Ten minutes before expiry, long before the cache would mind, the first in the background
    issues and the others follow.
    """
    first, second = join(proactive=True), join(proactive=True)
    old = first.get_token(USER)
    assert second.get_token(USER) == old
    clock.advance(3000)
    first.refresh_ahead(USER)
    second.refresh_ahead(USER)
    assert first.get_token(USER) == second.get_token(USER) != old
    assert ledger.total == 2


def test_newcomer_in_the_last_minutes(join: Join, ledger: Ledger, clock: Clock) -> None:
    """A token that is taken from the cache late in its life is refreshed when it is due, not held
    on to for want of progress.
    """
    first, newcomer = join(), join()
    first.get_token(USER)
    clock.advance(3400)
    assert newcomer.get_token(USER).expires_on == START + 3600
    clock.advance(100)  # half of the life that it had left
    assert newcomer.get_token(USER).expires_on == START + 3500 + 3600
    assert ledger.total == 2


@pytest.mark.parametrize(("life", "seconds"), [(3600, 3480), (100, 50)])
def test_time_to_live(
    join: Join, server: RedisServer, ledger: Ledger, life: int, seconds: int
) -> None:
    """Redis forgets a token when its refresh window opens."""
    join(ledger=Ledger(ledger.path, life)).get_token(USER)
    milliseconds = int(server.cli("pttl", KEY))
    assert seconds * 1000 - 30_000 < milliseconds <= seconds * 1000


def test_refused_token(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """A refused token leaves the cache before another is issued, which is then everybody's."""
    first, second, newcomer = join(), join(), join()
    old = first.get_token(USER)
    assert second.get_token(USER) == old
    found = []
    issue = first.issue

    def look_first(user: str) -> object:
        found.append(server.cli("exists", KEY))
        return issue(user)

    first.issue = look_first
    first.refuse(USER, old)
    new = first.get_token(USER)
    assert new != old
    assert found == ["0"]
    second.refuse(USER, old)
    assert second.get_token(USER) == newcomer.get_token(USER) == new
    assert ledger.total == 2


def test_late_to_drop(join: Join, ledger: Ledger) -> None:
    """A member that finds a refused token, and is late to drop it, does not drop its successor."""
    first, second = join(), join()
    old = first.get_token(USER)
    assert second.get_token(USER) == old
    first.refuse(USER, old)
    second.refuse(USER, old)
    new = []
    before(first, DROP, lambda: new.append(second.get_token(USER)))
    assert first.get_token(USER) == new[0] != old
    assert ledger.total == 2


def test_value_that_changes_its_type(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """A value that changes its type before it is dropped does no harm."""
    first = join()
    first.refuse(USER, first.get_token(USER))

    def change() -> None:
        server.cli("del", KEY)
        server.cli("lpush", KEY, "value")

    before(first, DROP, change)
    token = first.get_token(USER)
    assert first.cache._retry_at == 0
    assert join().get_token(USER) == token
    assert ledger.total == 2


def test_value_that_is_no_answer_while_waiting(
    join: Join, ledger: Ledger, server: RedisServer
) -> None:
    """Whoever waits after a refusal leaves alone what others store meanwhile, even if it cannot
    tell whether that is later than the refusal.
    """
    first, found = join(), []
    old = first.get_token(USER)
    first.refuse(USER, old)
    server.cli("set", LOCK_KEY, "another's", "px", "9000")
    other = Record(KEY, make_token(START + 3600), int(START) + 3600, START, None)

    def wait(seconds: float) -> object:
        if not found:
            server.cli("set", KEY, seal(read_keys(KEYS), other).decode())
        else:
            server.cli("del", LOCK_KEY)
        found.append(server.cli("exists", KEY))
        return sleep(0)

    sleep, first.cache._sleep = first.cache._sleep, wait
    assert first.get_token(USER).token not in (old.token, other.token)
    assert found == ["1", "1"]
    assert ledger.total == 2


def test_replaced_by_a_newcomer(
    join: Join, ledger: Ledger, clock: Clock, server: RedisServer
) -> None:
    """When another issues between the drop of a refused token and the lock, that is the new one."""
    first, newcomer = join(), join()
    old = first.get_token(USER)
    first.refuse(USER, old)
    new = []

    def issue_another() -> None:
        clock.advance(1)
        new.append(newcomer.get_token(USER))

    before(first, LOCK, issue_another)
    assert first.get_token(USER) == new[0] != old
    assert ledger.total == 2
    assert server.cli("exists", LOCK_KEY) == "0"


def test_late_to_lock(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """Whoever gets the lock after another has issued looks again, and frees it."""
    first, second = join(), join()
    token = []
    before(second, LOCK, lambda: token.append(first.get_token(USER)))
    assert second.get_token(USER) == token[0]
    assert ledger.total == 1
    assert server.cli("exists", LOCK_KEY) == "0"


def test_refused_again_and_again(join: Join, ledger: Ledger, clock: Clock) -> None:
    """Each refusal brings a new token, and both members the same."""
    first, second = join(), join()
    tokens = [first.get_token(USER)]
    assert second.get_token(USER) == tokens[0]
    for member, other in ((first, second), (second, first)):
        clock.advance(30)  # or the credentials would not try again yet
        member.refuse(USER, tokens[-1])
        other.refuse(USER, tokens[-1])
        tokens.append(member.get_token(USER))
        assert other.get_token(USER) == tokens[-1]
    assert len(set(tokens)) == ledger.total == 3


def test_refused_in_the_window(join: Join, ledger: Ledger, clock: Clock) -> None:
    """A token that is refused when it is about to be refreshed anyway is not returned again."""
    first, second = join(), join()
    old = first.get_token(USER)
    assert second.get_token(USER) == old
    clock.advance(3300)
    first.refuse(USER, old)
    new = first.get_token(USER)
    assert new != old
    second.refuse(USER, old)
    assert second.get_token(USER) == new
    assert ledger.total == 2


def test_revoked_while_there_are_two(join: Join, ledger: Ledger) -> None:
    """A member whose own token was refused does not take another that is as old as the refusal,
    because all of a user's tokens are revoked at once.
    """
    first, second = join(), join()
    second.cache._retry_at = float("inf")  # as if Redis had failed
    revoked = [first.get_token(USER), second.get_token(USER)]
    second.cache._retry_at = 0.0
    second.refuse(USER, revoked[1])
    new = second.get_token(USER)
    assert new not in revoked
    first.refuse(USER, revoked[0])
    newest = first.get_token(USER)
    assert newest not in [*revoked, new]
    assert second.get_token(USER) == new
    assert ledger.total == 4


def test_claims(join: Join, ledger: Ledger) -> None:
    """Claims reach the issuer, once for the fleet."""
    first, second = join(), join()
    old = first.get_token(USER)
    assert second.get_token(USER) == old
    new = first.get_token(USER, claims="{}")
    assert new != old
    assert second.get_token(USER, claims="{}") == new
    assert ledger.total == 2


def test_wait_for_the_issuer(join: Join, ledger: Ledger) -> None:
    """While one member issues, another waits, and gets the same token. However long that takes, it
    is not Redis that is slow.
    """
    first, second, patience = join(), join(timeout=5), Clock()
    second.cache._mono = patience.mono
    second.cache._client = SlowClient(second.cache._client, patience, 0.6)
    issuing, waiting, naps = threading.Event(), threading.Event(), iter(range(10))
    issue, sleep = first.issue, second.cache._sleep

    def wait_and_issue(user: str) -> object:
        issuing.set()
        assert waiting.wait(30)
        return issue(user)

    def note_and_sleep(seconds: float) -> object:
        if next(naps, None) is None:
            waiting.set()
        return sleep(seconds)

    first.issue = wait_and_issue
    second.cache._sleep = note_and_sleep
    one = Call(lambda: first.get_token(USER))
    assert issuing.wait(30)
    assert second.get_token(USER) == one.value()
    assert ledger.total == 1


def test_wait_for_too_long(
    join: Join, ledger: Ledger, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After waiting long enough, a member issues without the lock, and leaves the lock alone."""
    monkeypatch.setattr(shared_token_cache, "WAIT_SECONDS", 0)
    server.cli("set", LOCK_KEY, "another's")
    token = join().get_token(USER)
    assert join().get_token(USER) == token
    assert ledger.total == 1
    assert server.cli("get", LOCK_KEY) == "another's"


def test_slow_holder(
    join: Join, ledger: Ledger, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever comes back after the lock has expired neither overwrites a newer token nor releases
    another's lock.
    """
    slow, quick = join(), join()
    issue, tokens = slow.issue, []

    def be_late(user: str) -> object:
        token = issue(user)
        server.cli("del", LOCK_KEY)  # as it does after ten seconds
        tokens.append(Call(lambda: quick.get_token(USER)).value())
        server.cli("set", LOCK_KEY, "another's")
        return token

    slow.issue = be_late
    assert slow.get_token(USER) != tokens[0]
    assert join().get_token(USER) == tokens[0]
    assert server.cli("get", LOCK_KEY) == "another's"
    assert ledger.total == 2
    assert caplog.records == []  # none of this is an error of Redis


def test_slow_holder_that_nobody_overtook(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """A token is shared even if its holder's lock has expired."""
    slow = join()
    issue = slow.issue

    def be_late(user: str) -> object:
        server.cli("del", LOCK_KEY)  # as it does after ten seconds
        return issue(user)

    slow.issue = be_late
    token = slow.get_token(USER)
    assert join().get_token(USER) == token
    assert ledger.total == 1


def test_failed_issue(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """The issuer's error reaches its caller as it is, and the lock is free for the next."""
    first = join()
    error = OSError("no route to host")

    def fail(user: str) -> str:
        raise error

    first.issue = fail
    with pytest.raises(OSError, match="no route to host") as caught:
        first.get_token(USER)
    assert caught.value is error
    assert server.cli("exists", LOCK_KEY) == "0"
    join().get_token(USER)
    assert ledger.total == 1


def test_failed_issue_of_a_valid_token(join: Join, clock: Clock, server: RedisServer) -> None:
    """While the old token is valid, no failure reaches a caller, and none empties the cache."""
    member = join()
    old = member.get_token(USER)
    clock.advance(3500)
    value = server.cli("get", KEY)

    def fail(user: str) -> str:
        raise OSError

    member.issue = fail
    assert member.get_token(USER) == old
    assert server.cli("get", KEY) == value


def test_failed_issue_ahead(join: Join, clock: Clock, server: RedisServer) -> None:
    """A failure in the background leaves the cache its token, which has ten minutes left."""
    member = join(proactive=True)
    member.get_token(USER)
    clock.advance(3000)
    value = server.cli("get", KEY)

    def fail(user: str) -> str:
        raise OSError

    member.issue = fail
    member.refresh_ahead(USER)
    assert server.cli("get", KEY) == value


def test_failed_issue_after_a_refusal(join: Join, ledger: Ledger) -> None:
    """A token that was refused stays out of the cache, whatever becomes of the next issue."""
    first, newcomer = join(), join()
    old = first.get_token(USER)
    first.refuse(USER, old)
    issue = first.issue

    def fail(user: str) -> str:
        raise LookupError

    first.issue = fail
    with pytest.raises(LookupError):
        first.get_token(USER)
    first.issue = issue
    assert first.get_token(USER) == newcomer.get_token(USER) != old
    assert ledger.total == 2


@pytest.mark.parametrize("text", ["opaque", "a.b.c"])
def test_access_token(join: Join, text: str) -> None:
    """A token that says when it expires need not be readable."""
    first, second = join(), join()
    first.issue = lambda user: AccessToken(text, int(START) + 3600)
    token = first.get_token(USER)
    assert token == second.get_token(USER) == AccessToken(text, int(START) + 3600)


def test_unusable_result(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """What is not a token is refused as the credential refuses it, and not stored."""
    member = join()
    member.issue = lambda user: "Bearer secret"
    with pytest.raises(ValueError, match="not a JWT") as caught:
        member.get_token(USER)
    assert "secret" not in str(caught.value)
    assert server.cli("dbsize") == "0"


def test_expired_result(join: Join, ledger: Ledger, server: RedisServer) -> None:
    """A token that has expired when it is issued is reported by the credential, and not stored."""
    member = join(ledger=Ledger(ledger.path, -10))
    with pytest.raises(ValueError, match="expired"):
        member.get_token(USER)
    assert server.cli("dbsize") == "0"


def test_what_redis_sees(
    join: Join, ledger: Ledger, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a token nor a user in any key or value, and none in any log record."""
    caplog.set_level(logging.DEBUG)
    member = join()
    token = member.get_token(USER).token
    value = server.cli("get", KEY)
    assert server.cli("keys", "*") == KEY
    assert value.startswith("gAAAAA")
    for shown in (value, caplog.text, repr(member.cache)):
        assert "eyJ" not in shown
        assert token not in shown
        assert "resource_user" not in shown


@pytest.mark.parametrize("kind", ["altered", "garbage", "another user's", "another key's", "jwt"])
def test_tampered_value(
    join: Join, ledger: Ledger, server: RedisServer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """What was not stored there by a member is dropped, and a new token is issued for everybody."""
    first, second, third = join(), join(), join()
    old = first.get_token(USER).token
    other = first.get_token("8:acs:resource_other").token
    value = server.cli("get", KEY)
    tampered = {
        "altered": value[:60] + ("A" if value[60] != "A" else "B") + value[61:],
        "garbage": "\N{SNOWMAN}",
        "another user's": server.cli("get", name_of(KEYS, "8:acs:resource_other")),
        "another key's": Fernet(Fernet.generate_key()).encrypt(b"{}").decode(),
        "jwt": other,
    }
    server.cli("set", KEY, tampered[kind])
    new = second.get_token(USER)
    assert new.token not in (old, other)
    assert third.get_token(USER) == new
    assert ledger.total == 3
    assert [record.message for record in caplog.records] == [
        "Redis held a value that none of the keys decrypts; dropped."
    ]


def test_tampered_value_and_failing_issuer(join: Join, server: RedisServer) -> None:
    """It is gone even if no new token comes."""
    member = join()
    server.cli("set", KEY, "tampered")
    member.issue = lambda user: None
    with pytest.raises(TypeError):
        member.get_token(USER)
    assert server.cli("exists", KEY) == "0"


def test_rotated_key(join: Join, ledger: Ledger, clock: Clock) -> None:
    """While the new key goes round, second and then first, no member misses another's tokens."""
    old, new, last = (Fernet.generate_key().decode() for _ in range(3))
    rounds = [
        (f"{old},{last}", f"{old},{new},{last}"),
        (f"{old},{new},{last}", f"{new},{old},{last}"),
        (f"{new},{old},{last}", f"{new},{last}"),
    ]
    for keys in rounds:
        one, other = (join(keys=each) for each in keys)
        assert other.get_token(USER) == one.get_token(USER)
        clock.advance(3500)
    assert ledger.total == len(rounds)


def test_rotation_without_the_clock(join: Join, ledger: Ledger) -> None:
    """A change of the encrypting key leaves the token that is there."""
    old, new, last = (Fernet.generate_key().decode() for _ in range(3))
    token = join(keys=f"{old},{last}").get_token(USER)
    assert join(keys=f"{new},{old},{last}").get_token(USER) == token
    assert ledger.total == 1


def test_key_that_the_other_has_not(join: Join, ledger: Ledger) -> None:
    """Members without a common key share nothing, but each gets its token."""
    one, other = join(), join(keys=Fernet.generate_key().decode())
    assert one.get_token(USER) != other.get_token(USER)
    assert ledger.total == 2


class Replay:
    """Somebody who may write to Redis, and puts a value back before each of a member's reads."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._values: list[str] = []

    def keep(self) -> None:
        """Keep the value that is there."""
        self._values.append(self._server.cli("get", KEY))

    def against(self, member: Member) -> None:
        """Put back what was kept, one after the other, whenever the member reads."""
        run_script, values = member.cache._client.eval, itertools.cycle(self._values)

        def put_back(script: str, *args: Any) -> Any:
            if script == READ:
                self._server.cli("set", KEY, next(values))
            return run_script(script, *args)

        member.cache._client.eval = put_back


def test_replay_of_older_tokens(
    join: Join, ledger: Ledger, clock: Clock, server: RedisServer
) -> None:
    """Whoever puts a user's older tokens back, whenever it is, does not keep the user from a token
    that is not revoked: each refusal is followed by a new one.
    """
    first, replay, revoked = join(), Replay(server), []
    for _ in range(4):
        revoked.append(first.get_token(USER))
        replay.keep()
        first.refuse(USER, revoked[-1])
        clock.advance(40)
    victim = join()
    replay.against(victim)
    replayed = victim.get_token(USER)  # a newcomer cannot know
    assert replayed in revoked
    for issued in range(1, 9):
        clock.advance(40)
        victim.refuse(USER, replayed)
        replayed = victim.get_token(USER)
        assert replayed not in revoked
        assert ledger.total == len(revoked) + issued


def test_replay_at_a_roll_over(
    join: Join, ledger: Ledger, clock: Clock, server: RedisServer
) -> None:
    """An older token that lives for longer does not take the place of one that is about to end."""
    first, victim, replay = join(), join(), Replay(server)
    first.issue = lambda user: AccessToken("revoked", int(START) + 86400)
    first.get_token(USER)
    replay.keep()
    server.cli("flushall")
    clock.advance(60)
    victim.get_token(USER)
    clock.advance(3500)
    replay.against(victim)
    assert victim.get_token(USER).token != "revoked"
    assert ledger.total == 2


@pytest.mark.parametrize("wrong_by", [-90, -30, 30, 90])
def test_clock_that_is_wrong(
    join: Join, ledger: Ledger, clock: Clock, server: RedisServer, wrong_by: int
) -> None:
    """With a clock that is less wrong than the window is long, no token expires unnoticed and none
    is issued twice, whoever issues it.
    """
    wrong = Clock(wall=START + wrong_by)
    members = [join(), join(clock=wrong)]
    for period in range(4):
        for member in members[:: 1 if period % 2 else -1]:
            assert member.get_token(USER).expires_on - clock.wall() >= 3600 - 2 * 90
        tokens = {member.get_token(USER) for member in members}
        assert len(tokens) == 1
        assert ledger.total == period + 1
        left = tokens.pop().expires_on - clock.wall()
        for each in (clock, wrong):
            each.advance(left - 20)  # until all see the window, and none the end
