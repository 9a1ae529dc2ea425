"""A service in place of the network: it answers from a script, and records what was sent.

``FakeTransport`` belongs in a ``Pipeline``, ``AsyncFakeTransport`` in an ``AsyncPipeline``; the
script and the record are the same for both. ``Way`` is how a test drives the synchronous and the
asynchronous half of the package in the same way, and ``Callers`` are what uses a credential at
once: threads, or the tasks of one event loop.
"""

import asyncio
import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from azure.communication.common import CommunicationTokenCredential, get_authentication_policy
from azure.communication.common import aio as common_aio
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.pipeline.policies import (
    AsyncRedirectPolicy,
    AsyncRetryPolicy,
    RedirectPolicy,
    RetryPolicy,
)
from azure.core.pipeline.transport import AsyncHttpTransport, HttpTransport
from azure.core.utils import case_insensitive_dict

from scaffolding import DEADLINE, Call, Issuer, run_async, running_loop


@dataclass(frozen=True)
class Answer:
    """What the service answers. A body that is neither bytes nor text is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Sent(NamedTuple):
    """A request as it left. The header names are in lower case."""

    method: str
    url: str
    headers: dict[str, str]
    content: Any

    @property
    def token(self) -> str:
        """The bearer token that it carries."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        assert scheme == "Bearer", f"it carries {scheme or 'no credential'}"
        return token


class FakeResponse:
    """The parts of azure-core's ``HttpResponse`` that its policies and errors, and ours, use."""

    def __init__(self, request: Any, answer: Answer) -> None:
        self.request = request
        self.status_code = answer.status
        self.reason = f"Reason {answer.status}"
        self.headers = case_insensitive_dict(answer.headers)
        self.content_type = "application/json"
        body = answer.body
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        self.content = body.encode() if isinstance(body, str) else body

    def text(self, encoding: str | None = None) -> str:
        return self.content.decode(encoding or "utf-8")


class FakeTransport(HttpTransport[Any, Any]):
    """Takes one step of the script for each request, and ``default`` once the script is over.

    A step is an answer, an exception to raise, or a function that is handed the recorded request
    and returns an answer. ``sent`` has the requests, ``slept`` the pauses between them.
    """

    def __init__(self, *script: Any, default: Any = None) -> None:
        self.script = list(script)
        self.default = Answer() if default is None else default
        self.sent: list[Sent] = []
        self.options: list[dict[str, Any]] = []
        self.slept: list[float] = []
        self.closed = 0

    def send(self, request: Any, **kwargs: Any) -> FakeResponse:
        return FakeResponse(request, self.take_step(request, kwargs))

    def take_step(self, request: Any, options: dict[str, Any]) -> Any:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.data or request.files
        sent = Sent(request.method, request.url, headers, body)
        self.sent.append(sent)
        self.options.append(options)
        step = self.script.pop(0) if self.script else self.default
        if isinstance(step, BaseException):
            raise step
        return step(sent) if callable(step) else step

    def sleep(self, duration: float) -> None:
        self.slept.append(duration)

    def open(self) -> None: ...

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> "FakeTransport":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncFakeTransport(AsyncHttpTransport[Any, Any]):
    """The same for an ``AsyncPipeline``; a function of the script may be a coroutine function."""

    def __init__(self, *script: Any, default: Any = None) -> None:
        self.fake = FakeTransport(*script, default=default)
        self.sent, self.slept = self.fake.sent, self.fake.slept
        self.options, self.script = self.fake.options, self.fake.script

    @property
    def closed(self) -> int:
        return self.fake.closed

    async def send(self, request: Any, **kwargs: Any) -> FakeResponse:
        answer = self.fake.take_step(request, kwargs)
        return FakeResponse(request, await answer if inspect.isawaitable(answer) else answer)

    async def sleep(self, duration: float) -> None:
        self.fake.sleep(duration)

    async def open(self) -> None: ...

    async def close(self) -> None:
        self.fake.close()

    async def __aenter__(self) -> "AsyncFakeTransport":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.fake.close()


class AsyncTwin:
    """A fake credential whose methods are awaited and do what those of a synchronous one do."""

    def __init__(self, twin: Any) -> None:
        for name in ("get_token", "get_token_info"):
            if hasattr(twin, name):
                setattr(self, name, _awaited(getattr(twin, name)))
        if hasattr(twin, "invalidate_token"):
            self.invalidate_token = twin.invalidate_token


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Callers:
    """Each call has a thread of its own; in aio, a loop of its own on that."""

    def __init__(self, way: "Way") -> None:
        self.way = way

    def start(self, function: Any, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call a function, and return what will have its outcome."""
        future: Future[Any] = Future()

        def run(future: "Future[Any]") -> None:
            try:
                future.set_result(self.way.call(function, *args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
            finally:
                del future  # or the error's traceback would refer back to the error

        Call(lambda: run(future))
        return future

    def start_many(self, count: int, function: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Do that ``count`` times."""
        return [self.start(function, *args, **kwargs) for _ in range(count)]


class Tasks(Callers):
    """Each call is a task of one loop, which runs on a thread of its own."""

    def __init__(self, way: "Way", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(way)
        self.loop = loop

    def start(self, function: Any, *args: Any, **kwargs: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), self.loop)


def outcome(future: "Future[Any]") -> Any:
    """Return what a call returned or raised, waiting for it."""
    error = future.exception(DEADLINE)
    return future.result() if error is None else error


class Way:
    """One half of the package: its classes, and how to call what may have to be awaited."""

    Credential: Any
    Transport: Any
    Client: Any
    RetryPolicy: Any
    RedirectPolicy: Any
    get_policy: Any

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function and return its result."""
        raise NotImplementedError

    def callers(self) -> "contextlib.AbstractContextManager[Callers]":
        """Return what uses a credential at once, for a ``with`` statement."""
        raise NotImplementedError

    def refresher(self, issuer: Issuer) -> Any:
        """Return an issuer as a refresher."""
        raise NotImplementedError

    def twin(self, credential: Any) -> Any:
        """Return a fake credential in the form that this half asks."""
        raise NotImplementedError


class Sync(Way):
    Credential = CommunicationTokenCredential
    Transport = FakeTransport
    Client = PipelineClient
    RetryPolicy = RetryPolicy
    RedirectPolicy = RedirectPolicy
    get_policy = staticmethod(get_authentication_policy)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def callers(self) -> "contextlib.AbstractContextManager[Callers]":
        return contextlib.nullcontext(Callers(self))

    def refresher(self, issuer: Issuer) -> Any:
        return issuer

    def twin(self, credential: Any) -> Any:
        return credential


class Aio(Way):
    Credential = common_aio.CommunicationTokenCredential
    Transport = AsyncFakeTransport
    Client = AsyncPipelineClient
    RetryPolicy = AsyncRetryPolicy
    RedirectPolicy = AsyncRedirectPolicy
    get_policy = staticmethod(common_aio.get_authentication_policy)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        async def await_it() -> Any:
            return await function(*args, **kwargs)

        return run_async(await_it())

    @contextlib.contextmanager
    def callers(self) -> Iterator[Callers]:
        with running_loop() as loop:
            yield Tasks(self, loop)

    def refresher(self, issuer: Issuer) -> Any:
        return issuer.issue

    def twin(self, credential: Any) -> Any:
        return AsyncTwin(credential)


WAYS = {"sync": Sync(), "aio": Aio()}
