"""A host for Azure Functions apps: it plays the Functions host and the worker's thin outer part.

It drives ``azure_functions_runtime``, the worker library that Azure runs on Python 3.13, in this
process::

    with FunctionsHost("samples/azure_functions", settings) as host:
        reply = host.request("POST", "/api/token", {"newUser": True})
        host.send_event("on_event", {...})

As in Azure, the worker imports ``function_app`` on its event loop and indexes it; then every
invocation is a task on this loop or, if the function is not async, runs in a thread of the worker's
pool. The loop lives as long as the host. Routing, function keys and timeouts are the Functions
host's own and are imitated as far as a sample needs them, or not at all.

The worker keeps its state in modules, so there is one app per process at a time.
"""

import asyncio
import itertools
import json
import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock
from urllib.parse import parse_qs, unquote

import azure_functions_runtime as worker

from worker_messages import worker_messages

T = TypeVar("T")

DEADLINE = 60  # seconds for any one thing

_invocation: ContextVar[str | None] = ContextVar("invocation", default=None)


class WorkerError(Exception):
    """The worker could not load the app."""


@dataclass
class Outcome:
    """What an invocation came to: a value, or an error with its stack."""

    value: Any  # str, bytes, decoded JSON, an RpcHttp, or None
    error: str
    stack: str
    logs: list[str]  # what Azure would store of it, as "LEVEL logger: text"

    def result(self) -> Any:
        """Return the value, or fail with the function's stack."""
        assert not self.error, self.stack
        return self.value


@dataclass
class Reply:
    """What the caller of an HTTP function gets, and the invocation behind it, if there was one."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    outcome: Outcome | None = None

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


class LogCollector(logging.Handler):
    """Collects what the worker would send to the host: each record from INFO up, with a stack."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.texts: dict[str | None, list[str]] = {}  # by invocation

    def emit(self, record: logging.LogRecord) -> None:
        invocation = _invocation.get() or worker.invocation_id_cv.get()  # on the loop, in a thread
        self.texts.setdefault(invocation, []).append(self.format(record))


class FunctionsHost:
    """Loads an app and invokes its functions, while its ``with`` block runs.

    :param app_folder: The folder of ``function_app.py``.
    :type app_folder: str or ~pathlib.Path
    :param settings: The app settings: environment variables while the host runs.
    :type settings: ~collections.abc.Mapping[str, str]
    :raises WorkerError: If the worker cannot load the app.
    """

    def __init__(self, app_folder: str | Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = str(Path(app_folder).resolve())
        self.functions: dict[str, Any] = {}  # name -> metadata
        self.inputs: dict[str, str] = {}  # binding type -> what bindings of this type are given
        self.modules_at_load: frozenset[str] = frozenset()
        self._routes: list[tuple[str, re.Pattern[str], str]] = []  # method, path, function
        self._settings = mock.patch.dict(os.environ, settings or {})
        self._messages = worker_messages()
        self._logs = LogCollector()
        self._request_ids = itertools.count(1)

    # --- Life

    def __enter__(self) -> "FunctionsHost":
        self._settings.start()
        self._level = logging.getLogger().level
        logging.getLogger().addHandler(self._logs)
        logging.getLogger().setLevel(logging.INFO)
        sys.path.append(self.folder)  # last, as the worker has it
        worker.start_threadpool_executor()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.run(self._load())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        # A function that hangs in its thread must not hang the tests.
        stop = threading.Thread(target=worker.stop_threadpool_executor, daemon=True)
        stop.start()
        stop.join(5)
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()
        sys.path.remove(self.folder)
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(self.folder + os.sep):
                del sys.modules[name]
        logging.getLogger().removeHandler(self._logs)
        logging.getLogger().setLevel(self._level)
        self._settings.stop()

    async def _end(self) -> None:
        """Do to tasks and connections what the end of the process does."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Those that are closing would wait for the other side's TLS goodbye.
        loop: Any = self._loop
        for transport in list(loop._transports.values()):
            transport.abort()
        for _ in range(3):  # turns, until they have closed
            await asyncio.sleep(0)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    async def _load(self) -> None:
        messages, folder = self._messages, self.folder
        init = await self._ask(
            "worker_init_request",
            messages.WorkerInitRequest(host_version="4.0.0", function_app_directory=folder),
        )
        self._check(init)
        metadata = await self._ask(
            "functions_metadata_request",
            messages.FunctionsMetadataRequest(function_app_directory=folder),
        )
        self._check(metadata)
        for function in metadata.function_metadata_results:
            loaded = await self._ask(
                "function_load_request",
                messages.FunctionLoadRequest(function_id=function.function_id, metadata=function),
            )
            self._check(loaded)
            self.functions[function.name] = function
            self._add_routes(function)
        self.modules_at_load = frozenset(sys.modules)

    async def _ask(self, kind: str, content: Any) -> Any:
        """Send the worker a message and return its answer, both by way of the wire format."""
        envelope = {"request_id": str(next(self._request_ids)), kind: content}
        request = SimpleNamespace(
            request=_transmit(self._messages.StreamingMessage(**envelope)),
            properties={"protos": self._messages, "host": "127.0.0.1"},
        )
        return _transmit(await getattr(worker, kind)(request))

    def _check(self, response: Any) -> None:
        if response.result.status != self._messages.StatusResult.Success:
            error = response.result.exception
            message = f"{error.message}\n{error.stack_trace}"
            raise WorkerError(message)

    # --- Invocations

    @property
    def logs(self) -> list[str]:
        """What was logged since the start, by invocations and in the background."""
        return [text for texts in self._logs.texts.values() for text in texts]

    def invoke(self, name: str, **data: Any) -> Outcome:
        """Invoke a function with what its trigger and its inputs receive, by parameter."""
        return self.run(self.invoke_async(name, **data))

    async def invoke_async(self, name: str, **data: Any) -> Outcome:
        """Do the same from the worker's loop."""
        messages, invocation_id = self._messages, str(uuid.uuid4())
        for binding in self._bindings(name):
            if binding["type"] in self.inputs:
                data[binding["name"]] = self.typed(string=self.inputs[binding["type"]])
        request = messages.InvocationRequest(
            invocation_id=invocation_id,
            function_id=self.functions[name].function_id,
            input_data=[messages.ParameterBinding(name=k, data=v) for k, v in data.items()],
            trace_context=messages.RpcTraceContext(
                trace_parent=f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"
            ),
        )
        token = _invocation.set(invocation_id)
        try:
            response = await self._ask("invocation_request", request)
        finally:
            _invocation.reset(token)
        error = response.result.exception
        return Outcome(
            _value(response.return_value),
            error.message,
            error.stack_trace,
            self._logs.texts.get(invocation_id, []),
        )

    def typed(self, **value: Any) -> Any:
        """Return a value for a parameter, ``typed(json="{}")`` or ``typed(string="...")``."""
        return self._messages.TypedData(**value)

    def trigger(self, name: str) -> str:
        """Return the name of the parameter that the trigger fills."""
        bindings = self._bindings(name)
        [name] = [b["name"] for b in bindings if b["type"].lower().endswith("trigger")]
        return str(name)

    def send_event(self, name: str, event: Mapping[str, Any]) -> Outcome:
        """Deliver an event to an Event Grid function."""
        return self.invoke(name, **{self.trigger(name): self.typed(json=json.dumps(event))})

    def request(self, method: str, path: str, body: object = None) -> Reply:
        """Make an HTTP request. The body is sent as it is if it is bytes, otherwise as JSON."""
        return self.run(self.request_async(method, path, body))

    def requests(self, calls: Iterable[tuple[str, str, object]]) -> list[Reply]:
        """Make requests at once, each a method, path and body; return their replies in order."""

        async def together() -> list[Reply]:
            return await asyncio.gather(*(self.request_async(*call) for call in calls))

        return self.run(together())

    async def request_async(self, method: str, path: str, body: object = None) -> Reply:
        """Make an HTTP request from the worker's loop."""
        target, _, query = path.partition("?")
        found = function = None
        for allowed, pattern, name in self._routes:
            if method == allowed and (found := pattern.fullmatch(target)):
                function = name
                break
        if found is None or function is None:
            return Reply(404)
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"host": "localhost:7071", "content-type": "application/json"}
        request = self._messages.RpcHttp(
            method=method,
            url=f"http://localhost:7071{path}",
            headers=headers,
            # The host leaves an empty body unset, drops empty values and joins repeated ones.
            body=self.typed(bytes=content) if content else None,
            params={name: unquote(value) for name, value in found.groupdict().items()},
            query={name: ",".join(values) for name, values in parse_qs(query).items()},
        )
        outcome = await self.invoke_async(
            function, **{self.trigger(function): self.typed(http=request)}
        )
        if outcome.error:
            return Reply(500, outcome=outcome)
        value = outcome.value
        if isinstance(value, str):
            return Reply(200, body=value.encode(), outcome=outcome)
        headers = {name.lower(): text for name, text in value.headers.items()}
        return Reply(int(value.status_code), headers, _value(value.body) or b"", outcome)

    def _bindings(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(binding) for binding in self.functions[name].raw_bindings]

    def _add_routes(self, function: Any) -> None:
        for binding in self._bindings(function.name):
            if binding["type"] == "httpTrigger":
                route = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(binding["route"]))
                pattern = re.compile(f"/api/{route}")
                self._routes += [(method, pattern, function.name) for method in binding["methods"]]


def _transmit(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())


def _value(typed: Any) -> Any:
    kind = typed.WhichOneof("data")
    if kind is None:
        return None
    value = getattr(typed, kind)
    return json.loads(value) if kind == "json" else value
