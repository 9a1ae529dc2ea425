"""The sample's orchestration in the real worker, with a stand-in for the Durable extension."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from azure.communication.common import MicrosoftTeamsUserIdentifier
from azure.communication.identity import CommunicationIdentityClient

from local_service import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Room
    from durable_driver import DurableExtension
    from functions_host import FunctionsHost
    from local_service import LocalService

# Said once per process, whatever is decoded, by the mode that is the default.
pytestmark = pytest.mark.filterwarnings("ignore:azure.functions:DeprecationWarning")

TEAMS_USER = MicrosoftTeamsUserIdentifier("8e4b2f0e-7b0b-4c0f-9f0e-2f6f3f1f9f7d")


@pytest.fixture
def extension(host: FunctionsHost) -> Iterator[DurableExtension]:
    from durable_driver import DurableExtension

    with DurableExtension(host) as extension:
        yield extension
        # The client's connection lives as long as the worker, which has no hook to close it.
        from azure.durable_functions.models.utils import http_utils

        host.run(http_utils._close_session())


@pytest.fixture
def guest(service: LocalService) -> str:
    """Return the raw id of another user of the resource."""
    identity = CommunicationIdentityClient.from_connection_string(service.connection_string)
    with identity._identity_service_client:  # the client itself has no close
        return identity.create_user().raw_id


def test_participants_travel_as_raw_ids(
    host: FunctionsHost,
    extension: DurableExtension,
    service: LocalService,
    room: Room,
    guest: str,
) -> None:
    """Between activities there are texts, and in the thread whom they stand for."""
    stranger = "8:acs:another-resource_0"
    raw_ids = [guest, TEAMS_USER.raw_id, stranger]
    started = host.request("POST", "/api/threads", {"topic": "Plans", "participants": raw_ids})
    assert started.status == 202
    assert started.json()["statusQueryGetUri"].endswith("/instances/instance-1")

    output = extension.finish("instance-1")
    thread = service.threads[output["threadId"]]
    assert output["refused"] == [TEAMS_USER.raw_id, stranger]
    assert list(thread.participants) == [room.user, guest]
    assert extension.calls[0] == (
        "create_thread",
        json.dumps({"topic": "Plans", "key": "instance-1"}),
        json.dumps(output["threadId"]),
    )
    assert extension.calls[1:] == [
        (
            "add_participant",
            json.dumps({"threadId": output["threadId"], "rawId": raw_id}),
            json.dumps("" if raw_id == guest else raw_id),
        )
        for raw_id in raw_ids
    ]
    assert service.issued[room.user] == 1


def test_thread_has_one_idempotency_key(
    host: FunctionsHost, extension: DurableExtension, service: LocalService
) -> None:
    """An activity that is run again asks for the same thread again."""
    invitation = json.dumps({"topic": "Plans", "participants": [TEAMS_USER.raw_id]})
    for _ in range(2):
        assert extension.run("set_up_thread", invitation, instance="i")["refused"]
    creations = [each for each in service.requests if each.target.startswith("/chat/threads?")]
    assert [each.headers["repeatability-request-id"] for each in creations[-2:]] == ["i", "i"]


def test_failed_activity_fails_the_orchestration(
    host: FunctionsHost, extension: DurableExtension, service: LocalService
) -> None:
    """The orchestration reports what the service said, and no token."""
    from durable_driver import OrchestrationFailed

    service.script("POST /chat/threads", Answer(403))
    invitation = json.dumps({"topic": "Plans", "participants": [TEAMS_USER.raw_id]})
    with pytest.raises(OrchestrationFailed, match="Forbidden") as caught:
        extension.run("set_up_thread", invitation)
    assert "eyJ" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        None,
        {"topic": "Plans"},
        {"topic": 1, "participants": ["8:acs:a_b"]},
        {"topic": "Plans", "participants": []},
        {"topic": "Plans", "participants": "8:acs:a_b"},
        {"topic": "Plans", "participants": [{"rawId": "8:acs:a_b"}]},
    ],
)
def test_malformed_invitation_is_refused(
    host: FunctionsHost, extension: DurableExtension, body: object
) -> None:
    """Only a topic and raw ids start an orchestration."""
    reply = host.request("POST", "/api/threads", body)
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert extension.started == {}


@pytest.mark.parametrize("strict", ["0", "1"], ids=["default", "strict"])
def test_raw_ids_need_no_serializer(
    host: FunctionsHost,
    extension: DurableExtension,
    service: LocalService,
    guest: str,
    monkeypatch: pytest.MonkeyPatch,
    strict: str,
) -> None:
    """Texts pass in the strict mode of Durable Functions, too, in which custom objects do not."""
    monkeypatch.setenv("AZURE_FUNCTIONS_DURABLE_STRICT_TYPING", strict)
    invitation = json.dumps({"topic": "Plans", "participants": [guest]})
    output = extension.run("set_up_thread", invitation)
    assert guest in service.threads[output["threadId"]].participants
