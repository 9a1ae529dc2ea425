"""What credentials keep alive and leave behind, and what the garbage collector does to them."""

import asyncio
import contextvars
import gc
import inspect
import json
import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

import aiohttp
import httpx
import pytest
import requests
from azure.communication.common import CommunicationTokenCredential, aio
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.rest import HttpRequest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from fake_transport import WAYS, Answer, Callers, FakeResponse, Way, outcome
from scaffolding import (
    Call,
    Clock,
    Fault,
    InlineWorkers,
    Issuer,
    aio_credential,
    aio_scheduler,
    armed_caches,
    cache_of,
    count_waiting,
    install,
    make_token,
    manual_scheduler,
    on_clock,
    reachable,
    rules,
    run_async,
    state_of,
    threadless,
    turn_until,
    wait_until,
)

SECRET = "a secret that is longer than what may be kept of a text: " + "x" * 256


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock(wall=time.time())  # which the loops' timers go by


class Owner:
    """A client that makes its own credential, whose refresher is a method of the client."""

    def __init__(self, way: Way, clock: Clock, **options: Any) -> None:
        self.issuer = Issuer(wall=clock.wall)
        refresher = self.refresh if way is WAYS["sync"] else self.refresh_async
        self.credential = on_clock(way.Credential, clock)(
            make_token(clock.wall() + 3_600), token_refresher=refresher, **options
        )

    def refresh(self) -> Any:
        return self.issuer()

    async def refresh_async(self) -> Any:
        return await self.issuer.issue()


# ---- Dropped credentials


def test_credentials_that_are_dropped_without_close_are_collected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred leave no entry behind and call no refresher."""
    scheduler = manual_scheduler(monkeypatch, clock)
    issuer = Issuer(wall=clock.wall)
    credential_type = on_clock(CommunicationTokenCredential, clock)
    credentials = [
        credential_type(
            make_token(clock.wall() + 3_600), token_refresher=issuer, proactive_refresh=True
        )
        for _ in range(200)
    ]
    kept = credentials[7]
    references = [weakref.ref(credential) for credential in credentials]
    del credentials
    assert [reference() for reference in references if reference() is not None] == [kept]
    scheduler.run_due()
    assert len(scheduler.schedule) == 1
    clock.advance(3_000)
    scheduler.run_due()
    issuer.wait_for_call(1)
    wait_until(lambda: not state_of(kept).refreshes)
    assert issuer.calls == 1
    kept.close()


def test_aio_credentials_that_are_dropped_without_close_are_collected(clock: Clock) -> None:
    """On an event loop as well, where no task and only one timer is left behind."""
    issuer = Issuer(wall=clock.wall)
    credential_type = on_clock(aio.CommunicationTokenCredential, clock)

    async def main() -> None:
        credentials = [
            credential_type(
                make_token(clock.wall() + 3_600),
                token_refresher=issuer.issue,
                proactive_refresh=True,
            )
            for _ in range(200)
        ]
        await asyncio.gather(*(credential.get_token() for credential in credentials))
        references = [weakref.ref(credential) for credential in credentials]
        del credentials
        assert not any(reference() for reference in references)
        aio_scheduler.scheduler(asyncio.get_running_loop(), aio_credential.refresh_ahead).run_due()
        assert armed_caches() == []
        assert len(asyncio.all_tasks()) == 1

    run_async(main())
    assert issuer.calls == 0


@pytest.mark.parametrize(
    "use", ["unused", "used", "refreshed", "failed", "failed early", "invalidated"]
)
@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "proactive"])
def test_a_client_with_its_credential_and_its_method_is_collected(
    way: Way,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    use: str,
    proactive: bool,
) -> None:
    """A refresher that is a method of the owner makes a cycle, and nothing else holds it."""
    scheduler = manual_scheduler(monkeypatch, clock)
    caplog.set_level(logging.CRITICAL)  # or a record would keep a failure with its traceback

    def play(callers: Callers) -> "weakref.ref[Owner]":
        owner = Owner(way, clock, proactive_refresh=proactive)
        ask = owner.credential.get_token
        if use in ("refreshed", "failed"):
            clock.advance(3_700)
            if use == "failed":
                owner.issuer.script += [ConnectionError] * 2
                assert isinstance(outcome(callers.start(ask)), ConnectionError)
                assert isinstance(outcome(callers.start(ask)), ConnectionError)
        elif use == "failed early":
            clock.advance(3_500)
            owner.issuer.script.append(ConnectionError)
            outcome(callers.start(ask))
        elif use == "invalidated":
            owner.credential.invalidate_token(outcome(callers.start(ask)).token)
        if use != "unused":
            outcome(callers.start(ask))
        return weakref.ref(owner)

    with way.callers() as callers:
        reference = play(callers)
        wait_until(lambda: gc.collect() >= 0 and reference() is None)
    scheduler.run_due()
    assert len(scheduler.schedule) == 0


def test_a_dropped_credential_with_a_refresh_under_way_is_collected_after_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that refreshes a credential keeps it for as long, and no longer."""
    scheduler = manual_scheduler(monkeypatch, clock)
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = on_clock(CommunicationTokenCredential, clock)(
        token_refresher=issuer, proactive_refresh=True
    )
    scheduler.run_due()
    issuer.wait_for_call(1)
    reference = weakref.ref(cache_of(credential))
    del credential
    gc.collect()
    assert reference() is not None
    issuer.release()
    wait_until(lambda: gc.collect() >= 0 and reference() is None)
    scheduler.run_due()
    assert issuer.calls == 1


def test_an_aio_refresh_under_way_ends_for_a_credential_that_was_dropped(clock: Clock) -> None:
    """On a loop, a refresh goes on without any waiter, and then releases everything."""
    issuer = Issuer(wall=clock.wall)
    issuer.hold()

    async def main() -> None:
        credential = on_clock(aio.CommunicationTokenCredential, clock)(
            token_refresher=issuer.issue, proactive_refresh=True
        )
        await turn_until(lambda: issuer.calls == 1)
        reference = weakref.ref(cache_of(credential))
        del credential
        gc.collect()
        assert reference() is not None
        issuer.release()
        await turn_until(lambda: gc.collect() >= 0 and reference() is None)

    run_async(main())
    assert issuer.calls == 1


# ---- What is left behind


class Down(Exception):
    """What the refresher raises; any reference cycle that holds one is made by the package."""


@pytest.fixture
def left_behind() -> Iterator[Callable[[], list[object]]]:
    """Return a function that returns what the collector finds of later refreshes.

    Other tests' threads may end meanwhile, and leave their schedulers.
    """
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    first = rules.Refresh().number

    def is_ours(thing: object) -> bool:
        is_refresh = isinstance(thing, rules.Refresh) and thing.number > first
        return is_refresh or isinstance(thing, Down)

    def collect() -> list[object]:
        gc.collect()
        ours = [thing for thing in gc.garbage if is_ours(thing)]
        gc.garbage.clear()
        return ours

    yield collect
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


OUTCOMES: dict[str, Any] = {
    "a token": lambda: make_token(4_000_000_000),
    "an error": Down,
    "an expired token": lambda: make_token(1_600_000_000),
    "no token": lambda: 42,
}


@pytest.mark.parametrize("valid", [False, True], ids=["without a token", "with a token"])
@pytest.mark.parametrize("result", OUTCOMES)
def test_a_refresh_leaves_nothing_for_the_collector(
    way: Way,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    left_behind: Callable[[], list[object]],
    result: str,
    valid: bool,
) -> None:
    """Not for its leader, for those who wait, in a hold or for claims: there is no cycle."""
    caplog.set_level(logging.CRITICAL)  # or a record would keep the error and what it refers to
    credential_type, counted = count_waiting(on_clock(way.Credential, clock))
    issuer = Issuer(*[OUTCOMES[result]] * 10)
    credential = credential_type(
        make_token(clock.wall() + 100) if valid else None, token_refresher=way.refresher(issuer)
    )

    async def forget_async(**options: Any) -> None:
        with suppress(Down, TypeError, ValueError):
            await credential.get_token(**options)

    def forget(**options: Any) -> None:
        with suppress(Down, TypeError, ValueError):
            credential.get_token(**options)

    ask = forget_async if way is WAYS["aio"] else forget
    with way.callers() as callers:
        clock.advance(60)
        issuer.hold()
        calls = callers.start_many(3, ask)
        issuer.wait_for_call(1)
        if not valid:
            counted.wait_for(3)
        issuer.release()
        calls += callers.start_many(3, ask)
        calls.append(callers.start(ask, claims="c"))
        while calls:
            outcome(calls.pop())
        assert left_behind() == []


@pytest.mark.parametrize("result", OUTCOMES)
def test_a_refresh_in_the_background_leaves_nothing_for_the_collector(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    left_behind: Callable[[], list[object]],
    result: str,
) -> None:
    """Nor does a worker's."""
    caplog.set_level(logging.CRITICAL)
    scheduler = install(monkeypatch, threadless(clock, InlineWorkers()))
    issuer = Issuer(*[OUTCOMES[result]] * 2)
    credential = on_clock(CommunicationTokenCredential, clock)(
        token_refresher=issuer, proactive_refresh=True
    )
    scheduler.run_due()
    assert issuer.calls == 1
    assert left_behind() == []
    credential.close()


def test_a_refresh_leaves_no_trace_in_the_context_of_its_caller(clock: Clock) -> None:
    """However many a thread or a task has led."""
    credentials = [
        on_clock(way.Credential, clock)(token_refresher=way.refresher(Issuer(wall=clock.wall)))
        for way in WAYS.values()
    ]
    context = contextvars.copy_context()

    async def ask() -> None:
        before = dict(contextvars.copy_context())
        for _ in range(3):
            credentials[0].get_token()
            await credentials[1].get_token()
            clock.advance(4_000)
        assert dict(contextvars.copy_context()) == before

    context.run(run_async, ask())


def request() -> Any:
    """Return a request with a secret, as the refresher may make one."""
    return HttpRequest("GET", "https://contoso.com", headers={"Authorization": f"Bearer {SECRET}"})


def azure_error() -> None:
    secret = [SECRET]
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise AzureError("down", error=error) from error


def http_error() -> None:
    raise HttpResponseError("down", FakeResponse(request(), Answer(500, SECRET)))  # type: ignore[arg-type]


def requests_error() -> None:
    response = requests.Response()
    response.request = requests.Request("GET", "http://x", {"Authorization": SECRET}).prepare()
    raise requests.HTTPError("down", response=response)


def aiohttp_error() -> None:
    url, headers = URL("http://x"), CIMultiDictProxy(CIMultiDict(Authorization=SECRET))
    raise aiohttp.ClientResponseError(
        aiohttp.RequestInfo(url, "GET", headers, url), (), status=500, message="down"
    )


def httpx_error() -> None:
    request = httpx.Request("GET", "http://x", headers={"Authorization": SECRET})
    raise httpx.HTTPStatusError("down", request=request, response=httpx.Response(500))


def error_in_arguments() -> None:
    secret = [SECRET]
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise Down("down", error, secret) from None


def json_error() -> None:
    json.loads(f'{{"token": "{SECRET}')


def group_of_errors() -> None:
    secret = [SECRET]
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise ExceptionGroup("down", [error]) from None  # noqa: F821 - Python 3.11 and newer


ERRORS: dict[str, tuple[Callable[[], None], type[Exception], str]] = {
    "azure-core's": (azure_error, AzureError, "down"),
    "azure-core's with a response": (http_error, HttpResponseError, "down"),
    "of requests": (requests_error, requests.HTTPError, "down"),
    "of aiohttp": (
        aiohttp_error,
        aiohttp.ClientResponseError,
        "500, message='down', url='http://x'",
    ),
    "of httpx": (httpx_error, httpx.HTTPStatusError, "down"),
    "with errors in its arguments": (
        error_in_arguments,
        Down,
        "('down', KeyError('list'), 'list')",
    ),
    "with a body": (json_error, json.JSONDecodeError, "Unterminated string"),
}
if sys.version_info >= (3, 11):
    ERRORS["a group"] = (group_of_errors, ClientAuthenticationError, "ExceptionGroup: down")


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_that_is_kept_leads_to_plain_values_alone(
    way: Way, clock: Clock, kind: str
) -> None:
    """In a hold it comes again, with its class and text, but no request, frame or answer."""
    fail, error_type, text = ERRORS[kind]

    def refresh() -> None:
        fail()

    credential = on_clock(way.Credential, clock)(token_refresher=refresh)
    for _ in range(2):
        with pytest.raises(Exception, match=r"down|Unterminated"):
            way.call(credential.get_token)
    with pytest.raises(error_type) as caught:
        way.call(credential.get_token)
    assert str(caught.value).startswith(text)
    things = list(reachable(credential))
    assert [thing for thing in things if isinstance(thing, (FrameType, TracebackType))] == []
    assert [thing for thing in things if SECRET in repr(thing)] == []
    assert any(isinstance(thing, error_type) for thing in things)


def test_an_error_of_the_package_knows_nothing_of_what_its_caller_handles(
    way: Way, clock: Clock
) -> None:
    """azure-core's errors keep what is being handled when they are made."""
    credential = on_clock(way.Credential, clock)(
        token_refresher=lambda: make_token(clock.wall() + 60)
    )
    for _ in range(4):
        with suppress(ClientAuthenticationError):
            token = way.call(credential.get_token).token
            try:
                raise HttpResponseError("refused", FakeResponse(request(), Answer(401, SECRET)))  # type: ignore[arg-type]
            except HttpResponseError:
                credential.invalidate_token(token)
    things = list(reachable(credential))
    assert any(isinstance(thing, ClientAuthenticationError) for thing in things)
    assert [thing for thing in things if isinstance(thing, (FrameType, TracebackType))] == []
    assert [thing for thing in things if SECRET in repr(thing)] == []


@pytest.mark.parametrize("result", ["expired", "refused", "in a text"])
def test_an_unusable_token_is_forgotten(way: Way, clock: Clock, result: str) -> None:
    """Neither the credential nor the error that says so refers to it."""
    token = make_token(clock.wall() + (-1 if result == "expired" else 3_600))
    digest = hash(token)
    texts = [f"Bearer {token}" if result == "in a text" else token]
    credential = on_clock(way.Credential, clock)(token_refresher=lambda: texts[0])
    if result == "refused":
        credential.invalidate_token(way.call(credential.get_token).token)
    del token
    errors = []
    for _ in range(3):
        error = Call(lambda: way.call(credential.get_token)).error()
        errors.append(error)
        assert isinstance(error, (ValueError, ClientAuthenticationError))
    for root in (credential, *errors):
        found = [thing for thing in reachable(root) if isinstance(thing, str)]
        assert digest not in {hash(text.removeprefix("Bearer ")) for text in found}


def test_what_a_refresh_has_touched_does_not_lead_to_the_token_after_close(
    way: Way, clock: Clock
) -> None:
    """Contexts that it was copied to, tasks and timers that it has left, errors that it raised."""
    digests: list[int] = []
    roots: list[Any] = []

    def issue() -> str:
        token = make_token(clock.wall() + 3_600)
        digests.append(hash(token))
        roots.append(contextvars.copy_context())
        return token

    async def issue_async() -> str:
        loop = asyncio.get_running_loop()
        roots.append(loop.call_later(3_600, print))
        roots.append(loop.create_task(asyncio.sleep(3_600)))
        roots.extend(asyncio.all_tasks())
        return issue()

    issuer = Issuer(*[issue if way is WAYS["sync"] else issue_async] * 3, Down, wall=clock.wall)
    credential = on_clock(way.Credential, clock)(token_refresher=way.refresher(issuer))
    roots.append(credential)

    async def forget_async(**options: Any) -> None:
        roots.append(contextvars.copy_context())
        with suppress(Down):
            await credential.get_token(**options)

    def forget(**options: Any) -> None:
        roots.append(contextvars.copy_context())
        with suppress(Down):
            credential.get_token(**options)

    use = forget_async if way is WAYS["aio"] else forget
    with way.callers() as callers:
        for options in ({}, {"claims": "c"}, {}, {}):
            for call in callers.start_many(2, use, **options):
                assert outcome(call) is None
            assert set(digests) & texts_in(credential)
            clock.advance(3_550)
        assert issuer.calls == 4
        outcome(callers.start(credential.close))
        for root in roots:
            assert not set(digests) & texts_in(root)


def texts_in(root: object) -> set[int]:
    """Return the hashes of the texts that an object refers to, directly or not."""
    return {hash(thing) for thing in reachable(root) if isinstance(thing, str)}


# ---- Finalizers and callbacks at any point


@pytest.mark.parametrize("act", ["close", "drop", "arm"])
def test_a_finalizer_may_run_while_the_scheduler_is_at_work(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Wherever it hits the thread that arms a credential, that one is armed."""
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
        scheduler.run_due()
        assert scheduler.schedule.caches() == [cache_of(other)]
        other.close()
        scheduler.run_due()
        assert len(scheduler.schedule) == 0
        if not fault.happened:
            break
    assert nth > 20


class Finalized(Owner):
    """A client whose finalizer uses and closes its credential; only the collector frees it."""

    ended = 0

    def __del__(self) -> None:
        if inspect.iscoroutinefunction(self.credential.get_token):
            with suppress(StopIteration):  # a coroutine that has nothing to wait for
                self.credential.close().send(None)
        else:
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
    way: Way, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are dropped by several threads while the collector storms."""
    manual_scheduler(monkeypatch, clock)
    monkeypatch.setattr(Finalized, "ended", 0)

    def churn() -> None:
        for _ in range(50):
            owner = Finalized(way, clock, proactive_refresh=True)
            owner.credential.invalidate_token(way.call(owner.credential.get_token).token)
            del owner

    for call in [Call(churn) for _ in range(4)]:
        call.value()
    gc.collect()
    wait_until(lambda: Finalized.ended == 200)
