"""What real threads do to one synchronous credential, and signals to the thread that refreshes."""

import contextvars
import logging
import queue
import signal
import threading
from collections.abc import Iterator

import pytest
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken

from scaffolding import (
    DEADLINE,
    Call,
    CallFault,
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
    wait_until,
)
from scaffolding import waiting as number_waiting


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


# ---- Many callers, one refresh


# ---- What a refresher returns


# ---- Waiters


def test_a_waiter_whom_no_call_reaches_looks_for_itself(
    clock: Clock,
    waiting: tuple[type[CommunicationTokenCredential], Tally],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under gevent, a call from another thread need not wake it, so it looks each second."""
    sleeps: list[float] = []

    class DeafQueue(queue.SimpleQueue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            sleeps.append(timeout or 0)
            raise queue.Empty

    credential_type, _ = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=issuer)
    leader = Call(credential.get_token)
    issuer.wait_for_call(1)
    monkeypatch.setattr(queue, "SimpleQueue", DeafQueue)
    waiter = Call(credential.get_token)
    wait_until(lambda: len(sleeps) > 2)
    assert number_waiting(credential) <= 1
    issuer.release()
    assert waiter.value() is leader.value()
    assert set(sleeps) == {1}


# ---- A refresher that hangs


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
    wait_until(lambda: not any(state_of(each).refreshes for each in others))
    clock.advance(3_600)
    scheduler.run_due()
    served.wait_for_call(40)
    assert hung.calls == 1
    assert served.calls == 40
    assert 1 <= len(scheduler.workers.threads) <= 8
    hung.release()
    for credential in (stuck, *others):
        credential.close()


def test_while_all_workers_hang_each_credential_is_queued_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it has been due since, and refreshed by its callers."""
    scheduler = manual_scheduler(monkeypatch, clock)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    hung, served = Issuer(wall=clock.wall), Issuer(wall=clock.wall)
    hung.hold()
    stuck = [credential_type(token_refresher=hung, proactive_refresh=True) for _ in range(8)]
    scheduler.run_due()
    hung.wait_for_call(8)
    others = [credential_type(token_refresher=served, proactive_refresh=True) for _ in range(20)]
    for period in range(1, 6):
        for credential in others:
            credential.get_token()
        assert served.calls == period * 20
        scheduler.run_due()
        clock.advance(3_000)
        scheduler.run_due()
        assert len(scheduler.workers) <= 28  # those that hang are due again, too
        clock.advance(500)
    for credential in others:
        credential.get_token()
    hung.release()
    wait_until(lambda: all(state_of(each).token is not None for each in stuck))
    wait_until(lambda: len(scheduler.workers) == 0)
    assert (hung.calls, served.calls) == (8, 120)
    for credential in (*stuck, *others):
        credential.close()


# ---- Interrupts


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_waiter_takes_over_from_an_interrupted_leader(
    clock: Clock,
    waiting: tuple[type[CommunicationTokenCredential], Tally],
    interrupt: type[BaseException],
) -> None:
    """The leader leaves with its own exception, which is not a failure for the others."""
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
    """``sys.exit`` in a background refresh is a failure like any other."""
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
def test_a_refresher_that_asks_its_own_credential_is_told(
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
    monkeypatch.setattr(sync_scheduler, "warned", False)
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
    workers = scheduler.workers  # are busy for a moment yet, which would disturb the next test
    wait_until(lambda: len(workers.idle) == len(workers.threads))


def test_a_log_handler_may_make_a_credential_while_no_thread_can_be_had(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package logs while it holds no lock, for a handler holds one of its own."""
    credential_type = on_clock(CommunicationTokenCredential, clock)
    entered, refused = threading.Event(), threading.Event()
    made: list[CommunicationTokenCredential] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "azure-communication-refresh":
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    def make() -> None:
        token = make_token(clock.wall() + 3_600)
        made.append(credential_type(token, token_refresher=Issuer(), proactive_refresh=True))

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "user":
                entered.set()
                refused.wait(DEADLINE)
            make()

    monkeypatch.setattr(sync_scheduler, "schedulers", {})
    monkeypatch.setattr(sync_scheduler, "warned", False)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    handler = Handler()
    logging.getLogger().addHandler(handler)
    try:
        user = Call(lambda: logging.getLogger("user").warning("locks the handler"))
        assert entered.wait(DEADLINE)
        first = Call(make)  # and the package warns
        user.value()
        first.value()
    finally:
        logging.getLogger().removeHandler(handler)
    assert len(made) == 3
    for credential in made:
        assert credential.get_token().expires_on == clock.wall() + 3_600


# ---- Finalizers


@pytest.mark.parametrize("act", ["close", "ask"])
@pytest.mark.parametrize("role", ["leader", "waiter"])
def test_a_finalizer_may_use_the_credential_at_any_point(
    clock: Clock, waiting: tuple[type[CommunicationTokenCredential], Tally], role: str, act: str
) -> None:
    """A finalizer that the collector runs on a caller's thread, at any point, does not hang."""
    credential_type, counted = waiting

    def finalize() -> None:
        counted.count()  # or the test would wait for one who got no further
        if act == "close":
            credential.close()
            return
        try:
            answers.append(credential.get_token().token)
        except RuntimeError as error:  # its own thread refreshes
            answers.append(str(error).partition(" from ")[0])

    def ask() -> AccessToken:
        with fault:
            return credential.get_token()

    for nth in range(1, 10_000):
        answers: list[str] = []
        issuer = Issuer(wall=clock.wall)
        issuer.hold()
        credential = credential_type(token_refresher=issuer)
        fault = CallFault(nth, finalize)
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
        if act == "close":
            assert state_of(credential).closed
        else:
            assert answers in ([first.value().token], ["token_refresher requested a token"])
    assert nth > 20
    assert first.value().token == second.value().token


# ---- Closing


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
