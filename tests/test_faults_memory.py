"""What the garbage collector does to credentials, and finalizers to those who hold a lock.

The faults are numbered as in the project's list of fifty.
"""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.communication.common import CommunicationTokenCredential, aio
from azure.communication.common.aio._scheduler import scheduler as loop_scheduler

from scaffolding import (
    DEADLINE,
    Call,
    Clock,
    Fault,
    Issuer,
    make_token,
    manual_scheduler,
    on_clock,
    run_async,
    turn_until,
    wait_until,
)


@pytest.fixture
def clock() -> Clock:
    return Clock(wall=time.time())  # which the loops' timers go by


class Owner:
    """A client that makes its own credential, whose refresher is a method of the client's."""

    def __init__(self, make: Callable[..., Any], clock: Clock) -> None:
        self.clock = clock
        self.is_away = False
        self.credential = make(
            make_token(clock.wall() + 3_600), token_refresher=self.refresh, proactive_refresh=True
        )

    def refresh(self) -> str:
        if self.is_away:
            raise ConnectionError
        return make_token(self.clock.wall() + 3_600)


class AsyncOwner(Owner):
    async def refresh(self) -> str:  # type: ignore[override]
        return super().refresh()


# ---- Dropped credentials


def test_credentials_that_are_dropped_without_close_are_collected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 26: two thousand leave no entry behind and call no refresher."""
    scheduler = manual_scheduler(monkeypatch, clock)
    issuer = Issuer(wall=clock.wall)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    credentials = [
        credential_type(
            make_token(clock.wall() + 3_600), token_refresher=issuer, proactive_refresh=True
        )
        for _ in range(2_000)
    ]
    kept = credentials[7]
    references = [weakref.ref(credential) for credential in credentials]
    del credentials
    assert [reference() for reference in references if reference() is not None] == [kept]
    scheduler.run_due()
    assert len(scheduler._schedule) == 1
    clock.advance(3_000)
    scheduler.run_due()
    issuer.wait_for_call(1)
    wait_until(lambda: not kept._flights)
    assert issuer.calls == 1
    kept.close()


def test_aio_credentials_that_are_dropped_without_close_are_collected(clock: Clock) -> None:
    """Fault 26: on an event loop as well, where no task and only one timer is left behind."""
    issuer = Issuer(wall=clock.wall)
    credential_type = on_clock(aio.CommunicationTokenCredential, clock)

    async def main() -> None:
        credentials = [
            credential_type(
                make_token(clock.wall() + 3_600),
                token_refresher=issuer.issue,
                proactive_refresh=True,
            )
            for _ in range(2_000)
        ]
        await asyncio.gather(*(credential.get_token() for credential in credentials))
        references = [weakref.ref(credential) for credential in credentials]
        del credentials
        assert not any(reference() for reference in references)
        timers = loop_scheduler(asyncio.get_running_loop())
        timers._look()
        assert len(timers._schedule) == 0
        assert len(asyncio.all_tasks()) == 1

    run_async(main())
    assert issuer.calls == 0


@pytest.mark.parametrize("use", ["unused", "refreshed", "failed"])
def test_a_client_with_its_credential_and_its_method_is_collected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    """Fault 26: a refresher that is a method of the owner makes a circle, and no more than that."""
    scheduler = manual_scheduler(monkeypatch, clock)
    owner = Owner(on_clock(CommunicationTokenCredential, clock), clock)
    if use == "failed":
        clock.advance(3_700)
        owner.is_away = True
        with pytest.raises(ConnectionError):
            owner.credential.get_token()
    elif use == "refreshed":
        clock.advance(3_000)
        scheduler.run_due()  # by a worker, which then idles
        clock.advance(700)
        owner.credential.get_token()
    reference = weakref.ref(owner)
    del owner
    wait_until(lambda: gc.collect() >= 0 and reference() is None)
    scheduler.run_due()
    assert len(scheduler._schedule) == 0


@pytest.mark.parametrize("use", ["unused", "refreshed", "failed"])
def test_an_aio_client_with_its_credential_and_its_method_is_collected(
    clock: Clock, use: str
) -> None:
    """Fault 26: the same on an event loop that goes on running."""

    async def main() -> None:
        owner = AsyncOwner(on_clock(aio.CommunicationTokenCredential, clock), clock)
        await owner.credential.get_token()
        if use == "failed":
            clock.advance(3_700)
            owner.is_away = True
            with pytest.raises(ConnectionError):
                await owner.credential.get_token()
        elif use == "refreshed":
            clock.advance(3_700)
            await owner.credential.get_token()
        reference = weakref.ref(owner)
        del owner
        await turn_until(lambda: gc.collect() >= 0 and reference() is None)

    run_async(main())


def test_a_dropped_credential_with_a_refresh_under_way_is_collected_after_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 26: the worker that refreshes a credential keeps it for as long, and no longer."""
    scheduler = manual_scheduler(monkeypatch, clock)
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = on_clock(CommunicationTokenCredential, clock)(
        token_refresher=issuer, proactive_refresh=True
    )
    scheduler.run_due()
    issuer.wait_for_call(1)
    reference = weakref.ref(credential)
    del credential
    gc.collect()
    assert reference() is not None
    issuer.release()
    wait_until(lambda: gc.collect() >= 0 and reference() is None)
    scheduler.run_due()
    assert issuer.calls == 1


def test_an_aio_refresh_under_way_ends_for_a_credential_that_was_dropped(clock: Clock) -> None:
    """Fault 26: on a loop a refresh goes on without anybody who waits, and then lets go."""
    issuer = Issuer(wall=clock.wall)
    issuer.hold()

    async def main() -> None:
        credential = on_clock(aio.CommunicationTokenCredential, clock)(
            token_refresher=issuer.issue, proactive_refresh=True
        )
        await turn_until(lambda: issuer.calls == 1)
        reference = weakref.ref(credential)
        del credential
        gc.collect()
        assert reference() is not None
        issuer.release()
        await turn_until(lambda: gc.collect() >= 0 and reference() is None)

    run_async(main())
    assert issuer.calls == 1


def test_a_failure_keeps_nothing_of_the_refresher_alive(clock: Clock) -> None:
    """Fault 26: the failure that a credential remembers has no traceback, which holds variables."""
    left: list[weakref.ref[set[int]]] = []

    def refresh() -> str:
        response = {200}
        left.append(weakref.ref(response))
        raise ConnectionError

    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=refresh)
    for _ in range(5):
        with pytest.raises(ConnectionError):
            credential.get_token()
    assert len(left) == 2
    gc.collect()
    assert [reference() for reference in left] == [None, None]


# ---- Finalizers and callbacks while locks are held


def test_dropping_a_credential_takes_no_lock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 32: the callback of the weak reference runs although the scheduler is locked."""
    scheduler = manual_scheduler(monkeypatch, clock)
    held, done = threading.Event(), threading.Event()
    credentials = [
        on_clock(CommunicationTokenCredential, clock)(
            make_token(clock.wall() + 3_600), token_refresher=Issuer(), proactive_refresh=True
        )
        for _ in range(10)
    ]

    def hold() -> None:
        with scheduler._lock, scheduler._workers._changed:
            held.set()
            done.wait(DEADLINE)

    holder = Call(hold)
    assert held.wait(DEADLINE)
    Call(credentials[0].close).value()
    Call(credentials.clear).value()
    done.set()
    holder.settle()
    scheduler.run_due()
    assert len(scheduler._schedule) == 0


@pytest.mark.parametrize("act", ["close", "drop", "arm"])
def test_a_finalizer_may_run_while_the_scheduler_is_at_work(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Fault 32: wherever it hits the thread that arms a credential, that one is armed."""
    scheduler = manual_scheduler(monkeypatch, clock)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    token = make_token(clock.wall() + 3_600)

    def make() -> CommunicationTokenCredential:
        return credential_type(token, token_refresher=Issuer(), proactive_refresh=True)

    def finalize() -> None:
        if act == "close":
            victims[1].close()
        elif act == "drop":
            victims.clear()
        else:
            victims.append(make())

    def arm() -> CommunicationTokenCredential:
        with fault:
            return make()

    for nth in range(1, 10_000):
        victims = [make() for _ in range(3)]
        fault = Fault(nth, finalize)
        other = Call(arm).value()
        for victim in victims:
            victim.close()
        assert scheduler._schedule.items() == [other]
        other.close()
        scheduler.run_due()
        assert len(scheduler._schedule) == 0
        if not fault.happened:
            break
    assert nth > 20


class Finalized(Owner):
    """A client whose finalizer uses and closes its credential; only the collector frees it."""

    ended = 0

    def __del__(self) -> None:
        self.credential.get_token()
        self.credential.close()
        Finalized.ended += 1


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """A collector that runs at nearly every allocation."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1, 1, 1_000)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collector")
def test_finalizers_that_use_credentials_run_anywhere(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults 20 and 32: clients are dropped by several threads while the collector storms."""
    manual_scheduler(monkeypatch, clock)
    monkeypatch.setattr(Finalized, "ended", 0)
    credential_type = on_clock(CommunicationTokenCredential, clock)

    def churn() -> None:
        for _ in range(50):
            owner = Finalized(credential_type, clock)
            owner.credential.invalidate_token(owner.credential.get_token().token)
            del owner

    for call in [Call(churn) for _ in range(4)]:
        call.value()
    gc.collect()
    wait_until(lambda: Finalized.ended == 200)
