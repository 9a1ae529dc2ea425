"""The stand-in for the service: the published clients work against it, the rest it refuses."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import hmac
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
import pytest
from azure.communication.callautomation._shared.token_exchange import TokenExchangeClient
from azure.communication.chat import (
    ChatClient,
    ChatParticipant,
    CommunicationTokenCredential,
    CommunicationUserIdentifier,
)
from azure.communication.chat import aio as chat_aio
from azure.communication.identity import CommunicationIdentityClient
from azure.communication.identity import aio as identity_aio
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import RequestsTransport

import local_service
from local_service import Answer, LocalService

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRA = "/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview"
TEAMS = "/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30"
TEAMS_SCOPE = "https://auth.msft.communication.azure.com/TeamsExtension.ManageCalls"
THREADS = "/chat/threads?api-version=2024-03-07"


class Clock:
    """Tells the real time plus what a test added to it."""

    def __init__(self) -> None:
        self.added = 0.0

    def __call__(self) -> float:
        return time.time() + self.added


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Iterator[LocalService]:
    with LocalService(clock=clock, echo=True) as running:
        yield running


@pytest.fixture
def identity(service: LocalService) -> Iterator[Any]:
    client = CommunicationIdentityClient.from_connection_string(
        service.connection_string, retry_backoff_factor=0.001, **service.client_options()
    )
    with client._identity_service_client:  # the client itself has no close
        yield client


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


def send(
    service: LocalService,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Response:
    """Send a request with exactly this target on its request line, and these headers."""
    connection = http.client.HTTPSConnection(
        "localhost", service.port, context=service.ssl_context, timeout=10
    )
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        needed = {"host": f"localhost:{service.port}", "content-length": str(len(body))}
        for name, value in {**needed, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, received, json.loads(text) if text else None)
    finally:
        connection.close()


def signed(
    service: LocalService, method: str, target: str, body: bytes = b"", *, date: float | None = None
) -> dict[str, str]:
    """Return the headers of a request signed as the service documents, on paths of its own."""
    sent = datetime.fromtimestamp(time.time() if date is None else date, timezone.utc)
    when = sent.strftime("%a, %d %b %Y %H:%M:%S GMT")
    content_hash = base64.b64encode(hashlib.sha256(body).digest()).decode()
    text = f"{method}\n{target}\n{when};localhost:{service.port};{content_hash}"
    key = base64.b64decode(service.access_key)
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return {
        "x-ms-date": when,
        "x-ms-content-sha256": content_hash,
        "authorization": "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256"
        f"&Signature={signature}",
    }


def send_as(
    service: LocalService, token: str, method: str, target: str, body: object = None
) -> Response:
    """Send a request with a bearer token and a JSON body."""
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    return send(service, method, target, content, headers)


def error_in(refusal: pytest.ExceptionInfo[HttpResponseError]) -> dict[str, Any]:
    """Return the error that the service answered, as it came over the wire."""
    response: Any = refusal.value.response
    return dict(json.loads(response.text())["error"])


def chat_client(service: LocalService, token: str) -> Any:
    credential = CommunicationTokenCredential(token)
    return ChatClient(service.endpoint, credential, **service.client_options())


def new_user(identity: Any, *scopes: str) -> tuple[CommunicationUserIdentifier, str]:
    user, token = identity.create_user_and_token(list(scopes or ["chat"]))
    return CommunicationUserIdentifier(user.properties["id"]), token.token


# --- Identities


def test_identity_client_creates_users_and_tokens(service: LocalService, identity: Any) -> None:
    """The published client, with its own signature, gets users and tokens of 24 hours."""
    user, first = identity.create_user_and_token(["chat", "voip"])
    second = identity.get_token(user, ["voip"])
    other = identity.create_user()

    assert user.raw_id.startswith(f"8:acs:{service.resource_id}_")
    assert other.raw_id != user.raw_id
    claims = jwt.decode(first.token, options={"verify_signature": False})
    assert claims["skypeid"] == user.raw_id.removeprefix("8:")
    assert claims["acsScope"] == "chat,voip"
    assert claims["exp"] - claims["iat"] in (86400, 86401)
    expiry = datetime.fromtimestamp(claims["exp"], timezone.utc)
    assert str(first.expires_on) == expiry.strftime("%Y-%m-%dT%H:%M:%S.0000000+00:00")
    assert second.token != first.token
    assert service.issued == {user.raw_id: 2}
    assert service.statuses == {201: 2, 200: 1}


def test_async_identity_client_creates_revokes_and_deletes(service: LocalService) -> None:
    """The async client signs another spelling of the URL, the one that it sends: it works, too."""

    async def use() -> str:
        client = identity_aio.CommunicationIdentityClient.from_connection_string(
            service.connection_string, **service.client_options()
        )
        async with client:
            user, token = await client.create_user_and_token(["chat"])
            await client.get_token(user, ["chat"])
            await client.revoke_tokens(user)
            assert send_as(service, token.token, "GET", THREADS).status == 401
            await client.delete_user(user)
            with pytest.raises(ClientAuthenticationError, match="doesn't belong to the resource"):
                await client.get_token(user, ["chat"])
            return str(user.raw_id)

    user_id = asyncio.run(use())
    assert service.issued == {user_id: 2}
    assert service.requests[1].target == (
        f"/identities/{user_id}/:issueAccessToken?api-version=2023-10-01"
    )


def test_requested_lifetime_is_kept_or_refused(identity: Any) -> None:
    """A lifetime in the request counts, between one hour and 24."""
    user, token = identity.create_user_and_token(["chat"], token_expires_in=timedelta(hours=2))
    claims = jwt.decode(token.token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] in (7200, 7201)
    with pytest.raises(HttpResponseError) as refusal:
        identity.get_token(user, ["chat"], token_expires_in=timedelta(minutes=59))
    assert refusal.value.status_code == 400
    assert error_in(refusal)["code"] == "ValidationError"
    assert error_in(refusal)["target"] == "expiresInMinutes"


@pytest.mark.parametrize("scopes", [[], ["chat", "sms"]])
def test_scopes_are_required_and_known(identity: Any, scopes: list[str]) -> None:
    """A token without scopes, or with one that does not exist, is not issued."""
    user = identity.create_user()
    with pytest.raises(HttpResponseError) as refusal:
        identity.get_token(user, scopes)
    assert refusal.value.status_code == 400
    assert error_in(refusal)["target"] == "scopes"


def test_resource_may_be_managed_with_an_entra_token(service: LocalService) -> None:
    """An Entra token for the resource is as good as the access key; one for users is not."""
    target = "/identities?api-version=2023-10-01"
    for_resource = service.entra_token(["https://communication.azure.com//.default"])
    assert send_as(service, for_resource, "POST", target).status == 201
    assert send_as(service, service.entra_token(), "POST", target).status == 401


# --- The signature


def test_wrong_key_is_denied_and_a_rotated_one_counts_at_once(service: LocalService) -> None:
    """A signature with another key is refused in the service's shape, until the key changes."""
    other_key = base64.b64encode(b"another key").decode()
    credential = AzureKeyCredential(other_key)
    client = CommunicationIdentityClient(service.endpoint, credential, **service.client_options())
    with client._identity_service_client:
        with pytest.raises(ClientAuthenticationError) as refusal:
            client.create_user()
        assert error_in(refusal)["code"] == "Denied"
        assert error_in(refusal)["message"] == "Denied by the resource provider."
        service.access_key = other_key
        assert client.create_user().raw_id.startswith("8:acs:")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//",
        "/a//b/",
        "/a%2Fb/%2f?x=%2B&y=+&z=",
        "/%7Euser/~user?q=%20&:@;,[]'",
        "/%C5%BElu%C5%A5?a=%26%3D&%26=b",
        "/a/../b?x=1?y=2&&",
        "/identities/8:acs:a_b/x%3Ay?api-version=2023-10-01",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_signature_is_verified_over_the_request_line_as_received(
    service: LocalService, method: str, target: str
) -> None:
    """Each spelling of a path is its own text: signed it passes, any other spelling does not."""
    body = b'\xff {"a": 1}'
    answer = send(service, method, target, body, signed(service, method, target, body))
    assert answer.status == 200
    assert answer.body == {
        "method": method,
        "target": target,
        "host": f"localhost:{service.port}",
    }
    assert (service.requests[-1].target, service.requests[-1].content) == (target, body)
    other = signed(service, method, target.replace("/", "/%2F", 1), body)
    assert send(service, method, target, body, other).status == 401


def test_everything_signed_is_checked(service: LocalService) -> None:
    """Changing any part of a signed request makes it fail, with the reason."""
    target, body = "/identities?api-version=2023-10-01", b'{"createTokenWithScopes":["chat"]}'
    good = {**signed(service, "POST", target, body), "content-type": "application/json"}
    assert send(service, "POST", target, body, good).status == 201
    assert "www-authenticate" not in send(service, "POST", target).headers

    def refuse(reason: str, changed: dict[str, str], sent: bytes = body) -> None:
        answer = send(service, "POST", target, sent, {**good, **changed})
        assert (answer.status, answer.body["error"]["code"]) == (401, "Denied")
        assert reason in answer.body["error"]["innererror"]["message"]

    now, authorization = time.time(), good["authorization"]
    refuse("Authorization header", {"authorization": ""})
    refuse("Authorization header", {"authorization": authorization.replace("host;", "")})
    refuse("signature", {"authorization": authorization.replace("Signature=", "Signature=A")})
    refuse("signature", {"authorization": authorization + "\xff"})
    refuse("signature", {"host": "localhost"})
    refuse("signature", signed(service, "PUT", target, body))
    refuse("x-ms-content-sha256", {}, sent=body.replace(b"chat", b"voip"))
    refuse("RFC 1123", {"x-ms-date": "2026-11-24T03:04:05Z"})
    refuse("service's time", signed(service, "POST", target, body, date=now - 901))
    refuse("service's time", signed(service, "POST", target, body, date=now + 960))
    service.date_tolerance = 2000
    old = {**good, **signed(service, "POST", target, body, date=now - 901)}
    assert send(service, "POST", target, body, old).status == 201


def test_api_version_is_required_and_known(service: LocalService) -> None:
    """A route answers only the api-versions that it has."""
    client = CommunicationIdentityClient.from_connection_string(
        service.connection_string, api_version="2020-01-01", **service.client_options()
    )
    with client._identity_service_client, pytest.raises(HttpResponseError) as refusal:
        client.create_user()
    assert refusal.value.status_code == 400
    assert error_in(refusal)["code"] == "UnsupportedApiVersion"
    assert "does not support the API version '2020-01-01'" in error_in(refusal)["message"]
    headers = signed(service, "POST", "/identities")
    none = send(service, "POST", "/identities", headers=headers)
    assert (none.status, none.body["error"]["code"]) == (400, "ApiVersionUnspecified")


def test_unknown_paths_are_not_found_without_echo(service: LocalService) -> None:
    """Only a service that echoes answers on paths of nothing."""
    service.echo = False
    answer = send(service, "GET", "/x", headers=signed(service, "GET", "/x"))
    assert (answer.status, answer.body["error"]["code"]) == (404, "NotFound")


# --- Users' tokens


def test_token_is_refused_once_expired(service: LocalService, identity: Any, clock: Clock) -> None:
    """A token of one second works, then gets the 401 of the service, with a challenge."""
    service.token_lifetime = 1
    _, token = new_user(identity)
    with chat_client(service, token) as client:
        assert list(client.list_chat_threads()) == []
        clock.added += 2
        with pytest.raises(ClientAuthenticationError) as refusal:
            list(client.list_chat_threads())
    assert error_in(refusal)["code"] == "Unauthorized"
    assert error_in(refusal)["message"] == "The access token has expired."
    response: Any = refusal.value.response
    assert response.headers["WWW-Authenticate"] == (
        'Bearer error="invalid_token", error_description="The access token has expired."'
    )
    assert service.statuses[401] == 1


def test_expiry_is_a_whole_second_rounded_up(service: LocalService, identity: Any) -> None:
    """A token lives at least as long as the setting says, fractions of a second included."""
    now = int(time.time())
    service.clock, service.token_lifetime = lambda: now + 0.75, 0.5
    _, token = new_user(identity)
    assert jwt.decode(token, options={"verify_signature": False})["exp"] == now + 2
    service.clock = lambda: now + 1.99
    assert send_as(service, token, "GET", THREADS).status == 200
    service.clock = lambda: now + 2
    assert send_as(service, token, "GET", THREADS).status == 401


def test_revocation_is_exact(service: LocalService, identity: Any) -> None:
    """Revocation ends the tokens issued before it, not later ones nor other users'."""
    user, first = new_user(identity)
    _, others = new_user(identity)
    identity.revoke_tokens(user)
    second = identity.get_token(user, ["chat"]).token
    assert [send_as(service, each, "GET", THREADS).status for each in (first, second, others)] == [
        401,
        200,
        200,
    ]
    service.revoke(user.raw_id)
    answer = send_as(service, second, "GET", THREADS)
    assert answer.body["error"]["message"] == "The access token has been revoked."
    assert send_as(service, others, "GET", THREADS).status == 200


def test_forged_tokens_are_refused(service: LocalService, identity: Any) -> None:
    """Claims alone do not make a token: the signature must be the service's."""
    _, token = new_user(identity)
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = [
        jwt.encode(claims, "k" * 32, "HS256"),
        jwt.encode(claims, "", "none"),
        token[:-4] + "AAAA",
        service.entra_token(),
        "no token",
        "",
        "\xff",
    ]
    answers = [send_as(service, each, "GET", THREADS) for each in forged]
    assert [answer.status for answer in answers] == [401] * len(forged)
    assert all("invalid_token" in answer.headers["www-authenticate"] for answer in answers)
    assert send_as(service, token, "GET", THREADS).status == 200


def test_scopes_decide_what_a_token_may_do(service: LocalService, identity: Any) -> None:
    """Calls are no chat; chat.join manages no threads; chat.join.limited adds nobody."""
    _, token = new_user(identity)
    user, voip = new_user(identity, "voip")
    join = identity.get_token(user, ["chat.join"]).token
    limited = identity.get_token(user, ["chat.join.limited"]).token
    with chat_client(service, token) as client:
        invited = [ChatParticipant(identifier=user)]
        thread = client.create_chat_thread("t", thread_participants=invited).chat_thread.id
    at = f"/chat/threads/{thread}"
    version = "?api-version=2024-03-07"

    def statuses(of: str) -> list[int]:
        return [
            send_as(service, of, "POST", at + "/messages" + version, {"content": "hi"}).status,
            send_as(
                service, of, "POST", at + "/participants/:add" + version, {"participants": []}
            ).status,
            send_as(service, of, "PATCH", at + version, {"topic": "new"}).status,
        ]

    assert [statuses(each) for each in (voip, limited, join)] == [
        [403, 403, 403],
        [201, 403, 403],
        [201, 201, 403],
    ]
    answer = send_as(service, voip, "GET", THREADS)
    assert answer.body["error"]["code"] == "Forbidden"
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'


# --- Chat


def test_conversation_with_the_chat_client(service: LocalService, identity: Any) -> None:
    """Threads, participants, messages and pages, even if all happens in one millisecond."""
    now = time.time()
    service.clock = lambda: now
    alice, alices_token = new_user(identity)
    bob, bobs_token = new_user(identity)
    carol, _ = new_user(identity)
    stranger = CommunicationUserIdentifier("8:acs:another-resource_someone")
    with chat_client(service, alices_token) as client, chat_client(service, bobs_token) as bobs:
        created = client.create_chat_thread(
            "Lunch",
            thread_participants=[
                ChatParticipant(identifier=bob, display_name="Bob"),
                ChatParticipant(identifier=stranger),
            ],
        )
        [(refused, error)] = created.errors
        assert (refused.identifier, error.code) == (stranger, "403")
        thread_id = created.chat_thread.id
        assert created.chat_thread.created_by == alice

        with client.get_chat_thread_client(thread_id, **service.client_options()) as thread:
            sent = [thread.send_message(f"m{n}", sender_display_name="Alice").id for n in range(3)]
            thread.send_typing_notification()
            listed = list(thread.list_messages(results_per_page=2))
            assert [each.content.message for each in listed[:3]] == ["m2", "m1", "m0"]
            assert [each.type.value for each in listed[3:]] == ["participantAdded", "topicUpdated"]
            assert listed[0].sender == alice
            assert [each.identifier for each in listed[3].content.participants] == [alice, bob]
            thread.update_message(sent[0], "edited", metadata={"k": "v"})
            thread.delete_message(sent[1])
            edited, deleted = thread.get_message(sent[0]), thread.get_message(sent[1])
            assert (edited.content.message, edited.metadata) == ("edited", {"k": "v"})
            assert edited.sender_display_name == "Alice"
            assert (deleted.content, edited.deleted_on) == (None, None)
            assert deleted.deleted_on >= deleted.created_on

            assert thread.add_participants([ChatParticipant(identifier=carol)]) == []
            thread.remove_participant(bob)
            assert [each.identifier for each in thread.list_participants(results_per_page=1)] == [
                alice,
                carol,
            ]
            thread.update_topic("Dinner")
            assert thread.get_properties().topic == "Dinner"
        [item] = client.list_chat_threads()
        assert (item.id, item.topic) == (thread_id, "Dinner")
        assert list(bobs.list_chat_threads()) == []
        with bobs.get_chat_thread_client(thread_id, **service.client_options()) as gone:
            with pytest.raises(HttpResponseError, match="not a participant") as refusal:
                gone.send_message("still there?")
            assert refusal.value.status_code == 403
        client.delete_chat_thread(thread_id)
        with pytest.raises(ResourceNotFoundError):
            client.delete_chat_thread(thread_id)


def test_conversation_with_the_async_chat_client(service: LocalService, identity: Any) -> None:
    """The async client converses as the sync one does."""
    alice, token = new_user(identity)
    bob, _ = new_user(identity)
    options = service.client_options()

    async def converse() -> list[str]:
        credential = chat_aio.CommunicationTokenCredential(token)
        async with chat_aio.ChatClient(service.endpoint, credential, **options) as client:
            created = await client.create_chat_thread(
                "Lunch", thread_participants=[ChatParticipant(identifier=bob)]
            )
            async with client.get_chat_thread_client(created.chat_thread.id, **options) as thread:
                sent = await thread.send_message("hello")
                await thread.update_message(sent.id, "hello, Bob")
                people = [each.identifier async for each in thread.list_participants()]
                assert people == [alice, bob]
                messages = thread.list_messages(results_per_page=1)
                return [each.content.message async for each in messages if each.sender == alice]

    assert asyncio.run(converse()) == ["hello, Bob"]
    assert service.statuses[401] == 0


def test_only_the_sender_changes_a_message(service: LocalService, identity: Any) -> None:
    """A participant may read another's message, not change it."""
    _, alices_token = new_user(identity)
    bob, bobs_token = new_user(identity)
    options = service.client_options()
    with chat_client(service, alices_token) as client:
        invited = [ChatParticipant(identifier=bob)]
        thread_id = client.create_chat_thread("t", thread_participants=invited).chat_thread.id
        with client.get_chat_thread_client(thread_id, **options) as thread:
            message_id = thread.send_message("mine").id
    with (
        chat_client(service, bobs_token) as client,
        client.get_chat_thread_client(thread_id, **options) as thread,
    ):
        assert thread.get_message(message_id).content.message == "mine"
        with pytest.raises(HttpResponseError, match="Only its sender"):
            thread.update_message(message_id, "ours")
        with pytest.raises(HttpResponseError, match="Only its sender"):
            thread.delete_message(message_id)
        with pytest.raises(ResourceNotFoundError):
            thread.get_message("1")


def test_identifiers_are_read_strictly(service: LocalService, identity: Any) -> None:
    """Identifiers of each kind are taken in the form of the REST API, any other form is not."""
    user, token = new_user(identity)
    with chat_client(service, token) as client:
        thread_id = client.create_chat_thread("t").chat_thread.id
    at = f"/chat/threads/{thread_id}/participants"

    def add(wire: object) -> Response:
        body = {"participants": [{"communicationIdentifier": wire}]}
        return send_as(service, token, "POST", f"{at}/:add?api-version=2024-03-07", body)

    u = user.raw_id
    teams_user = {"userId": "u", "isAnonymous": False, "cloud": "gcch"}
    extension = {"userId": "u", "tenantId": "t", "resourceId": "r"}
    good = [
        {"communicationUser": {"id": u}},
        {"kind": "communicationUser", "rawId": u, "communicationUser": {"id": u}},
        {"rawId": "4:+1", "phoneNumber": {"value": "+1"}, "microsoftTeamsUser": None},
        {"rawId": "8:gcch:u", "microsoftTeamsUser": teams_user},
        {"rawId": "8:dod:u", "microsoftTeamsUser": {"userId": "u", "cloud": "DOD"}},
        {"rawId": "28:orgid:a", "microsoftTeamsApp": {"appId": "a"}},
        {"rawId": "8:acs:r_t_u", "teamsExtensionUser": extension},
        {"rawId": "8:future:x"},
    ]
    bad: list[object] = [
        None,
        "8:acs:a",
        {},
        {"rawId": 5},
        {"rawId": ""},
        {"raw_id": u},
        {"rawId": u, "communicationUser": {}},
        {"rawId": u, "communicationUser": {"id": ""}},
        {"rawId": u, "communicationUser": {"id": u, "more": 1}},
        {"rawId": u, "communicationUser": u},
        {"rawId": "8:acs:another", "communicationUser": {"id": u}},
        {"rawId": u, "kind": "phoneNumber", "communicationUser": {"id": u}},
        {"rawId": u, "communicationUser": {"id": u}, "phoneNumber": {"value": "+1"}},
        {"phoneNumber": {"value": "+1"}},
        {"rawId": "8:mars:u", "microsoftTeamsUser": {**teams_user, "cloud": "mars"}},
        {"rawId": "8:orgid:u", "microsoftTeamsUser": {**teams_user, "isAnonymous": "no"}},
    ]
    assert [add(wire).status for wire in good] == [201] * len(good)
    answers = [add(wire) for wire in bad]
    assert [answer.status for answer in answers] == [400] * len(bad)
    assert {answer.body["error"]["code"] for answer in answers} == {"ValidationError"}
    listed = send_as(service, token, "GET", f"{at}?api-version=2024-03-07").body["value"]
    assert [each["communicationIdentifier"]["kind"] for each in listed] == [
        "communicationUser",
        "phoneNumber",
        "microsoftTeamsUser",
        "microsoftTeamsUser",
        "microsoftTeamsApp",
        "unknown",
    ]


def test_bodies_are_read_strictly(service: LocalService, identity: Any) -> None:
    """A body that is not JSON, or not of the documented form, is refused and changes nothing."""
    _, token = new_user(identity)
    bodies: list[object] = [None, [], {}, {"topic": ""}, {"topic": 1}]
    for body in [*bodies, {"topic": "t", "participants": {}}, {"topic": "t", "other": 1}]:
        assert send_as(service, token, "POST", THREADS, body).status == 400
    headers = {"authorization": f"Bearer {token}"}
    assert send(service, "POST", THREADS, b'{"topic": "t"}', headers).status == 415
    headers["content-type"] = "application/json"
    assert send(service, "POST", THREADS, b"\xff{", headers).status == 400
    for page in ("maxPageSize=0", "maxPageSize=x", "skip=-1"):
        assert send_as(service, token, "GET", f"{THREADS}&{page}").status == 400
    assert send_as(service, token, "GET", THREADS).body == {"value": []}


NOT_JSON = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b"9" * 5000,
    b"\xff",
]
ODD_JSON = [
    b"NaN",
    b'"\\ud800"',
    b'{"topic": "\\ud800", "content": "\\ud800", "scopes": ["\\ud800"], "\\ud800": 1}',
    b'{"topic": "\\ud800"}',
    b'{"content": "\\ud800"}',
    b'{"scopes": [{}, [], NaN], "expiresInMinutes": 1e999}',
    b'{"createTokenWithScopes": [null], "expiresInMinutes": ' + b"9" * 400 + b"}",
    b'{"participants": [{"communicationIdentifier": {"rawId": "\\ud800"}}], "topic": "t"}',
    b'{"participants": [null, 1, []]}',
    b'{"rawId": "\\udfff"}',
]
BODIES = [
    each
    for each in local_service.ROUTES
    if each.method in ("POST", "PATCH") and "revoke" not in each.path
]


@pytest.mark.parametrize("route", BODIES, ids=lambda route: f"{route.method} {route.path}")
def test_no_body_is_an_error_of_the_service(
    service: LocalService, identity: Any, route: local_service.Route
) -> None:
    """What is not JSON, or is nested too deeply, is the caller's mistake on every route, and odd
    texts and numbers are answered, too.
    """
    user, token = new_user(identity)
    created = send_as(service, token, "POST", THREADS, {"topic": "t"}).body["chatThread"]
    path = f"/chat/threads/{created['id']}/messages?api-version=2024-03-07"
    message = send_as(service, token, "POST", path, {"content": "c"}).body["id"]
    names = {"id": user.raw_id, "thread": created["id"], "message": message}
    target = f"{route.path.format(**names)}?api-version={route.versions[-1]}"
    bearer = service.entra_token([f"{local_service.CLIENTS}/.default"])
    if "teams" in route.path:
        bearer = service.entra_token([TEAMS_SCOPE])
    elif route.path.startswith("/chat"):
        bearer = token

    def status(body: bytes) -> int:
        is_signed = route.path.startswith("/identities")
        headers = signed(service, route.method, target, body) if is_signed else {}
        headers |= {"content-type": "application/json"}
        headers.setdefault("authorization", f"Bearer {bearer}")
        return send(service, route.method, target, body, headers).status

    assert [status(body) for body in NOT_JSON] == [400] * len(NOT_JSON)
    assert {status(body) for body in ODD_JSON} <= {200, 201, 204, 400, 404}


# --- The Entra exchange


def test_entra_token_is_exchanged_for_a_chat_token(service: LocalService) -> None:
    """The answer holds a user's token with the scopes that Entra permitted."""
    answer = send_as(service, service.entra_token(), "POST", ENTRA, {})
    assert answer.status == 200
    user, token = answer.body["identity"]["id"], answer.body["accessToken"]["token"]
    assert user.startswith(f"8:acs:{service.resource_id}_{service.tenant_id}_")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["acsScope"] == "chat,chat.join,chat.join.limited,voip,voip.join"
    assert send_as(service, token, "GET", THREADS).status == 200
    service.revoke(user)
    assert send_as(service, token, "GET", THREADS).status == 401


@pytest.mark.parametrize(
    "scope", [TEAMS_SCOPE, "https://auth.msft.communication.azure.us/.default"]
)
def test_teams_extension_token_is_exchanged(service: LocalService, scope: str) -> None:
    """The Teams route takes tokens of both its audiences, and gives a token for calls."""
    answer = send_as(service, service.entra_token([scope]), "POST", TEAMS, {})
    token = answer.body["accessToken"]["token"]
    assert jwt.decode(token, options={"verify_signature": False})["acsScope"] == "voip"
    assert send_as(service, token, "GET", THREADS).status == 403


def test_exchange_refuses_what_it_should(service: LocalService, clock: Clock) -> None:
    """Another audience, another issuer, an expired token, no permission, a body: all refused."""
    chat, teams = service.entra_token(), service.entra_token([TEAMS_SCOPE])
    nothing = service.entra_token(["https://communication.azure.com/clients/Other"])
    with LocalService() as other:
        foreign = other.entra_token()
    cases = [
        (teams, ENTRA, {}, 401),
        (chat, TEAMS, {}, 401),
        (foreign, ENTRA, {}, 401),
        (nothing, ENTRA, {}, 403),
        (chat, ENTRA, {"a": 1}, 400),
        (chat, ENTRA, None, 400),
        (chat, ENTRA.replace("2025-03-02-preview", "2025-06-30"), {}, 400),
        (chat, ENTRA, {}, 200),
    ]
    for token, target, body, status in cases:
        assert send_as(service, token, "POST", target, body).status == status, (target, body)
    clock.added += 3601
    assert send_as(service, chat, "POST", ENTRA, {}).status == 401
    with pytest.raises(ValueError, match="one audience"):
        service.entra_token([TEAMS_SCOPE, "https://communication.azure.com/clients/Chat"])


def test_exchanged_token_does_not_outlive_the_entra_token(service: LocalService) -> None:
    """The user's token expires with the Entra token, or earlier."""
    for life, expected in ((100, 100), (100000, 86400)):
        token = service.entra_token(life=life)
        answer = send_as(service, token, "POST", ENTRA, {})
        issued = jwt.decode(
            answer.body["accessToken"]["token"], options={"verify_signature": False}
        )
        assert issued["exp"] - issued["iat"] - expected in (0, 1)


def test_published_exchange_client_works(service: LocalService) -> None:
    """The exchange of azure-communication-callautomation gets its token from both routes."""

    class Entra:
        def get_token(self, *scopes: str, **_: object) -> AccessToken:
            return AccessToken(service.entra_token(scopes), int(time.time()) + 3600)

    for scopes in (["https://communication.azure.com/clients/.default"], [TEAMS_SCOPE]):
        with RequestsTransport(**service.client_options()) as transport:
            exchange = TokenExchangeClient(service.endpoint, Entra(), scopes, transport=transport)
            token = exchange.exchange_entra_token()
        claims = jwt.decode(token.token, options={"verify_signature": False})
        assert token.expires_on == claims["exp"]
    assert service.statuses == {200: 2}


# --- Scripts and records


def test_scripted_answers_come_first_in_order(service: LocalService, identity: Any) -> None:
    """A route answers as scripted, once each, and then as usual; clients see real faults."""
    service.script(
        "POST /identities/{id}/:issueAccessToken",
        Answer(503),
        Answer(429, headers={"Retry-After": "0"}),
    )
    user = identity.create_user()
    identity.get_token(user, ["chat"])
    assert [each.status for each in service.requests] == [201, 503, 429, 200]
    assert service.issued == {user.raw_id: 1}

    route = ENTRA.partition("?")[0]
    body = {"error": {"code": "Gone", "message": "No more."}}
    service.script(
        f"POST {route}", Answer(200, "not json"), Answer(403, body, {"x-a": "b"}), Answer(401)
    )
    with pytest.raises(json.JSONDecodeError):
        send_as(service, "any", "POST", ENTRA)
    second, third = (send_as(service, "any", "POST", ENTRA) for _ in range(2))
    assert (second.status, second.body, second.headers["x-a"]) == (403, body, "b")
    assert third.body == {"error": {"code": "Unauthorized", "message": "Unauthorized"}}
    assert send_as(service, service.entra_token(), "POST", ENTRA, {}).status == 200


def test_any_path_can_be_scripted(service: LocalService) -> None:
    """A path as sent names a route, too, which serves tests of plain pipelines."""
    service.script("GET /x", Answer(500, ["a"]))
    target = "/x?y=1"
    first, second = (
        send(service, "GET", target, headers=signed(service, "GET", target)) for _ in range(2)
    )
    assert (first.status, first.body, second.status) == (500, ["a"], 200)


def test_requests_are_recorded_without_showing_credentials(
    service: LocalService,
    identity: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Tests can read all of a request; its repr, and the log, hold no token and no key."""
    caplog.set_level(logging.DEBUG)
    user, token = new_user(identity)
    with chat_client(service, token) as client:
        client.create_chat_thread("t")
    created, chatted = service.requests
    assert (created.method, created.status) == ("POST", 201)
    assert created.content == b'{"createTokenWithScopes": ["chat"]}'
    assert created.headers["AUTHORIZATION"].startswith("HMAC-SHA256 SignedHeaders=")
    assert chatted.headers["authorization"] == f"Bearer {token}"
    assert repr(chatted) == f"Received(method='POST', target='{THREADS}', status=201)"
    assert token not in caplog.text
    assert service.access_key not in caplog.text
    assert user.raw_id in service.issued


def test_answers_carry_the_headers_of_the_service(service: LocalService) -> None:
    """Each answer has a correlation vector, and the client's own request id."""
    request_id = str(uuid.uuid4())
    answer = send(service, "GET", THREADS, headers={"x-ms-client-request-id": request_id})
    assert answer.status == 401
    assert answer.headers["x-ms-client-request-id"] == request_id
    assert answer.headers["ms-cv"].endswith(".0")


# --- Life


def test_end_is_clean_and_frees_the_port() -> None:
    """The end cuts connections that clients hold open, warns of nothing and leaves nothing."""
    with LocalService() as service:
        directory = Path(service.ca_path).parent
        assert directory.is_dir()
        connection = http.client.HTTPSConnection(
            "localhost", service.port, context=service.ssl_context, timeout=10
        )
        connection.request("GET", "/")
        assert connection.getresponse().read() != b""
    connection.close()
    gc.collect()
    assert not directory.exists()
    with LocalService(port=service.port) as again:
        assert again.endpoint == service.endpoint


def test_port_in_use_is_reported(service: LocalService) -> None:
    """Starting on a port in use raises the system's error."""
    with pytest.raises(OSError, match="address already in use"), LocalService(port=service.port):
        pytest.fail("it started")


def test_certificate_must_be_trusted(service: LocalService) -> None:
    """A client without the service's certificate does not get through."""
    client = CommunicationIdentityClient.from_connection_string(
        service.connection_string, retry_total=0
    )
    with (
        client._identity_service_client,
        pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.create_user()
    assert service.requests == []


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt cannot be sent to one process")
def test_runs_from_a_shell_until_interrupted() -> None:
    """The script prints what a client needs, serves it, and ends on Ctrl-C without a traceback."""
    command = [sys.executable, str(local_service.__file__), "--token-lifetime", "7"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = dict(process.stdout.readline().rstrip().split(": ", 1) for _ in range(3))
            assert process.stdout.readline() == "Serving until Ctrl-C.\n"
            client = CommunicationIdentityClient.from_connection_string(
                lines["connection string"], connection_verify=lines["trusted certificates"]
            )
            with client._identity_service_client:
                _, token = client.create_user_and_token(["chat"])
            os.kill(process.pid, signal.SIGINT)
            rest = process.communicate(timeout=20)[0]
        finally:
            process.kill()
    claims = jwt.decode(token.token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] in (7, 8)
    assert (process.returncode, rest) == (0, "Stopped.\n")
