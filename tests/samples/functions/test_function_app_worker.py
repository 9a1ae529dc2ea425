"""The sample in the real worker: what it loads, what it answers, and how often it needs a token."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.communication.common import CommunicationTokenCredential

from conftest import own_scheduler
from local_service import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import InstanceClock, Room
    from functions_host import FunctionsHost, Reply
    from local_service import LocalService

HERE = Path(__file__).parent
DAY = 86400  # seconds that a token lives

BOTH = pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])


def statuses(replies: list[Reply]) -> Counter[int]:
    return Counter(reply.status for reply in replies)


def problem(reply: Reply) -> Any:
    """Return the problem that a reply holds."""
    assert reply.headers["content-type"] == "application/problem+json"
    found = reply.json()
    assert found["status"] == reply.status
    return found


@pytest.fixture
def warm(host: FunctionsHost, room: Room, service: LocalService) -> FunctionsHost:
    """Return the host once both credentials have a token, and start to count from here."""
    for sync in (False, True):
        reply = host.request(*room.post(sync=sync))
        assert reply.outcome
        reply.outcome.result()
        assert reply.status == 201
    service.issued.clear()
    service.statuses.clear()
    return host


def after_messages(service: LocalService, number: int, action: Callable[[], object]) -> None:
    """Have something happen between this and the next message that the service takes."""

    class Counting(Counter[int]):
        def __setitem__(self, status: int, count: int) -> None:
            super().__setitem__(status, count)
            if (status, count) == (201, number):
                action()

    service.statuses = Counting()


async def look() -> None:
    """Do what the timer of the worker's loop does when it goes off."""
    own_scheduler().run_due()


async def look_and_wait() -> None:
    """Do the same, and wait for the refreshes that this starts."""
    ahead = own_scheduler()
    ahead.run_due()
    await asyncio.gather(*ahead.in_progress)


# --- Loading


def test_each_function_is_loaded(host: FunctionsHost) -> None:
    """All functions are found, and those that are called over HTTP want a key."""
    assert sorted(host.functions) == [
        "add_participant",
        "create_thread",
        "invite",
        "issue_token",
        "on_event",
        "send_message",
        "send_message_sync",
        "set_up_thread",
    ]
    bindings = [json.loads(each) for one in host.functions.values() for each in one.raw_bindings]
    triggers = [each for each in bindings if each["type"] == "httpTrigger"]
    assert [each["authLevel"] for each in triggers] == ["FUNCTION"] * 4


LOAD = """
import sys
from functions_host import FunctionsHost

settings = {
    "COMMUNICATION_SERVICES_CONNECTION_STRING": "endpoint=https://localhost:1;accesskey=a2V5",
    "COMMUNICATION_SERVICES_USER_ID": "8:acs:a_b",
}
with FunctionsHost(sys.argv[1], settings) as host:
    print(*host.modules_at_load)
"""


def modules_at_load(app: Path) -> set[str]:
    """Load an app in a worker of its own, and return what has been imported by then."""
    path = "import sys; sys.path.insert(0, sys.argv.pop())"
    command = [sys.executable, "-W", "error", "-c", path + LOAD, str(app), str(HERE)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_cold_start_leaves_what_the_first_invocation_may_need(worker: Any, sample: Path) -> None:
    """When the sample is loaded, nothing has been imported to send requests with."""
    modules = modules_at_load(sample)
    assert "azure.communication.common.aio._credential" in modules
    assert not modules & {
        "azure.communication.common._sync._entra",
        "azure.core.pipeline.transport._aiohttp",
        "requests",
    }


def test_cold_start_for_events_needs_no_azure_core(worker: Any, tmp_path: Path) -> None:
    """An app that only reads identifiers from events does not wait for azure-core."""
    (tmp_path / "function_app.py").write_text("""
import azure.functions as func
from azure.communication.common import deserialize_identifier

app = func.FunctionApp()

@app.event_grid_trigger("event")
def on_event(event: func.EventGridEvent) -> None:
    deserialize_identifier(event.get_json()["from"])
""")
    modules = modules_at_load(tmp_path)
    assert "azure.communication.common._serialization" in modules
    assert not modules & {"azure.core", "jwt", "requests", "aiohttp"}


# --- Sending messages


def test_first_invocations_share_one_token(
    host: FunctionsHost, room: Room, service: LocalService
) -> None:
    """25 invocations of a cold instance at once, and its own first refresh, are one refresh."""
    assert statuses(host.requests([room.post()] * 25)) == {201: 25}
    assert service.issued[room.user] == 1


def test_first_invocations_in_threads_share_one_token(
    host: FunctionsHost, room: Room, service: LocalService
) -> None:
    """The same holds for the sync credential and the threads of the worker's pool."""
    host.request(*room.post())  # by now the async credential has its token
    assert statuses(host.requests([room.post(sync=True)] * 25)) == {201: 25}
    assert service.issued[room.user] == 1 + 1


@BOTH
def test_warm_invocations_need_no_token(
    warm: FunctionsHost, room: Room, service: LocalService, sync: bool
) -> None:
    """Once there is a token, all invocations use it, and each sends one request."""
    assert statuses(warm.requests([room.post(sync=sync)] * 25)) == {201: 25}
    assert service.issued[room.user] == 0
    assert service.statuses == {201: 25}


@BOTH
def test_200_invocations_across_a_roll_over(
    warm: FunctionsHost, room: Room, service: LocalService, clock: InstanceClock, sync: bool
) -> None:
    """In the last two minutes of a token, one of 200 invocations replaces it."""
    clock.advance(DAY - 60)
    assert statuses(warm.requests([room.post(sync=sync)] * 200)) == {201: 200}
    assert service.issued[room.user] == 1
    assert service.statuses[401] == 0


@BOTH
def test_200_invocations_across_an_expiry(
    warm: FunctionsHost, room: Room, service: LocalService, clock: InstanceClock, sync: bool
) -> None:
    """When the token expires with requests on their way, no caller notices."""
    after_messages(service, 50, lambda: clock.advance(DAY + 1))  # expiries are rounded up
    assert statuses(warm.requests([room.post(sync=sync)] * 200)) == {201: 200}
    assert service.issued[room.user] == 1
    # Async functions wait for connections with a token in hand. Threads are few, and ask late.
    assert sync or service.statuses[401] > 0


@BOTH
def test_200_invocations_across_a_revocation(
    warm: FunctionsHost, room: Room, service: LocalService, sync: bool
) -> None:
    """When the token is revoked with requests on their way, they are sent again with another."""
    after_messages(service, 50, lambda: service.revoke(room.user))
    assert statuses(warm.requests([room.post(sync=sync)] * 200)) == {201: 200}
    assert service.issued[room.user] == 1
    assert service.statuses[401] > 0


@BOTH
def test_one_refresh_for_each_roll_over_and_revocation(
    warm: FunctionsHost, room: Room, service: LocalService, clock: InstanceClock, sync: bool
) -> None:
    """Days on which 200 invocations meet a roll-over, a revocation, a roll-over: three tokens."""
    calls = [room.post(sync=sync)] * 200
    after_messages(service, 300, lambda: service.revoke(room.user))
    for tokens, seconds in enumerate((DAY - 60, 3600, DAY - 60), start=1):
        clock.advance(seconds)
        assert statuses(warm.requests(calls)) == {201: 200}
        assert service.issued[room.user] == tokens


def test_token_is_replaced_before_an_invocation_needs_it(
    warm: FunctionsHost, room: Room, service: LocalService, clock: InstanceClock
) -> None:
    """Ten minutes before expiry, a timer of the worker's loop refreshes the async credential."""
    clock.advance(DAY - 590)
    warm.run(look_and_wait())
    assert service.issued[room.user] == 1
    clock.advance(580)
    assert warm.request(*room.post()).status == 201
    assert service.issued[room.user] == 1


@pytest.mark.parametrize("monotonic", ["stands still", "goes on"])
@BOTH
def test_thawed_instance_sends_no_expired_token(
    warm: FunctionsHost,
    room: Room,
    service: LocalService,
    clock: InstanceClock,
    sync: bool,
    monotonic: str,
) -> None:
    """After two days in the freezer, the timer and 25 invocations cause one refresh together."""
    let_pass = clock.freeze if monotonic == "stands still" else clock.advance
    let_pass(2 * DAY)
    if not sync:
        warm.run(look())  # overdue, so it goes off with the first invocations
    assert statuses(warm.requests([room.post(sync=sync)] * 25)) == {201: 25}
    assert service.issued[room.user] == 1
    assert service.statuses == {200: 1, 201: 25}


# --- The token broker


def test_broker_issues_what_a_refresher_returns(host: FunctionsHost, room: Room) -> None:
    """A client elsewhere refreshes its credential with the token of the answer."""
    made = host.request("POST", "/api/token", {"newUser": True})
    assert (made.status, made.headers["cache-control"]) == (200, "no-store")
    user = made.json()["rawId"]
    assert user != room.user

    def fetch_token() -> str:
        body = host.request("POST", "/api/token", {"rawId": user}).json()
        assert body["rawId"] == user
        assert body["expiresOn"].startswith("20")
        token: str = body["token"]
        return token

    with CommunicationTokenCredential(token_refresher=fetch_token) as credential:
        assert credential.get_token().token != made.json()["token"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"{",
        [],
        {},
        {"rawId": 1},
        {"rawId": ""},
        {"rawId": "4:+14255550123"},
        {"rawId": "8:orgid:00000000-0000-0000-0000-000000000000"},
        {"newUser": False},
    ],
)
def test_broker_refuses_what_names_no_user(
    host: FunctionsHost, service: LocalService, body: object
) -> None:
    """A body that names no user of Communication Services is the caller's mistake."""
    assert problem(host.request("POST", "/api/token", body))["title"] == "Bad Request"
    assert service.statuses[201] == 0  # nobody was created


# --- When it fails


def test_failed_refresh_is_a_problem_without_a_secret(
    host: FunctionsHost, room: Room, service: LocalService
) -> None:
    """The caller learns that this app has a problem, the log which, and the next call works."""
    host.request(*room.post())
    service.script("POST /identities/{id}/:issueAccessToken", Answer(401))
    failed = host.request(*room.post(sync=True))
    assert failed.status == 502
    assert problem(failed)["detail"].startswith("Azure Communication Services did not")
    assert failed.outcome
    [error] = [text for text in failed.outcome.logs if text.startswith("ERROR")]
    assert "ClientAuthenticationError: (Unauthorized) Unauthorized" in error
    assert host.request(*room.post(sync=True)).status == 201


@BOTH
def test_unknown_thread_is_not_found(host: FunctionsHost, room: Room, sync: bool) -> None:
    """What the service says of the caller's own request goes back to the caller."""
    method, path, body = room.post(sync=sync)
    reply = host.request(method, path.replace(room.thread, "19:other@thread.v2"), body)
    assert problem(reply)["title"] == "Not Found"


@BOTH
@pytest.mark.parametrize("body", [None, b"\xff", {}, {"content": 1}, {"content": ""}])
def test_message_without_content_is_refused(
    host: FunctionsHost, room: Room, service: LocalService, sync: bool, body: object
) -> None:
    """A body without a text is the caller's mistake."""
    method, path, _ = room.post(sync=sync)
    assert problem(host.request(method, path, body))["title"] == "Bad Request"
    assert service.threads[room.thread].messages[-1]["type"] != "text"


def test_no_secret_is_logged(
    host: FunctionsHost,
    room: Room,
    service: LocalService,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither what Azure stores nor the log at DEBUG holds a token, a key or a signature."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="azure.core")
    replies = [
        host.request("POST", "/api/token", {"newUser": True}),
        host.request("POST", "/api/token", {"rawId": "8:acs:another_resource's"}),
        host.request(*room.post()),
        host.request(*room.post(sync=True)),
    ]
    service.revoke(room.user)
    replies += [host.request(*room.post()), host.request(*room.post(sync=True))]
    replies.append(host.request("POST", "/api/threads/19:none/messages", {"content": "Hello"}))
    assert [reply.status for reply in replies] == [200, 502, 201, 201, 201, 201, 404]
    logs = caplog.text + "\n".join(host.logs)
    assert "issueAccessToken" in logs
    answers = "".join(reply.body.decode() for reply in replies[1:])
    for text in (logs, answers):
        assert not re.search(r"eyJ[\w-]+\.", text)
        assert service.access_key not in text
        assert "Signature=" not in text


# --- Events

USER = {"kind": "communicationUser", "rawId": "8:acs:a_b", "communicationUser": {"id": "8:acs:a_b"}}
PHONE = {"kind": "phoneNumber", "rawId": "4:+14255550123", "phoneNumber": {"value": "+14255550123"}}
TEAMS = {
    "kind": "microsoftTeamsUser",
    "rawId": "8:orgid:o",
    "microsoftTeamsUser": {"userId": "o", "isAnonymous": False, "cloud": "public"},
}
GUEST = {
    "kind": "microsoftTeamsUser",
    "rawId": "8:teamsvisitor:v",
    "microsoftTeamsUser": {"userId": "v", "isAnonymous": True, "cloud": "public"},
}
EXTENSION = {
    "kind": "teamsExtensionUser",
    "rawId": "8:acs:r_t_u",
    "teamsExtensionUser": {"userId": "u", "tenantId": "t", "resourceId": "r", "cloud": "public"},
}
APP = {"rawId": "28:orgid:a", "microsoftTeamsApp": {"appId": "a", "cloud": "public"}}
FUTURE = {"kind": "robot", "rawId": "99:x", "robot": {"id": "x"}}


def event(kind: str, **data: object) -> dict[str, object]:
    """Return an event as Event Grid delivers it."""
    return {
        "id": "00000000-0000-0000-0000-000000000001",
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Communication"
        "/communicationServices/c",
        "subject": "any",
        "data": data,
        "eventType": f"Microsoft.Communication.{kind}",
        "dataVersion": "1.0",
        "metadataVersion": "1",
        "eventTime": "2026-03-01T12:00:00.1234567Z",
    }


def told(host: FunctionsHost, event: dict[str, object]) -> list[str]:
    """Deliver an event, and return what the function itself logged, without the event's type."""
    outcome = host.send_event("on_event", event)
    outcome.result()
    return [text.rpartition(": ")[2] for text in outcome.logs if " root: " in text]


def test_incoming_call_is_read(host: FunctionsHost) -> None:
    """Caller and callee are told by their kinds. The secret for answering is not logged."""
    call = event(
        "IncomingCall",
        **{"from": PHONE, "to": USER},
        serverCallId="aHR0cHM6Ly9hcGk",
        callerDisplayName="Alice",
        incomingCallContext="eyJhbGciOiJub25lIn0.eyJj.x",
        correlationId="c",
    )
    assert told(host, call) == [
        "the caller is on the telephone.",
        "the callee is the user 8:acs:a_b.",
    ]
    assert not any("+1425" in text or "eyJ" in text for text in host.logs)


@pytest.mark.parametrize(
    ("sender", "description"),
    [
        (USER, "the user 8:acs:a_b"),
        (TEAMS, "a user of Teams"),
        (GUEST, "a guest in Teams"),
        (EXTENSION, "a user of Teams, by way of this resource"),
        (APP, "an app in Teams, such as a call queue"),
        (FUTURE, "of a kind that this version does not know"),
    ],
    ids=["user", "teams", "guest", "extension", "app", "future"],
)
def test_chat_message_is_read(
    host: FunctionsHost, sender: dict[str, object], description: str
) -> None:
    """Senders of all kinds are told apart, those of the future included."""
    received = event(
        "ChatMessageReceived",
        messageBody="Hello",
        senderCommunicationIdentifier=sender,
        recipientCommunicationIdentifier=USER,
    )
    assert told(host, received) == [
        f"the sender is {description}.",
        "the recipient is the user 8:acs:a_b.",
    ]
    in_thread = event("ChatMessageReceivedInThread", senderCommunicationIdentifier=sender)
    assert told(host, in_thread) == [f"the sender is {description}."]


def test_other_events_pass(host: FunctionsHost) -> None:
    """An event that was subscribed to by mistake is logged and not delivered again."""
    assert host.send_event("on_event", event("SMSReceived")).result() is None
    assert "WARNING root: There is nothing to do for SMSReceived." in host.logs


def test_malformed_event_fails(host: FunctionsHost) -> None:
    """An event that cannot be read fails the invocation, so that Event Grid keeps it."""
    outcome = host.send_event("on_event", event("IncomingCall", to=USER))
    assert outcome.error == "KeyError: 'from'"


# --- By itself


def test_sample_runs_as_the_readme_says(worker: Any) -> None:
    """In a process of its own, all messages are sent, without a 401, and no token is shown."""
    command = [sys.executable, "-W", "error", str(HERE / "run_sample.py")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "had the statuses 201.\n" in run.stdout
    assert run.stdout.endswith("Requests answered with 401: 0.\n")
    # At least two of each credential, because its tokens are replaced after three seconds of eight.
    [tokens] = re.findall(r"two credentials needed (\d+) tokens", run.stdout)
    assert int(tokens) >= 4
    assert "eyJ" not in run.stdout + run.stderr
