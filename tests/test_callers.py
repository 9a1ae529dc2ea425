"""What callers get that use one credential at once: threads, tasks of a loop, or loops."""

import asyncio
import gc
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from fake_transport import WAYS, Callers, Tasks, Way, outcome
from scaffolding import (
    Clock,
    Issuer,
    Late,
    Tally,
    TokenCache,
    cache_of,
    count_waiting,
    make_token,
    on_clock,
    rules,
    state_of,
    wait_until,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["threads", "tasks", "loops"])
def callers(request: pytest.FixtureRequest) -> Iterator[Callers]:
    if request.param == "loops":
        yield Callers(WAYS["aio"])
    else:
        with WAYS["sync" if request.param == "threads" else "aio"].callers() as callers:
            yield callers


@pytest.fixture
def way(callers: Callers) -> Way:
    return callers.way


@pytest.fixture
def waiting(way: Way, clock: Clock) -> tuple[Any, Tally]:
    """The credential's class on the clock, and the count of those who wait for a refresh."""
    return count_waiting(on_clock(way.Credential, clock))


def expire(credential: Any, clock: Clock) -> None:
    """Let the current token expire."""
    clock.advance(state_of(credential).token.expires_on - clock.wall() + 1)


# ---- Many callers, one refresh


@pytest.mark.parametrize("count", [2, 50])
def test_all_who_meet_an_expired_token_share_one_refresh(
    clock: Clock, way: Way, callers: Callers, waiting: tuple[Any, Tally], count: int
) -> None:
    """However many they are, the refresher is called once."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(
        make_token(clock.wall() + 60), token_refresher=way.refresher(issuer)
    )
    expire(credential, clock)
    calls = callers.start_many(count, credential.get_token)
    counted.wait_for(count)
    issuer.release()
    assert len({outcome(call).token for call in calls}) == 1
    assert issuer.calls == 1
    assert counted.value == count


def test_all_share_one_failure(way: Way, callers: Callers, waiting: tuple[Any, Tally]) -> None:
    """One call fails for all; its caller gets the exception, the others copies of it."""
    credential_type, counted = waiting
    error = ConnectionError("the issuer is away")
    issuer = Issuer(error)
    issuer.hold()
    credential = credential_type(token_refresher=way.refresher(issuer))
    calls = callers.start_many(50, credential.get_token)
    counted.wait_for(50)
    issuer.release()
    errors = [outcome(call) for call in calls]
    assert issuer.calls == 1
    assert {type(each) for each in errors} == {ConnectionError}
    assert {str(each) for each in errors} == {"the issuer is away"}
    assert len({id(each) for each in errors}) == 50
    assert [each for each in errors if each is error] == [error]
    copies = [each for each in errors if each is not error]
    assert all(each.__cause__ is error for each in copies)
    assert len({len(list(traceback.walk_tb(each.__traceback__))) for each in copies}) == 1


@pytest.mark.parametrize("name", list(WAYS))
def test_what_an_exception_carries_does_not_grow(clock: Clock, name: str) -> None:
    """Many callers that get the same failure add nothing to its traceback and its notes."""
    way = WAYS[name]
    error = ConnectionError("the issuer is away")
    vars(error)["__notes__"] = ["said the refresher"]  # as add_note(), which came with Python 3.11
    issuer = Issuer(error, error)
    credential = on_clock(way.Credential, clock)(token_refresher=way.refresher(issuer))
    seen = set()
    for nth in range(100):
        with pytest.raises(ConnectionError) as caught:
            way.call(credential.get_token)
        if nth >= 2:
            depth = len(list(traceback.walk_tb(caught.value.__traceback__)))
            seen.add((depth, len(vars(caught.value)["__notes__"])))
            assert caught.value is not error
    assert issuer.calls == 2
    assert len(seen) == 1
    assert vars(error)["__notes__"] == ["said the refresher"]


class UnprintableError(Exception):
    """An exception with a mistake of its own."""

    def __str__(self) -> str:
        raise AttributeError("no response")


def test_an_exception_that_cannot_be_printed_reaches_everybody(
    way: Way, callers: Callers, waiting: tuple[Any, Tally]
) -> None:
    """Mistakes in a user's exception class keep nobody waiting."""
    credential_type, counted = waiting
    issuer = Issuer(UnprintableError)
    issuer.hold()
    credential = credential_type(token_refresher=way.refresher(issuer))
    calls = callers.start_many(2, credential.get_token)
    counted.wait_for(2)
    issuer.release()
    names = {type(outcome(call)).__name__ for call in calls}
    assert names == {"UnprintableError", "ClientAuthenticationError"}


# ---- What a refresher returns


async def _answer() -> str:
    return "unused"


def _future() -> Any:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop.create_future()


BAD_RESULTS: list[Any] = [
    pytest.param(lambda: make_token(1_600_000_000), ValueError, "expired", id="expired"),
    pytest.param(lambda: None, TypeError, "NoneType", id="None"),
    pytest.param(lambda: 42, TypeError, "int", id="int"),
    pytest.param(lambda: "", ValueError, "is empty", id="empty"),
    pytest.param(lambda: "rubbish", ValueError, "not a JWT", id="rubbish"),
    pytest.param(lambda: [_answer], TypeError, "list", id="list"),
]
AWAITABLES: list[Any] = [
    pytest.param(lambda: _answer(), TypeError, "awaitable", id="coroutine"),
    pytest.param(_future, TypeError, "awaitable", id="future"),
]


@pytest.mark.parametrize(
    ("name", "is_async", "result", "kind", "words"),
    [
        *(pytest.param("sync", False, *case.values, id=f"sync-{case.id}") for case in BAD_RESULTS),
        *(pytest.param("sync", False, *case.values, id=f"sync-{case.id}") for case in AWAITABLES),
        *(pytest.param("aio", False, *case.values, id=f"plain-{case.id}") for case in BAD_RESULTS),
        *(pytest.param("aio", True, *case.values, id=f"async-{case.id}") for case in BAD_RESULTS),
    ],
)
def test_a_bad_result_is_explained(
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    name: str,
    is_async: bool,
    result: Callable[[], Any],
    kind: type[Exception],
    words: str,
) -> None:
    """An expired, empty or foreign result is a typed error, and harms no valid token."""
    way = WAYS[name]
    credential_type = on_clock(way.Credential, clock)
    issuer = Issuer(result, result)
    refresher = issuer.issue if is_async else issuer
    with pytest.raises(kind, match=words):
        way.call(credential_type(token_refresher=refresher).get_token)
    first = make_token(clock.wall() + 100)
    credential = credential_type(first, token_refresher=refresher)
    clock.advance(60)  # into the window
    assert way.call(credential.get_token).token == first
    assert issuer.calls == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with warnings.catch_warnings():  # of a coroutine that was never awaited
        warnings.simplefilter("error")
        gc.collect()


def test_an_outcome_that_comes_before_the_waiter_sleeps_is_not_missed(
    clock: Clock, way: Way, callers: Callers
) -> None:
    """Nobody would wake it."""

    class Hasty(TokenCache):
        __slots__ = ()

        def begin(self, *args: Any) -> Any:
            decision = super().begin(*args)
            if decision.action is rules.Action.WAIT:
                self.complete(decision.refresh, AccessToken("early", int(clock.wall()) + 3_600))
            return decision

    ends = Tally()
    issuer = Issuer(lambda: f"not a token {ends.count()}")
    issuer.hold()
    credential = on_clock(way.Credential, clock)(token_refresher=way.refresher(issuer))
    cache_of(credential).__class__ = Hasty
    leader = callers.start(credential.get_token)
    issuer.wait_for_call(1)
    assert outcome(callers.start(credential.get_token)).token == "early"
    issuer.release()
    assert outcome(leader).token == "early"
    if way is WAYS["sync"]:  # a leader that gave up would have woken the other
        assert ends.value == 1


# ---- A refresher that hangs


def test_waiters_give_up_and_a_newcomer_starts_another_refresh(
    clock: Clock, way: Way, callers: Callers, waiting: tuple[Any, Tally]
) -> None:
    """Whoever waited gives up after 60 s, and the next caller does not wait any more."""
    credential_type, counted = waiting
    late, prompt = make_token(clock.wall() + 1_800), make_token(clock.wall() + 3_600)
    hung = Late(late)
    issuer = Issuer(hung, prompt)
    credential = credential_type(token_refresher=way.refresher(issuer))
    leader = callers.start(credential.get_token)
    issuer.wait_for_call(1)
    clock.advance(59.9)
    waiters = callers.start_many(3, credential.get_token)
    counted.wait_for(4)
    clock.advance(0.2)
    for waiter in waiters:
        error = outcome(waiter)
        assert isinstance(error, TimeoutError)
        assert "60 seconds" in str(error)
    assert issuer.calls == 1
    assert outcome(callers.start(credential.get_token)).token == prompt
    assert issuer.calls == 2
    hung.release()
    assert outcome(leader).token == prompt, "the late result expires earlier and does not count"
    assert outcome(callers.start(credential.get_token)).token == prompt


@pytest.mark.parametrize("step", ["longer", "failure"])
def test_what_a_superseded_refresh_brings_in_the_end(
    clock: Clock, way: Way, callers: Callers, waiting: tuple[Any, Tally], step: str
) -> None:
    """A token that lasts longer is taken; a failure leaves no trace on the new token."""
    credential_type, _ = waiting
    longer, prompt = make_token(clock.wall() + 7_200), make_token(clock.wall() + 3_600)
    hung = Late(longer if step == "longer" else ConnectionError)
    credential = credential_type(token_refresher=way.refresher(Issuer(hung, prompt)))
    leader = callers.start(credential.get_token)
    wait_until(lambda: bool(state_of(credential).refreshes))
    (refresh,) = state_of(credential).refreshes
    clock.advance(60)
    assert outcome(callers.start(credential.get_token)).token == prompt
    before = state_of(credential)
    if way is WAYS["aio"]:  # where the leader waits like the others
        assert outcome(leader).token == prompt
    hung.release()
    wait_until(lambda: refresh.is_complete)
    brings = step == "longer" and (way is WAYS["sync"] or isinstance(callers, Tasks))
    if way is WAYS["sync"]:
        assert outcome(leader).token == (longer if brings else prompt)
    if brings:
        assert outcome(callers.start(credential.get_token)).token == longer
    else:  # a failure, or a refresh that has ended with its leader's loop
        assert state_of(credential) is before


@pytest.mark.parametrize("rescuer", ["one for claims", "a newcomer"])
def test_a_token_of_another_refresh_is_for_all_who_wait(
    clock: Clock, way: Way, callers: Callers, waiting: tuple[Any, Tally], rescuer: str
) -> None:
    """Whoever waits for a refresh that hangs continues with what any other brings, and at once."""
    credential_type, counted = waiting
    hung, fresh = Late(None), make_token(clock.wall() + 3_600)
    issuer = Issuer(hung, fresh)
    credential = credential_type(token_refresher=way.refresher(issuer))
    callers.start(credential.get_token)
    issuer.wait_for_call(1)
    waiters = callers.start_many(3, credential.get_token)
    counted.wait_for(4)
    if rescuer == "one for claims":
        rescued = callers.start(credential.get_token, claims="c")
    else:
        clock.advance(60)
        rescued = callers.start(credential.get_token)
    assert [outcome(call).token for call in (rescued, *waiters)] == [fresh] * 4
    assert issuer.calls == 2
    hung.release()


# ---- With a valid token nobody waits for long


def test_nobody_waits_for_a_slow_refresh_of_a_valid_token(
    clock: Clock, way: Way, callers: Callers
) -> None:
    """While one caller refreshes, others continue with the token at once."""
    first, fresh = make_token(clock.wall() + 200), make_token(clock.wall() + 3_600)
    issuer = Issuer(fresh)
    issuer.hold()
    credential = on_clock(way.Credential, clock)(first, token_refresher=way.refresher(issuer))
    clock.advance(150)
    leader = callers.start(credential.get_token)
    issuer.wait_for_call(1)
    others = callers.start_many(5, credential.get_token)
    assert [outcome(other).token for other in others] == [first] * 5
    assert not leader.done()
    issuer.release()
    assert outcome(leader).token == fresh
    assert outcome(callers.start(credential.get_token)).token == fresh
    assert issuer.calls == 1


# ---- Re-entrance


@pytest.mark.parametrize("claims", [None, "{}"])
def test_a_refresher_that_asks_its_own_credential_is_told(
    clock: Clock, way: Way, callers: Callers, claims: str | None
) -> None:
    """Without a valid token it gets a clear error."""
    issuer = Issuer(lambda: credential.get_token(claims=claims))
    credential = on_clock(way.Credential, clock)(token_refresher=way.refresher(issuer))
    error = outcome(callers.start(credential.get_token))
    assert isinstance(error, RuntimeError)
    assert "from the credential that it refreshes" in str(error)
    assert issuer.calls == 1


def test_two_refreshers_that_wait_for_each_other_are_told(
    clock: Clock, way: Way, callers: Callers
) -> None:
    """A cycle through another credential is found as well."""
    credential_type = on_clock(way.Credential, clock)
    issuers = Issuer(lambda: second.get_token()), Issuer(lambda: first.get_token())
    first, second = (credential_type(token_refresher=way.refresher(each)) for each in issuers)
    error = outcome(callers.start(first.get_token))
    assert isinstance(error, RuntimeError)
    assert "from the credential that it refreshes" in str(error)


# ---- Closing


def test_close_fails_the_waiters_and_drops_what_comes_later(
    clock: Clock, way: Way, callers: Callers, waiting: tuple[Any, Tally]
) -> None:
    """Closing in the middle of a refresh waits for nobody, and nobody waits any longer."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(
        make_token(clock.wall() + 60), token_refresher=way.refresher(issuer)
    )
    expire(credential, clock)
    leader = callers.start(credential.get_token)
    issuer.wait_for_call(1)
    waiters = callers.start_many(5, credential.get_token)
    counted.wait_for(6)
    (refresh,) = state_of(credential).refreshes
    assert outcome(callers.start(credential.close)) is None
    errors = [outcome(waiter) for waiter in waiters]
    issuer.release()
    errors.append(outcome(leader))
    wait_until(lambda: refresh.is_complete)
    errors.append(outcome(callers.start(credential.get_token)))
    told = [(type(error), "has been closed" in str(error)) for error in errors]
    assert told == [(RuntimeError, True)] * 7
    assert issuer.calls == 1
    assert state_of(credential).token is None
