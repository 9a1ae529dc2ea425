"""The sample called without a worker, on every Python, and the files that are deployed with it."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from conftest import Room
    from local_service import LocalService


@pytest.fixture
def app(sample: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the sample with its settings, and forget it afterwards."""
    if not os.environ.get("FUNCTIONS_WORKER_REQUIRED"):
        for name in ("azure.functions", "azure.durable_functions"):
            pytest.importorskip(name, reason=f"{name} is not installed")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(sample)
    yield importlib.import_module("function_app")
    for path in sample.glob("*.py"):
        sys.modules.pop(path.stem, None)


def run(app: Any, *functions: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run async functions on one loop, and close its connections as no instance has to."""

    async def main() -> list[Any]:
        try:
            return [await function for function in functions]
        finally:
            await app.clients.async_connections().close()

    return asyncio.run(main())


def request(body: object, **route_params: str) -> Any:
    from azure.functions import HttpRequest

    content = json.dumps(body).encode()
    return HttpRequest("POST", "/api/x", body=content, route_params=route_params)


# --- Functions


def test_messages_are_sent(app: Any, room: Room, service: LocalService) -> None:
    """The async and the sync function send as the app's user."""
    texts = ["from the loop", "from a thread"]
    requests = [request({"content": text}, thread_id=room.thread) for text in texts]
    answers = run(app, app.send_message(requests[0]))
    answers.append(app.send_message_sync(requests[1]))
    assert [answer.status_code for answer in answers] == [201, 201]
    sent = service.threads[room.thread].messages[-2:]
    assert [message["content"]["message"] for message in sent] == texts
    assert {m["senderCommunicationIdentifier"]["rawId"] for m in sent} == {room.user}


def test_tokens_are_issued(app: Any, room: Room, service: LocalService) -> None:
    """The broker answers for a user who exists, for a new one, and refuses anything else."""
    other = "8:acs:another"
    service.live[other] = set()
    bodies: list[object] = [{"rawId": other}, {"newUser": True}, {"rawId": "4:+1"}, None]
    answers = run(app, *(app.issue_token(request(body)) for body in bodies))
    assert [answer.status_code for answer in answers] == [200, 200, 400, 400]
    old, new = (json.loads(answer.get_body()) for answer in answers[:2])
    assert old["rawId"] == other
    assert new["rawId"] not in (other, room.user)
    assert [answer.mimetype for answer in answers[2:]] == ["application/problem+json"] * 2


def test_app_shares_no_token_of_its_own(app: Any, room: Room, service: LocalService) -> None:
    """A function key allows sending as the app's user through the app, and in no other way."""
    other_case = "8:acs:" + room.user.removeprefix("8:acs:").upper()
    bodies: list[object] = [{"rawId": room.user}, {"rawId": other_case}]
    answers = run(app, *(app.issue_token(request(body)) for body in bodies))
    assert [answer.status_code for answer in answers] == [403, 403]
    assert service.issued[room.user] == 0


NOT_JSON = {
    "nothing": b"",
    "half of JSON": b"{",
    "half of UTF-8": b'"\xc3"',
    "deep lists": b"[" * 100_000,
    "deep lists that end": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"content":' * 100_000,
    "half of a surrogate pair": b'{"content": "\\ud800", "rawId": "8:acs:\\udfff"}',
    "it as a name": b'{"\\ud800": 1, "content": "Hello", "newUser": true}',
    "a number of 5000 digits": b'{"content": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_body_that_is_not_json(app: Any, room: Room, service: LocalService, body: bytes) -> None:
    """It is the caller's mistake in every function, and causes no request."""
    from azure.functions import HttpRequest

    module = sys.modules["invitations"]
    invite = module.invite.build().get_user_function().client_function
    req = HttpRequest("POST", "/api/x", body=body, route_params={"thread_id": room.thread})
    calls = [app.issue_token(req), app.send_message(req), invite(req, client=None)]
    answers = [*run(app, *calls), app.send_message_sync(req)]
    assert [answer.status_code for answer in answers] == [400] * 4
    assert not service.statuses


@pytest.mark.parametrize("thread_id", [".", "..", "", "a", "19:", "19:a/b", "19:..\\", "19:a\n"])
def test_thread_id_that_is_none(
    app: Any, room: Room, service: LocalService, thread_id: str
) -> None:
    """A thread id that would reach another resource is not found, and no request is made."""
    requests = [request({"content": "Hello"}, thread_id=thread_id) for _ in range(2)]
    answers = [*run(app, app.send_message(requests[0])), app.send_message_sync(requests[1])]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert not service.statuses


def test_failure_is_answered_without_its_cause(
    app: Any, room: Room, service: LocalService, caplog: pytest.LogCaptureFixture
) -> None:
    """An unreachable service is a problem of this app, told in the log alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.clients, "PATIENCE", {"retry_total": 0})
        patch.setattr(app.clients, "ENDPOINT", "https://localhost:1")
        answer = app.send_message_sync(request({"content": "Hello"}, thread_id=room.thread))
    assert (answer.status_code, answer.mimetype) == (502, "application/problem+json")
    assert json.loads(answer.get_body()) == {
        "title": "Bad Gateway",
        "status": 502,
        "detail": "Azure Communication Services did not do what this app asked of it.",
    }
    assert "Connection refused" in caplog.text
    assert service.access_key not in caplog.text


def test_events_are_read(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An incoming call tells its two identifiers by their kinds, and no telephone number."""
    from azure.functions import EventGridEvent

    caplog.set_level("INFO")
    data: dict[str, object] = {
        "from": {"rawId": "4:+14255550123", "phoneNumber": {"value": "+14255550123"}},
        "to": {"rawId": "8:acs:a_b", "communicationUser": {"id": "8:acs:a_b"}},
    }
    kind = "Microsoft.Communication.IncomingCall"
    members: dict[str, Any] = {
        "id": "1",
        "topic": "t",
        "subject": "s",
        "event_time": None,
        "data_version": "1.0",
    }
    app.on_event(EventGridEvent(event_type=kind, data=data, **members))
    assert [record.getMessage() for record in caplog.records if record.name == "root"] == [
        f"{kind}: the caller is on the telephone.",
        f"{kind}: the callee is the user 8:acs:a_b.",
    ]


def test_orchestration_passes_texts(app: Any, room: Room, service: LocalService) -> None:
    """The orchestrator hands raw ids on, and the activities make identifiers of them."""
    module = sys.modules["invitations"]

    class Context:
        instance_id = "i"

        def get_input(self) -> Any:
            return {"topic": "Plans", "participants": [room.user, "4:+14255550123"]}

        def call_activity(self, name: str, value: Any) -> tuple[str, Any]:
            return name, json.loads(json.dumps(value))

        def task_all(self, tasks: list[Any]) -> list[Any]:
            return tasks

    orchestrator = module.set_up_thread.build().get_user_function().orchestrator_function
    steps = orchestrator(Context())
    name, value = next(steps)
    assert (name, value) == ("create_thread", {"topic": "Plans", "key": "i"})
    thread_id = "19:x@thread.v2"
    calls = steps.send(thread_id)
    assert calls == [
        ("add_participant", {"threadId": thread_id, "rawId": room.user}),
        ("add_participant", {"threadId": thread_id, "rawId": "4:+14255550123"}),
    ]
    with pytest.raises(StopIteration) as end:
        steps.send(["", "4:+14255550123"])
    assert end.value.value == {"threadId": thread_id, "refused": ["4:+14255550123"]}

    async def activities() -> list[Any]:
        created = await module.create_thread(value)
        return [
            created,
            *[await module.add_participant({**c, "threadId": created}) for _, c in calls],
        ]

    [[created, added, refused]] = run(app, activities())
    assert (added, refused) == ("", "4:+14255550123")
    assert list(service.threads[created].participants) == [room.user]


def test_import_leaves_what_the_first_invocation_may_need(sample: Path, app: Any) -> None:
    """Importing the sample loads nothing to send requests with."""
    code = "import sys; import function_app; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(sample)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    modules = set(run.stdout.split())
    assert "azure.communication.common.aio._credential" in modules
    # A proactive credential loads jwt, to read its first token, when it is made.
    assert not modules & {"azure.core.pipeline.transport._aiohttp", "requests"}


# --- Files


def test_example_has_each_setting(sample: Path) -> None:
    """The example of the local settings, and the README, have what the code reads."""
    sources = [path.read_text(encoding="utf-8") for path in sample.glob("*.py")]
    read = {name for text in sources for name in re.findall(r'os\.environ\["(\w+)"\]', text)}
    assert read == {"COMMUNICATION_SERVICES_CONNECTION_STRING", "COMMUNICATION_SERVICES_USER_ID"}
    example = json.loads((sample / "local.settings.json.example").read_text(encoding="utf-8"))
    assert example["Values"].keys() == read | {"FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage"}
    readme = (sample / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in read)


def test_requirements_have_each_import(sample: Path) -> None:
    """What the code imports is installed where it is deployed, and nothing else of Azure's."""
    imported = set()
    for path in sample.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    packages = {"azure.durable_functions": "azure-functions-durable"}
    packages |= {
        f"azure.communication.{name}": f"azure-communication-{name}"
        for name in ("chat", "common", "identity")
    }
    packages["azure.functions"] = "azure-functions"
    needed = {package for name, package in packages.items() for i in imported if i.startswith(name)}
    lines = (sample / "requirements.txt").read_text(encoding="utf-8").splitlines()
    # Until it is published, whoever publishes something by our name would be deployed instead.
    wheel = f"./azure_communication_common-{version('azure-communication-common')}-py3-none-any.whl"
    assert wheel in lines
    listed = {line for line in lines if not line.startswith(("#", "./"))}
    # aiohttp is what azure-core's async clients need.
    assert listed == needed - {"azure-communication-common"} | {"aiohttp"}
    readme = (sample / "README.md").read_text(encoding="utf-8")
    assert "pip wheel -q --no-deps -w . ../..\n" in readme


def test_host_loads_the_extensions(sample: Path) -> None:
    """The host is told where its extensions for Event Grid and Durable Functions come from."""
    host = json.loads((sample / "host.json").read_text(encoding="utf-8"))
    assert host["version"] == "2.0"
    assert host["extensionBundle"]["id"] == "Microsoft.Azure.Functions.ExtensionBundle"
