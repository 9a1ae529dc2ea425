"""What real threads do to one synchronous credential, and signals to the thread that refreshes."""

import asyncio
import contextvars
import copy
import gc
import logging
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken, AccessTokenInfo

from scaffolding import (
    DEADLINE,
    Call,
    Clock,
    Fault,
    InlineWorkers,
    Issuer,
    Tally,
    call_together,
    count_waiting,
    make_token,
    manual_scheduler,
    on_clock,
    state_of,
    sync_scheduler,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waiting(clock: Clock) -> tuple[type[CommunicationTokenCredential], Tally]:
    """The credential's class on the clock, and the count of those who wait for a refresh."""
    return count_waiting(on_clock(CommunicationTokenCredential, clock))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own handling of Ctrl-C, which a test run in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def expire(credential: CommunicationTokenCredential, clock: Clock) -> None:
    """Let the current token expire."""
    token = state_of(credential).token
    assert token is not None
    clock.advance(token.expires_on - clock.wall() + 1)


def depth(error: BaseException) -> int:
    """Return how many frames the traceback of an exception has."""
    return len(list(traceback.walk_tb(error.__traceback__)))


# ---- Many callers, one refresh


@pytest.mark.parametrize("count", [2, 50, 200])
def test_threads_on_an_expired_token_share_one_refresh(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally], count: int
) -> None:
    """However many threads meet an expired token, the refresher is called once."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(make_token(clock.wall() + 60), token_refresher=issuer)
    expire(credential, clock)
    calls = call_together(count, credential.get_token)
    counted.wait_for(count)
    issuer.release()
    assert len({call.value().token for call in calls}) == 1
    assert issuer.calls == 1


def test_threads_share_one_failure(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally]
) -> None:
    """One call fails for all; its caller gets the exception, the others copies of it."""
    credential_type, counted = waiting
    error = ConnectionError("the issuer is away")
    issuer = Issuer(error, wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=issuer)
    calls = call_together(50, credential.get_token)
    counted.wait_for(50)
    issuer.release()
    errors = [call.error() for call in calls]
    assert issuer.calls == 1
    assert {type(each) for each in errors} == {ConnectionError}
    assert {str(each) for each in errors} == {"the issuer is away"}
    assert len({id(each) for each in errors}) == 50
    assert [each for each in errors if each is error] == [error]
    assert all(each.__cause__ is error for each in errors if each is not error)


def test_what_an_exception_carries_does_not_grow(clock: Clock) -> None:
    """A thousand callers who get one failure again lengthen no traceback and no notes."""
    error = ConnectionError("the issuer is away")
    if sys.version_info >= (3, 11):
        error.add_note("said the refresher")
    issuer = Issuer(error, error)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            credential.get_token()
    seen = set()
    for _ in range(1_000):
        with pytest.raises(ConnectionError) as caught:
            credential.get_token()
        seen.add((depth(caught.value), len(getattr(caught.value, "__notes__", []))))
        assert caught.value is not error
    assert issuer.calls == 2
    assert len(seen) == 1
    assert getattr(error, "__notes__", ["said the refresher"]) == ["said the refresher"]


class UnprintableError(Exception):
    """An exception with a mistake of its own."""

    def __str__(self) -> str:
        raise AttributeError("no response")


def test_an_exception_that_cannot_be_printed_reaches_everybody(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally]
) -> None:
    """The mistakes in a user's exception class keep nobody waiting."""
    credential_type, counted = waiting
    issuer = Issuer(UnprintableError)
    issuer.hold()
    credential = credential_type(token_refresher=issuer)
    calls = call_together(2, credential.get_token)
    counted.wait_for(2)
    issuer.release()
    names = {type(call.error()).__name__ for call in calls}
    assert names == {"UnprintableError", "ClientAuthenticationError"}


def test_waiting_threads_use_no_cpu(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally]
) -> None:
    """Thirty-two threads wait for half a second at next to no cost."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=issuer)
    calls = call_together(32, credential.get_token)
    counted.wait_for(32)
    before = time.process_time()
    assert not threading.Event().wait(0.5)
    assert time.process_time() - before < 0.1
    issuer.release()
    assert len({call.value().token for call in calls}) == 1


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
    pytest.param(lambda: "", ValueError, "not a JWT", id="empty"),
    pytest.param(lambda: "rubbish", ValueError, "not a JWT", id="rubbish"),
    pytest.param(lambda: _answer(), TypeError, "awaitable", id="coroutine"),
    pytest.param(_future, TypeError, "awaitable", id="future"),
]


@pytest.mark.parametrize(("refresher", "kind", "words"), BAD_RESULTS)
def test_a_bad_result_is_explained(
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    refresher: Callable[[], Any],
    kind: type[Exception],
    words: str,
) -> None:
    """An expired, empty or foreign result is a typed error, and harms no valid token."""
    credential_type = on_clock(CommunicationTokenCredential, clock)
    with pytest.raises(kind, match=words):
        credential_type(token_refresher=refresher).get_token()
    first = make_token(clock.wall() + 100)
    credential = credential_type(first, token_refresher=refresher)
    clock.advance(60)  # into the window
    assert credential.get_token().token == first
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with warnings.catch_warnings():  # of a coroutine that was never awaited
        warnings.simplefilter("error")
        gc.collect()


# ---- A refresher that hangs


def test_waiters_give_up_and_a_newcomer_starts_another_refresh(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally]
) -> None:
    """Who waited gives up after 60 s, and the next caller does not wait any more."""
    credential_type, counted = waiting
    late, prompt = make_token(clock.wall() + 1_800), make_token(clock.wall() + 3_600)
    hung = threading.Event()
    issuer = Issuer(lambda: late if hung.wait(DEADLINE) else None, prompt)
    credential = credential_type(token_refresher=issuer)
    leader = Call(credential.get_token)
    issuer.wait_for_call(1)
    clock.advance(59.9)
    waiters = call_together(3, credential.get_token)
    counted.wait_for(4)
    clock.advance(0.2)
    for waiter in waiters:
        with pytest.raises(TimeoutError, match="60 seconds"):
            waiter.value()
    assert issuer.calls == 1
    assert credential.get_token().token == prompt
    assert issuer.calls == 2
    hung.set()
    assert leader.value().token == prompt, "the late result expires earlier and does not count"
    assert credential.get_token().token == prompt


def test_a_late_result_that_is_newer_counts(clock: Clock) -> None:
    """What a superseded refresh brings in the end is taken if it lasts longer."""
    late, prompt = make_token(clock.wall() + 7_200), make_token(clock.wall() + 3_600)
    hung = threading.Event()
    issuer = Issuer(lambda: late if hung.wait(DEADLINE) else None, prompt)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer)
    leader = Call(credential.get_token)
    issuer.wait_for_call(1)
    clock.advance(60)
    assert credential.get_token().token == prompt
    hung.set()
    assert leader.value().token == late
    assert credential.get_token().token == late
    assert issuer.calls == 2


def test_a_late_failure_does_not_count(clock: Clock) -> None:
    """A superseded refresh that fails in the end leaves no trace on the new token."""
    hung = threading.Event()
    prompt = make_token(clock.wall() + 3_600)

    def fail_late() -> None:
        hung.wait(DEADLINE)
        raise ConnectionError

    issuer = Issuer(fail_late, prompt)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer)
    leader = Call(credential.get_token)
    issuer.wait_for_call(1)
    clock.advance(60)
    assert credential.get_token().token == prompt
    before = state_of(credential)
    hung.set()
    assert leader.value().token == prompt
    assert state_of(credential) is before


def test_one_background_refresh_that_hangs_delays_no_other(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one refresher hangs for an hour, all others are called when they are due."""
    scheduler = manual_scheduler(monkeypatch, clock)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    expiry = clock.wall() + 3_600
    hung = Issuer(wall=clock.wall)
    hung.hold()
    stuck = credential_type(make_token(expiry), token_refresher=hung, proactive_refresh=True)
    served = Issuer(wall=clock.wall)
    others = [
        credential_type(make_token(expiry), token_refresher=served, proactive_refresh=True)
        for _ in range(20)
    ]
    clock.advance(3_000)
    scheduler.run_due()
    hung.wait_for_call(1)
    served.wait_for_call(20)
    clock.advance(3_600)
    scheduler.run_due()
    served.wait_for_call(40)
    assert hung.calls == 1
    assert served.calls == 40
    assert 1 <= len(scheduler.workers.threads) <= 8
    hung.release()
    for credential in (stuck, *others):
        credential.close()


# ---- Interrupts


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_waiter_takes_over_from_an_interrupted_leader(
    clock: Clock,
    waiting: tuple[type[CommunicationTokenCredential], Tally],
    interrupt: type[BaseException],
) -> None:
    """The leader leaves with its own exception, which is no failure for the others."""
    credential_type, counted = waiting
    issuer = Issuer(interrupt, wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=issuer)
    calls = call_together(10, credential.get_token)
    counted.wait_for(10)
    issuer.release()
    for call in calls:
        call.settle()
    left = [call for call in calls if call._error is not None]
    assert [type(call.error()) for call in left] == [interrupt]
    assert len({call.value().token for call in calls if call not in left}) == 1
    assert issuer.calls == 2
    assert state_of(credential).failures == 0


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_main_thread_leaves_the_others_alone(
    waiting: tuple[type[CommunicationTokenCredential], Tally],
) -> None:
    """A real SIGINT in the leader's refresher is the leader's; a waiter takes over."""
    credential_type, counted = waiting
    waiters: list[Call[AccessToken]] = []

    def interrupted() -> None:
        waiters.append(Call(credential.get_token))
        counted.wait_for(2)
        signal.raise_signal(signal.SIGINT)

    fresh = make_token(4_000_000_000)
    issuer = Issuer(interrupted, fresh)
    credential = credential_type(token_refresher=issuer)
    with pytest.raises(KeyboardInterrupt):
        credential.get_token()
    assert waiters[0].value().token == fresh
    assert issuer.calls == 2


@pytest.mark.parametrize("proactive", [False, True])
def test_an_interrupt_at_any_point_costs_others_one_flight_at_most(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, proactive: bool
) -> None:
    """Wherever an interrupt hits a caller, others get a token, at the latest in 60 s."""
    scheduler = manual_scheduler(monkeypatch, clock)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    fresh = make_token(clock.wall() + 90_000)

    def interrupt() -> None:
        raise KeyboardInterrupt

    def ask() -> None:
        with fault:
            credential.get_token()

    for nth in range(1, 10_000):
        credential = credential_type(token_refresher=lambda: fresh, proactive_refresh=proactive)
        fault = Fault(nth, interrupt)
        first = Call(ask)
        first.settle()
        if not fault.happened:
            break
        assert isinstance(first.error(), KeyboardInterrupt)
        clock.advance(60)
        assert Call(credential.get_token).value().token == fresh
        Call(scheduler.run_due).value()
        credential.close()
    assert nth > 20


def test_the_background_goes_on_after_an_interrupted_caller(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it left a refresh to a caller who was interrupted, it tries again itself."""
    scheduler = manual_scheduler(monkeypatch, clock)
    scheduler.workers = InlineWorkers()
    fresh = make_token(clock.wall() + 7_200)

    def interrupted() -> None:
        scheduler.run_due()
        raise KeyboardInterrupt

    issuer = Issuer(interrupted, fresh)
    credential = on_clock(CommunicationTokenCredential, clock)(
        make_token(clock.wall() + 3_600), token_refresher=issuer, proactive_refresh=True
    )
    clock.advance(3_500)
    with pytest.raises(KeyboardInterrupt):
        credential.get_token()
    assert issuer.calls == 1
    clock.advance(5)
    scheduler.run_due()
    assert issuer.calls == 2
    assert credential.get_token().token == fresh


def test_the_background_survives_a_refresher_that_exits(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 15: ``sys.exit`` in a background refresh is a failure like any other."""
    scheduler = manual_scheduler(monkeypatch, clock)
    scheduler.workers = InlineWorkers()
    first, fresh = make_token(clock.wall() + 3_600), make_token(clock.wall() + 7_200)
    issuer = Issuer(SystemExit, fresh)
    credential = on_clock(CommunicationTokenCredential, clock)(
        first, token_refresher=issuer, proactive_refresh=True
    )
    clock.advance(3_000)
    scheduler.run_due()
    assert credential.get_token().token == first
    assert "SystemExit" in caplog.text
    clock.advance(300)
    scheduler.run_due()
    assert credential.get_token().token == fresh


def test_a_signal_handler_may_ask_for_a_token(clock: Clock) -> None:
    """Wherever a handler interrupts a thread that changes the state, it gets a token at once."""
    for nth in range(1, 10_000):
        first, answers = make_token(clock.wall() + 3_600), []
        credential = on_clock(CommunicationTokenCredential, clock)(
            first, token_refresher=Issuer(wall=clock.wall)
        )
        fault = Fault(nth, lambda: answers.append(credential.get_token().token))  # noqa: B023

        def invalidate() -> None:
            with fault:  # noqa: B023
                credential.invalidate_token(first)  # noqa: B023

        Call(invalidate).value()
        assert credential.get_token().token != first
        if not fault.happened:
            break
        assert len(answers) == 1
    assert nth > 10


# ---- Re-entrance


def test_a_refresher_that_asks_its_own_credential_gets_the_valid_token(clock: Clock) -> None:
    """While the token is valid, the refresher is served like anybody else."""
    first, fresh = make_token(clock.wall() + 100), make_token(clock.wall() + 3_600)
    seen: list[str] = []

    def refresh() -> str:
        seen.append(credential.get_token().token)
        seen.append(Call(credential.get_token).value().token)
        return fresh

    credential = on_clock(CommunicationTokenCredential, clock)(first, token_refresher=refresh)
    clock.advance(60)
    assert credential.get_token().token == fresh
    assert seen == [first, first]


@pytest.mark.parametrize("claims", [None, "{}"])
@pytest.mark.parametrize("by_helper", [False, True])
def test_a_refresher_that_asks_its_own_credential_in_vain_is_told(
    clock: Clock, by_helper: bool, claims: str | None
) -> None:
    """Without a valid token it gets a clear error, also on a thread of its context."""

    def refresh() -> str:
        if not by_helper:
            return credential.get_token(claims=claims).token
        context = contextvars.copy_context()
        return Call(lambda: context.run(credential.get_token, claims=claims)).value().token

    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=refresh)
    with pytest.raises(RuntimeError, match="from the credential that it refreshes"):
        Call(credential.get_token).value()


def test_a_refresher_that_waits_for_itself_through_a_helper_ends(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally]
) -> None:
    """A helper thread of which nothing is known waits no longer than a refresh may."""
    credential_type, counted = waiting

    def refresh() -> str:
        clock.advance(59.9)
        helper = Call(credential.get_token)
        counted.wait_for(2)
        clock.advance(0.2)
        return helper.value().token

    issuer = Issuer(refresh, refresh)
    credential = credential_type(token_refresher=issuer)
    with pytest.raises(TimeoutError, match="60 seconds"):
        Call(credential.get_token).value()
    assert issuer.calls == 1


def test_a_refresher_may_close_its_own_credential(clock: Clock) -> None:
    """Closing from inside ends the refresh with the error of a closed credential."""

    def refresh() -> str:
        credential.close()
        return make_token(clock.wall() + 3_600)

    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=refresh)
    with pytest.raises(RuntimeError, match="has been closed"):
        Call(credential.get_token).value()


# ---- No thread to be had


def test_without_threads_tokens_are_refreshed_when_they_are_asked_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no thread can be started, one warning says so and callers refresh."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    scheduler = manual_scheduler(monkeypatch, clock)
    runner = scheduler.runner.pop("thread")
    monkeypatch.setattr(sync_scheduler, "_warned", False)
    issuer = Issuer(wall=clock.wall)
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        credentials = [
            on_clock(CommunicationTokenCredential, clock)(
                make_token(clock.wall() + 3_600), token_refresher=issuer, proactive_refresh=True
            )
            for _ in range(3)
        ]
        clock.advance(3_000)
        scheduler.run_due()
        assert issuer.calls == 0
        clock.advance(550)
        for credential in credentials:
            assert credential.get_token().expires_on == clock.wall() + 3_600
    assert issuer.calls == 3
    assert [record.getMessage() for record in caplog.records] == [
        "Proactive refresh is off: no thread could be started (can't start new thread). Tokens are "
        "refreshed on demand."
    ]
    scheduler.runner["thread"] = runner
    clock.advance(3_000)
    scheduler.run_due()  # now that there are threads
    issuer.wait_for_call(6)


# ---- Finalizers


@pytest.mark.parametrize("role", ["leader", "waiter"])
def test_a_finalizer_may_close_the_credential_at_any_point(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally], role: str
) -> None:
    """A finalizer that the collector runs on a caller's thread, wherever, is no hang."""
    credential_type, counted = waiting
    steps = 0

    def finalize() -> None:
        counted.count()  # or the test would wait for one who got no further
        credential.close()

    def ask() -> AccessToken:
        with fault:
            return credential.get_token()

    for nth in range(1, 10_000):
        issuer = Issuer(wall=clock.wall)
        issuer.hold()
        credential = credential_type(token_refresher=issuer)
        fault = Fault(nth, finalize)
        already = counted.value
        first = Call(ask if role == "leader" else credential.get_token)
        counted.wait_for(already + 1)
        second = Call(credential.get_token if role == "leader" else ask)
        if role == "waiter":
            counted.wait_for(already + 2)
        issuer.release()
        for call in (first, second):
            call.settle()
            assert call._error is None or "has been closed" in str(call._error)
        if not fault.happened:
            break
        assert state_of(credential).closed
        steps = nth
    assert steps > 20
    assert first.value().token == second.value().token


# ---- Closing


def test_close_fails_the_waiters_and_drops_what_comes_later(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally]
) -> None:
    """Closing in the middle of a refresh does not wait for it, and nobody else does."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(make_token(clock.wall() + 60), token_refresher=issuer)
    expire(credential, clock)
    leader = Call(credential.get_token)
    issuer.wait_for_call(1)
    waiters = call_together(5, credential.get_token)
    counted.wait_for(6)
    Call(credential.close).value()
    for waiter in waiters:
        with pytest.raises(RuntimeError, match="has been closed"):
            waiter.value()
    assert leader.is_alive()
    issuer.release()
    with pytest.raises(RuntimeError, match="has been closed"):
        leader.value()
    with pytest.raises(RuntimeError, match="has been closed"):
        credential.get_token()
    assert issuer.calls == 1
    assert state_of(credential).token is None


def test_close_is_terminal_and_may_be_repeated(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed credential refreshes no more, whoever closed it and however often."""
    scheduler = manual_scheduler(monkeypatch, clock)
    issuer = Issuer(wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(
        make_token(clock.wall() + 3_600), token_refresher=issuer, proactive_refresh=True
    )
    with pytest.raises(KeyError), credential:
        raise KeyError
    for call in call_together(5, credential.close):
        call.value()
    clock.advance(4_000)
    scheduler.run_due()
    for ask in (credential.get_token, credential.get_token_info, credential.__enter__):
        with pytest.raises(RuntimeError, match="has been closed"):
            ask()
    assert issuer.calls == 0


def reachable(root: object) -> Iterator[object]:
    """Yield everything that an object refers to, directly or not, except code and modules."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, (type, type(sys), type(reachable))):
            continue
        seen.add(id(thing))
        yield thing
        todo.extend(gc.get_referents(thing))


def test_a_closed_credential_forgets_its_token(clock: Clock) -> None:
    """Nothing that a closed credential refers to holds the token any more."""
    token = make_token(clock.wall() + 3_600)
    credential = CommunicationTokenCredential(token, token_refresher=Issuer())
    assert token in reachable(credential)
    credential.close()
    assert token not in reachable(credential)


# ---- Secrets


def test_no_secret_shows(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """No token in a repr, a log record, an exception or a traceback."""
    caplog.set_level(logging.DEBUG)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    first, second = make_token(clock.wall() + 100), make_token(clock.wall() + 3_600)
    expired = make_token(clock.wall() - 100)
    texts: list[str] = []

    def look(*things: object) -> None:
        texts.extend(form(thing) for thing in things for form in (repr, str, "{}".format))

    def refresh() -> str:
        look(*state_of(credential).refreshes, credential)
        return second

    issuer = Issuer(ConnectionError, refresh, expired, first, 42, "Bearer " + second)
    credential = credential_type(first, token_refresher=issuer)
    look(credential.get_token(), credential.get_token_info(), state_of(credential))
    clock.advance(60)
    credential.get_token()  # fails
    look(credential, state_of(credential))
    clock.advance(41)
    look(credential.get_token(), credential.get_token_info(), state_of(credential))
    for _ in range(4):
        credential.invalidate_token(second)
        clock.advance(4_000)
        with pytest.raises((TypeError, ValueError)) as caught:
            credential.get_token()
        texts.append("".join(traceback.format_exception(caught.value)))
    for act in (pickle.dumps, copy.copy, copy.deepcopy, vars):
        with pytest.raises(TypeError) as refused:
            act(credential)
        texts.append("".join(traceback.format_exception(refused.value)))
    static = CommunicationTokenCredential(expired)
    look(static, static.get_token(), static.get_token_info(), state_of(static))
    malformed: list[Any] = ["Bearer " + first, first + "\n", f'"{first}"', {"token": first}]
    for given in malformed:
        with pytest.raises((TypeError, ValueError)) as wrong:
            CommunicationTokenCredential(given)
        texts.append("".join(traceback.format_exception(wrong.value)))
    with pytest.raises(TypeError) as mistyped:
        CommunicationTokenCredential(first, token_refreshr=lambda: first)  # type: ignore[call-overload]
    texts.append("".join(traceback.format_exception(mistyped.value)))
    texts.append(caplog.text)
    texts.extend(str(vars(record)) for record in caplog.records)
    assert len(caplog.records) == 3
    assert issuer.calls == 6
    for token in (first, second, expired):
        for part in token.split(".")[1:2]:
            assert [text for text in texts if part in text] == []


@pytest.mark.parametrize("kind", [AccessToken, AccessTokenInfo])
def test_a_token_object_is_shown_without_its_token(clock: Clock, kind: type[Any]) -> None:
    """What azure-core's classes would print, ours keep to themselves."""
    given = kind("opaque-secret", int(clock.wall()) + 3_600)
    assert "opaque-secret" in repr(given)
    credential = on_clock(CommunicationTokenCredential, clock)(given)
    assert "opaque-secret" not in repr(credential.get_token())
    assert "opaque-secret" not in repr(credential.get_token_info())
    assert credential.get_token().token == "opaque-secret"
