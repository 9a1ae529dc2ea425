"""What coroutines, event loops and cancellation do to one asynchronous credential."""

import asyncio
import contextlib
import gc
import logging
import sys
import time
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from azure.communication.common.aio import CommunicationTokenCredential
from azure.core.credentials import AccessToken

from scaffolding import (
    DEADLINE,
    Call,
    CallFault,
    Clock,
    Issuer,
    Late,
    Tally,
    TokenCache,
    aio_credential,
    armed_caches,
    cache_of,
    call_together,
    clock_loop,
    count_waiting,
    loop_scheduler,
    make_token,
    on_clock,
    rules,
    run_async,
    running_loop,
    state_of,
    stop_loop,
    turn_until,
    wait_until,
)
from scaffolding import waiting as number_waiting

T = TypeVar("T")
Waiting = tuple[type[CommunicationTokenCredential], Tally]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def waiting(clock: Clock) -> Waiting:
    """The credential's class on the clock, and the count of those who wait for a refresh."""
    return count_waiting(on_clock(CommunicationTokenCredential, clock))


@pytest.fixture(scope="module", autouse=True)
def quick_collector() -> Iterator[None]:
    """A collector that leaves alone what there was before these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What asyncio complains of: by default nothing, such as a result that was never retrieved."""
    expected: list[str] = []
    yield expected
    gc.collect()
    assert [
        record.getMessage().splitlines()[0]
        for record in [*caplog.get_records("call"), *caplog.get_records("teardown")]
        if record.name == "asyncio" and record.levelno >= logging.WARNING
    ] == expected


# ---- Many callers, one refresh


def test_coroutines_share_one_refresh_beside_a_heartbeat(clock: Clock, waiting: Waiting) -> None:
    """There is one call for all who find an expired token, and the loop keeps running."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(make_token(clock.wall() + 60), token_refresher=issuer.issue)
    clock.advance(61)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    async def main() -> set[str]:
        heart = asyncio.create_task(beat())
        calls = [asyncio.create_task(credential.get_token()) for _ in range(1_000)]
        await turn_until(lambda: counted.value == 1_000)
        begun = beats
        await turn_until(lambda: beats >= begun + 100)
        issuer.release()
        tokens = {token.token for token in await asyncio.gather(*calls)}
        heart.cancel()
        return tokens

    assert len(run_async(main())) == 1
    assert issuer.calls == 1
    assert counted.value == 1_000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio has no eager tasks yet")
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_eager_tasks_make_no_difference(clock: Clock, kind: str) -> None:
    """Where tasks start eagerly, a refresh may be over before its caller awaits it."""
    issuer = Issuer(ConnectionError, wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(
        token_refresher=issuer if kind == "plain" else issuer.issue
    )

    async def main() -> list[Any]:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        with pytest.raises(ConnectionError):
            await credential.get_token()
        return await asyncio.gather(*(credential.get_token() for _ in range(10)))

    assert len({token.token for token in run_async(main())}) == 1
    assert issuer.calls == 2


# ---- With a valid token nobody waits for long


def test_nobody_waits_for_a_slow_refresh_of_a_valid_token(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started the refresh waits a while and continues with the token, others at once."""
    monkeypatch.setattr(rules, "PATIENCE_SECONDS", 0.05)
    first, fresh = make_token(clock.wall() + 200), make_token(clock.wall() + 3_600)
    issuer = Issuer(fresh)
    issuer.hold()
    credential = on_clock(CommunicationTokenCredential, clock)(first, token_refresher=issuer.issue)
    clock.advance(150)

    async def main() -> list[str]:
        leader = asyncio.create_task(credential.get_token())
        await turn_until(lambda: issuer.calls == 1)
        tokens = [(await credential.get_token()).token for _ in range(10)]
        assert not leader.done()
        tokens.append((await leader).token)
        issuer.release()
        await turn_until(lambda: not state_of(credential).refreshes)
        return [*tokens, (await credential.get_token()).token]

    assert run_async(main()) == [first] * 11 + [fresh]
    assert issuer.calls == 1


# ---- A refresher that hangs


def run_on_clock(main: Coroutine[Any, Any, T], clock: Clock) -> T:
    """Run a coroutine as ``asyncio.run`` does, but move the clock on instead of sleeping."""
    with clock_loop(clock) as loop:
        return loop.run_until_complete(main)


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_refresh_that_hangs_is_given_up(clock: Clock, stubborn: bool) -> None:
    """It is cancelled, even if it does not end then, and the next caller starts again."""
    log: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            log.append("cancelled")
            if stubborn:
                await asyncio.sleep(3_600)
            raise

    issuer = Issuer(hang, wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer.issue)
    start = clock.mono()

    async def main() -> AccessToken:
        calls = [credential.get_token() for _ in range(10)]
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, TimeoutError)
        assert clock.mono() == start + 60
        await turn_until(lambda: log == ["cancelled"])
        return await credential.get_token()

    assert run_on_clock(main(), clock).expires_on > clock.wall()
    assert issuer.calls == 2


@pytest.mark.parametrize("end", ["given up", "cancelled", "left behind"])
def test_a_refresher_that_turns_its_cancellation_into_an_error_is_heard_no_more(
    clock: Clock, end: str
) -> None:
    """Nobody is told of an error that nobody waits for, not even asyncio's log."""

    async def turn() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            raise ValueError("secret")

    issuer = Issuer(turn, wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer.issue)

    async def main() -> None:
        caller = asyncio.create_task(credential.get_token())
        await turn_until(lambda: issuer.calls == 1)
        if end == "given up":
            with pytest.raises(TimeoutError, match="did not finish"):
                await caller
        elif end == "cancelled":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller

    run_on_clock(main(), clock)
    assert run_on_clock(credential.get_token(), clock).expires_on > clock.wall()
    assert issuer.calls == 2


@pytest.mark.parametrize("error", [asyncio.TimeoutError(), TimeoutError("of its own")])
def test_a_time_out_of_the_refresher_is_its_own(error: Exception) -> None:
    """A time-out that the refresher raised is not confused with that of the refresh."""
    credential = CommunicationTokenCredential(token_refresher=Issuer(error).issue)
    with pytest.raises(type(error)) as caught:
        run_async(credential.get_token())
    assert caught.value is error


# ---- Interrupts and cancellation


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_waiter_on_another_loop_takes_over_from_an_interrupted_one(
    waiting: Waiting, kind: str, interrupt: type[BaseException]
) -> None:
    """An interrupt ends its own loop; it is not a failure for those who wait elsewhere."""
    credential_type, counted = waiting
    fresh = make_token(4_000_000_000)
    waiters: list[Call[AccessToken]] = []

    def interrupted() -> None:
        waiters.append(Call(lambda: asyncio.run(credential.get_token())))
        counted.wait_for(2)
        raise interrupt

    issuer = Issuer(interrupted, fresh)
    credential = credential_type(token_refresher=issuer if kind == "plain" else issuer.issue)
    with pytest.raises(interrupt):
        run_async(credential.get_token())
    assert waiters[0].value().token == fresh
    assert run_async(credential.get_token()).token == fresh
    assert issuer.calls == 2
    assert state_of(credential).failures == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, pytest.fail.Exception])
def test_a_refresher_that_cancels_itself_has_failed(
    clock: Clock, error: type[BaseException]
) -> None:
    """A BaseException that the refresher raises is a failure, and not a storm."""
    first = make_token(clock.wall() + 100)
    issuer = Issuer(error, error)
    credential_type = on_clock(CommunicationTokenCredential, clock)

    async def main() -> list[Any]:
        calls = (credential_type(token_refresher=issuer.issue).get_token() for _ in range(1))
        failed = await asyncio.gather(*calls, return_exceptions=True)
        credential = credential_type(first, token_refresher=issuer.issue)
        clock.advance(60)
        return [*failed, *[(await credential.get_token()).token for _ in range(10)]]

    failure, *tokens = run_async(main())
    assert isinstance(failure, RuntimeError)
    assert error.__name__ in str(failure)
    assert tokens == [first] * 10
    assert issuer.calls == 2


@pytest.mark.parametrize(
    "victims", [[0], [1], [0, 1, 2, 3, 4]], ids=["the leader", "a waiter", "everyone"]
)
def test_a_cancelled_caller_changes_nothing_for_the_others(
    clock: Clock, waiting: Waiting, victims: list[int]
) -> None:
    """Whoever is cancelled, the refresh goes on and the others get its token."""
    credential_type, counted = waiting
    fresh = make_token(clock.wall() + 3_600)
    issuer = Issuer(fresh)
    issuer.hold()
    credential = credential_type(token_refresher=issuer.issue)

    async def main() -> list[Any]:
        calls = [asyncio.create_task(credential.get_token()) for _ in range(5)]
        await turn_until(lambda: counted.value == 5)
        for victim in victims:
            calls[victim].cancel()
        await turn_until(lambda: all(calls[victim].done() for victim in victims))
        issuer.release()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await turn_until(lambda: not state_of(credential).refreshes)
        return [*results, await credential.get_token()]

    results = run_async(main())
    for index, result in enumerate(results):
        if index in victims:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result.token == fresh
    assert issuer.calls == 1


@pytest.mark.parametrize("steps", range(6))
def test_a_cancellation_when_the_token_comes_is_not_lost(
    clock: Clock, waiting: Waiting, steps: int
) -> None:
    """Whoever is cancelled before the call is done is cancelled, also at its very end."""
    credential_type, counted = waiting
    fresh = make_token(clock.wall() + 3_600)
    issuer = Issuer(fresh)
    issuer.hold()
    credential = credential_type(token_refresher=issuer.issue)

    async def main() -> tuple[bool, list[Any]]:
        calls = [asyncio.create_task(credential.get_token()) for _ in range(3)]
        await turn_until(lambda: counted.value == 3)
        issuer.release()
        await turn_until(lambda: state_of(credential).token is not None)
        for _ in range(steps):
            await asyncio.sleep(0)
        was_in_time = calls[1].cancel()
        return was_in_time, await asyncio.gather(*calls, return_exceptions=True)

    was_in_time, (leader, victim, other) = run_async(main())
    assert isinstance(victim, asyncio.CancelledError) == was_in_time
    assert was_in_time or steps > 0
    assert leader.token == other.token == fresh
    assert issuer.calls == 1


def test_a_time_out_around_a_call_is_that_callers_alone(clock: Clock, waiting: Waiting) -> None:
    """``wait_for`` around ``get_token`` ends that call and no other."""
    credential_type, counted = waiting
    fresh = make_token(clock.wall() + 3_600)
    issuer = Issuer(fresh)
    issuer.hold()
    credential = credential_type(token_refresher=issuer.issue)

    async def main() -> AccessToken:
        hurried = asyncio.create_task(asyncio.wait_for(credential.get_token(), 0.01))
        patient = asyncio.create_task(credential.get_token())
        await turn_until(lambda: counted.value == 2)
        with pytest.raises(asyncio.TimeoutError):
            await hurried
        assert not patient.done()
        issuer.release()
        return await patient

    assert run_async(main()).token == fresh
    assert issuer.calls == 1


# ---- Many loops


def test_a_second_loop_goes_on_where_the_first_one_ended(clock: Clock) -> None:
    """One credential serves one ``asyncio.run`` after another, contended each time."""
    issuer = Issuer(wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer.issue)

    async def main() -> int:
        tokens = await asyncio.gather(*(credential.get_token() for _ in range(20)))
        return len({token.token for token in tokens})

    for run in range(1, 4):
        assert run_async(main()) == 1
        assert issuer.calls == run
        clock.advance(3_601)


def test_a_loop_whose_callers_have_been_served_is_collected() -> None:
    """The credential goes on without it."""
    credential = CommunicationTokenCredential(token_refresher=Issuer().issue)

    def run() -> "weakref.ref[asyncio.AbstractEventLoop]":
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            loop.run_until_complete(credential.get_token())
            return weakref.ref(loop)

    gone = Call(run).value()
    gc.collect()
    assert gone() is None


def test_a_loop_that_has_stopped_keeps_no_credential_alive(clock: Clock) -> None:
    """Nothing that happens to the credential is left on the loop for when it goes on."""
    with clock_loop(clock) as loop:
        credential = on_clock(CommunicationTokenCredential, clock)(
            token_refresher=Issuer(wall=clock.wall).issue, proactive_refresh=True
        )
        token = loop.run_until_complete(credential.get_token())
        credential.invalidate_token(token.token)
        gone = weakref.ref(cache_of(credential))
        del credential
        gc.collect()
        assert gone() is None


def test_a_credential_stays_with_the_loop_on_which_it_was_armed(clock: Clock) -> None:
    """As long as that one runs, though another one refreshes the token."""
    clock.set_wall(time.time())  # which the loops' timers go by
    issuer = Issuer(wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(
        make_token(clock.wall() + 3_600), token_refresher=issuer.issue, proactive_refresh=True
    )

    async def use() -> str:
        return (await credential.get_token()).token

    async def is_armed() -> bool:
        return cache_of(credential) in armed_caches()

    with running_loop() as first, running_loop() as second:
        loop_scheduler(first, clock)
        loop_scheduler(second, clock)

        def on(loop: asyncio.AbstractEventLoop, work: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(DEADLINE)

        before = on(first, use())
        wait_until(lambda: on(first, is_armed()))
        entry = cache_of(credential).entry
        clock.advance(3_590)
        assert on(second, use()) != before
        wait_until(lambda: cache_of(credential).entry != entry)
        assert (on(first, is_armed()), on(second, is_armed())) == (True, False)
    asyncio.run(credential.close())


def test_who_is_woken_by_another_s_refresh_waits_on(clock: Clock, waiting: Waiting) -> None:
    """Once more for its own, and not in a loop that never rests."""
    credential_type, counted = waiting
    late = Late(make_token(clock.wall() + 3_600))
    issuer = Issuer(late, ValueError("no such claims"))
    credential = credential_type(token_refresher=issuer.issue)

    async def main() -> None:
        calls = [asyncio.create_task(credential.get_token()) for _ in range(3)]
        await turn_until(lambda: counted.value == 3)
        with pytest.raises(ValueError, match="no such claims"):
            await credential.get_token(claims="c")
        for _ in range(100):
            await asyncio.sleep(0)
        assert counted.value == 3 + 1 + 3
        late.release()
        assert {token.token for token in await asyncio.gather(*calls)} == {late.step}

    run_async(main())


def test_a_caller_is_told_though_the_credential_is_closed_before_it_waits(clock: Clock) -> None:
    """Another thread may close it at any moment, and wakes those who wait by then."""

    class Closing(TokenCache):
        __slots__ = ()

        def begin(self, *args: Any) -> Any:
            decision = super().begin(*args)
            self.close()
            return decision

    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer.issue)
    cache_of(credential).__class__ = Closing
    with pytest.raises(RuntimeError, match="has been closed"):
        run_async(credential.get_token())


@pytest.mark.parametrize("proactive", [False, True])
def test_eight_loops_in_eight_threads_share_one_refresh(
    clock: Clock, waiting: Waiting, proactive: bool
) -> None:
    """Fifty coroutines on each of eight loops find an expired token: one call."""
    credential_type, counted = waiting
    clock.set_wall(time.time())  # which the loops' timers follow
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(
        make_token(clock.wall() + 60), token_refresher=issuer.issue, proactive_refresh=proactive
    )
    clock.advance(61)

    async def main() -> set[str]:
        return {
            token.token
            for token in await asyncio.gather(*(credential.get_token() for _ in range(50)))
        }

    threads = call_together(8, lambda: asyncio.run(main()))
    counted.wait_for(400)
    issuer.release()
    assert len(set.union(*(thread.value() for thread in threads))) == 1
    assert issuer.calls == 1
    asyncio.run(credential.close())


def test_a_loop_that_is_torn_down_hands_over(clock: Clock, waiting: Waiting) -> None:
    """Where ``asyncio.run`` ends in the middle of a refresh, a waiter elsewhere refreshes."""
    credential_type, counted = waiting
    fresh = make_token(clock.wall() + 3_600)
    issuer = Issuer(lambda: asyncio.sleep(3_600), fresh)
    credential = credential_type(token_refresher=issuer.issue)
    waiters: list[Call[AccessToken]] = []

    async def main() -> None:
        caller = asyncio.create_task(credential.get_token())
        await turn_until(lambda: issuer.calls == 1)
        waiters.append(Call(lambda: asyncio.run(credential.get_token())))
        await turn_until(lambda: counted.value == 2)
        assert not caller.done()

    run_async(main())
    assert waiters[0].value().token == fresh
    assert issuer.calls == 2
    assert state_of(credential).failures == 0


def test_a_newcomer_does_not_wait_for_a_loop_that_has_stopped(clock: Clock) -> None:
    """It starts another refresh at once, and what the stopped loop brings is judged."""
    late, fresh = make_token(clock.wall() + 1_800), make_token(clock.wall() + 3_600)
    issuer = Issuer(lambda: asyncio.sleep(0, late), fresh)
    issuer.hold()
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer.issue)
    with running_loop() as loop:
        call = asyncio.run_coroutine_threadsafe(credential.get_token(), loop)
        issuer.wait_for_call(1)
        stop_loop(loop)
        issuer.release()
        assert run_async(credential.get_token()).token == fresh
        assert issuer.calls == 2
        loop.run_until_complete(turn_until(call.done))
        assert call.result().token == fresh
        assert run_async(credential.get_token()).token == fresh


def test_waiters_take_over_from_a_loop_that_has_stopped(
    clock: Clock, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They notice it by themselves, on whatever loops they wait, and one of them refreshes."""
    monkeypatch.setattr(aio_credential, "LOOK_SECONDS", 0.01)
    credential_type, counted = waiting
    fresh = make_token(clock.wall() + 3_600)
    issuer = Issuer(lambda: asyncio.sleep(3_600), fresh)
    credential = credential_type(token_refresher=issuer.issue)

    async def wait() -> set[str]:
        calls = [credential.get_token() for _ in range(2)]
        return {token.token for token in await asyncio.gather(*calls)}

    with running_loop() as loop:
        left = asyncio.run_coroutine_threadsafe(credential.get_token(), loop)
        issuer.wait_for_call(1)
        waiters = [Call(lambda: asyncio.run(wait())) for _ in range(2)]
        counted.wait_for(5)
        stop_loop(loop)
        assert [waiter.value() for waiter in waiters] == [{fresh}] * 2
        assert issuer.calls == 2
        loop.run_until_complete(turn_until(left.done))  # who was left behind is served, too
        assert left.result().token == fresh


def test_who_waits_on_a_loop_that_is_closed_is_forgotten(
    clock: Clock, waiting: Waiting, complaints: list[str]
) -> None:
    """It can be told of no outcome, and keeps neither its loop nor the refresh from ending."""
    credential_type, counted = waiting
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=issuer.issue)

    def leave() -> "asyncio.Task[AccessToken]":
        loop = asyncio.new_event_loop()
        task = loop.create_task(credential.get_token())
        loop.run_until_complete(turn_until(lambda: counted.value == 2))
        loop.close()
        return task

    with running_loop() as loop:
        leader = asyncio.run_coroutine_threadsafe(credential.get_token(), loop)
        issuer.wait_for_call(1)
        left = Call(leave).value()
        assert number_waiting(credential) == 2
        issuer.release()
        assert leader.result(DEADLINE) is run_async(credential.get_token())
        assert number_waiting(credential) == 0
    assert not left.done()
    complaints.append("Task was destroyed but it is pending!")


@pytest.mark.parametrize("who", ["a caller", "a caller of a proactive one", "the timer"])
def test_a_loop_that_is_closed_in_the_middle_of_a_refresh_is_forgotten(
    clock: Clock, complaints: list[str], who: str
) -> None:
    """Neither the loop nor the lost refresh is kept; the next caller starts another."""
    clock.set_wall(time.time())  # which the loops' timers follow
    fresh = make_token(clock.wall() + 3_600)
    issuer = Issuer(lambda: asyncio.sleep(3_600), fresh)
    credential = on_clock(CommunicationTokenCredential, clock)(
        token_refresher=issuer.issue, proactive_refresh=who != "a caller"
    )

    async def leave() -> None:
        if who == "the timer":
            await credential.__aenter__()
        else:
            caller = asyncio.create_task(credential.get_token())
        await turn_until(lambda: issuer.calls == 1)
        if who != "the timer":
            caller.cancel()
            await turn_until(caller.done)

    def run() -> "weakref.ref[asyncio.AbstractEventLoop]":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loop.close()
        return weakref.ref(loop)

    left = Call(run).value()
    assert run_async(credential.get_token()).token == fresh
    assert issuer.calls == 2
    gc.collect()
    assert left() is None
    # asyncio says so of any task that is left behind: the refresh, and the refresher in it.
    complaints += ["Task was destroyed but it is pending!"] * 2
    asyncio.run(credential.close())


def test_a_loop_that_has_stopped_refreshes_nothing_ahead(clock: Clock) -> None:
    """A proactive credential moves to the loop that uses it, if its own has stopped."""
    clock.set_wall(time.time())  # which the loops' timers follow
    credential = on_clock(CommunicationTokenCredential, clock)(
        make_token(clock.wall() + 3_600), token_refresher=Issuer().issue, proactive_refresh=True
    )

    async def armed() -> bool:
        await credential.get_token()
        for _ in range(2):  # it is armed in the loop's next iteration
            await asyncio.sleep(0)
        return cache_of(credential) in armed_caches()

    with running_loop() as loop:
        assert asyncio.run_coroutine_threadsafe(armed(), loop).result(DEADLINE)
        assert not run_async(armed())
        stop_loop(loop)
        assert run_async(armed())


@pytest.mark.parametrize(
    "end", ["fails", "raises CancelledError", "is cancelled", "is given up", "stops", "closes"]
)
@pytest.mark.parametrize("token", ["valid", "invalidated", "none"])
def test_the_background_goes_on_however_a_refresh_ends(
    clock: Clock, complaints: list[str], token: str, end: str
) -> None:
    """Another one follows, on the next loop if its own has stopped or was closed."""
    steps: dict[str, Any] = {"fails": ConnectionError, "raises CancelledError": CancelledError}
    first, fresh = make_token(clock.wall() + 3_600), make_token(clock.wall() + 7_200)
    issuer = Issuer(steps.get(end, lambda: asyncio.sleep(100_000)), fresh)
    credential = on_clock(CommunicationTokenCredential, clock)(
        None if token == "none" else first, token_refresher=issuer.issue, proactive_refresh=True
    )

    async def pass_time_until(is_over: Callable[[], bool]) -> None:
        for _ in range(7_200):
            if is_over():
                return
            await asyncio.sleep(1)  # by the clock, which the loop moves
        pytest.fail("it has not happened within two hours")

    async def begin() -> None:
        await credential.__aenter__()
        if token == "invalidated":
            credential.invalidate_token(first)
        await pass_time_until(lambda: issuer.calls == 1)
        if end == "is cancelled":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    async def go_on() -> None:
        await credential.__aenter__()
        await pass_time_until(lambda: issuer.calls == 2)
        await turn_until(lambda: not state_of(credential).refreshes)
        assert (await credential.get_token()).token == fresh

    with clock_loop(clock) as loop:
        loop.run_until_complete(begin())
        if end not in ("stops", "closes"):
            loop.run_until_complete(go_on())
        else:
            if end == "closes":
                loop.close()
            with clock_loop(clock) as another:
                another.run_until_complete(go_on())
    assert clock.wall() < state_of(credential).token.expires_on
    assert issuer.calls == 2
    if end == "closes":
        # asyncio says so of any task that is left behind: the refresh, and the refresher in it.
        complaints += ["Task was destroyed but it is pending!"] * 2


def test_no_refresh_is_collected_while_it_is_under_way(clock: Clock) -> None:
    """A refresher that awaits what nothing refers to survives the collector."""
    fresh = make_token(clock.wall() + 3_600)

    async def main() -> list[str]:
        futures: weakref.WeakSet[asyncio.Future[str]] = weakref.WeakSet()

        async def refresh() -> str:
            future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            futures.add(future)
            return await future

        credential_type = on_clock(CommunicationTokenCredential, clock)
        credentials = [credential_type(token_refresher=refresh) for _ in range(20)]
        calls = [asyncio.create_task(each.get_token()) for each in credentials]
        await turn_until(lambda: len(futures) == 20)
        for call in calls[:10]:
            call.cancel()
        for _ in range(5):
            gc.collect()
            await asyncio.sleep(0)
        assert len(futures) == 20
        for future in list(futures):
            future.set_result(fresh)
        await turn_until(lambda: not any(state_of(each).refreshes for each in credentials))
        return [(await each.get_token()).token for each in credentials]

    assert run_async(main()) == [fresh] * 20


# ---- Re-entrance


def test_a_refresher_that_asks_its_own_credential_gets_the_valid_token(clock: Clock) -> None:
    """While the token is valid, the refresher is served like anybody else."""
    first, fresh = make_token(clock.wall() + 100), make_token(clock.wall() + 3_600)
    seen: list[str] = []

    async def refresh() -> str:
        seen.append((await credential.get_token()).token)
        seen.append((await asyncio.create_task(credential.get_token())).token)
        return fresh

    credential = on_clock(CommunicationTokenCredential, clock)(first, token_refresher=refresh)
    clock.advance(60)
    assert run_async(credential.get_token()).token == fresh
    assert seen == [first, first]


@pytest.mark.parametrize("claims", [None, "{}"])
@pytest.mark.parametrize("way", ["itself", "task", "thread"])
def test_a_refresher_that_asks_its_own_credential_is_told(
    clock: Clock, way: str, claims: str | None
) -> None:
    """Without a valid token it gets a clear error, in its tasks and threads as well."""

    async def refresh() -> str:
        if way == "itself":
            token = await credential.get_token(claims=claims)
        elif way == "task":
            token = await asyncio.create_task(credential.get_token(claims=claims))
        else:
            token = await asyncio.to_thread(
                lambda: asyncio.run(credential.get_token(claims=claims))
            )
        return token.token

    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=refresh)
    with pytest.raises(RuntimeError, match="from the credential that it refreshes"):
        run_async(credential.get_token())


def test_a_refresher_that_waits_for_itself_through_a_helper_ends(
    clock: Clock, waiting: Waiting
) -> None:
    """A helper thread of which nothing is known waits no longer than a refresh may."""
    credential_type, counted = waiting

    async def refresh() -> str:
        clock.advance(59.9)
        helper = Call(lambda: asyncio.run(credential.get_token()))
        await turn_until(lambda: counted.value == 2)
        clock.advance(0.2)
        token: AccessToken = await asyncio.to_thread(helper.value)
        return token.token

    issuer = Issuer(refresh)
    credential = credential_type(token_refresher=issuer.issue)
    with pytest.raises(TimeoutError, match="60 seconds"):
        run_async(credential.get_token())
    assert issuer.calls == 1


# ---- Finalizers


def test_a_finalizer_may_close_the_credential_at_any_point(clock: Clock) -> None:
    """Wherever it hits the loop's thread, nobody hangs and the credential is closed."""

    def attempt(nth: int, loop: asyncio.AbstractEventLoop) -> bool:
        def finalize() -> None:
            with contextlib.suppress(StopIteration):  # a coroutine that has nothing to wait for
                credential.close().send(None)

        async def ask() -> list[Any]:
            calls = [credential.get_token() for _ in range(2)]
            return await asyncio.gather(*calls, return_exceptions=True)

        credential = on_clock(CommunicationTokenCredential, clock)(
            token_refresher=Issuer(wall=clock.wall).issue, proactive_refresh=True
        )
        with CallFault(nth, finalize) as fault:
            results = loop.run_until_complete(ask())
        assert state_of(credential).closed == fault.happened
        tokens = {result.token for result in results if isinstance(result, AccessToken)}
        errors = [str(result) for result in results if isinstance(result, Exception)]
        assert len(tokens) == 1 or fault.happened
        assert all("has been closed" in error for error in errors)
        return fault.happened

    def play() -> int:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            return next(nth for nth in range(1, 10_000, 7) if not attempt(nth, loop))

    assert Call(play).value() > 100


# ---- asyncio's debug mode


def test_asyncio_in_its_debug_mode_shows_no_token(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs each step that takes long, with the result of its task."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    async def slow() -> str:
        texts.extend(repr(task) for task in asyncio.all_tasks())
        await asyncio.sleep(0)
        return make_token(clock.wall() + 3_600)

    issuer = Issuer(slow, slow, wall=clock.wall)
    credential = on_clock(CommunicationTokenCredential, clock)(token_refresher=issuer.issue)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0
        for _ in range(3):
            await asyncio.gather(*(credential.get_token() for _ in range(3)))
            clock.advance(3_601)
        await credential.get_token(claims="c")

    run_async(main())
    texts += [record.getMessage() for record in caplog.records]
    caplog.clear()  # what asyncio has said is not a complaint
    assert issuer.calls == 4
    assert [text for text in texts if "took" in text and "_call" in text]
    assert [text for text in texts if "eyJ" in text] == []
