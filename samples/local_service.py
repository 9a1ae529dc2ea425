"""A stand-in for Azure Communication Services on this machine, for samples and tests.

The published clients work against it unmodified: it serves HTTPS, verifies every credential and
every body, and refuses what the service refuses, with the service's own error shapes.

* ``/identities``: users and their tokens, for requests signed with the resource's access key.
* ``/access``: the two exchanges of an Entra token for a user's token.
* ``/chat``: threads, participants and messages, for callers with a user's token.

::

    with LocalService(token_lifetime=5) as service:
        identity = CommunicationIdentityClient.from_connection_string(
            service.connection_string, **service.client_options()
        )

From a shell, ``python samples/local_service.py --token-lifetime 5`` serves until Ctrl-C.

*How it works.* A request is recorded and, unless a test scripted its answer, authenticated as its
route says, checked for its api-version and handed to a plain function, which returns a status and
JSON. One clock serves all of it. State changes in the server's thread only; what other threads
may do (set an attribute, ``script``, ``revoke``) is one atomic step each.

*Where it is not the service.* Tokens have the claims of real ones, but are signed by a shared key
(HS256). Unknown members of a body are refused. ``startTime`` is ignored. Chat delivers nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import math
import secrets
import signal
import ssl
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
import trustme
from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

Json = dict[str, Any]
Shape = Mapping[str, type]
Reply = tuple[int, object]  # a status, and what to send as JSON; None for no body

IDENTITY = ("2021-03-07", "2022-06-01", "2022-10-01", "2023-10-01")  # api-versions
CHAT = ("2021-03-07", "2021-09-07", "2024-03-07")

# The audience of an Entra token is what precedes the last slash of the scope asked for.
RESOURCE = "https://communication.azure.com/"  # of https://communication.azure.com//.default
CLIENTS = "https://communication.azure.com/clients"
TEAMS = ("https://auth.msft.communication.azure.com", "https://auth.msft.communication.azure.us")
# What an Entra token permits, and the scope of the user's token that it is exchanged for.
PERMISSIONS = {
    "Chat": "chat",
    "Chat.Join": "chat.join",
    "Chat.Join.Limited": "chat.join.limited",
    "VoIP": "voip",
    "VoIP.Join": "voip.join",
    "TeamsExtension.ManageCalls": "voip",
}

# --- Errors


class ServiceError(Exception):
    """An error answer in the service's shape, ``{"error": {"code": ..., "message": ...}}``."""

    def __init__(
        self, status: int, code: str, message: str, *, challenge: str = "", **members: object
    ) -> None:
        super().__init__(message)
        self.headers = {"WWW-Authenticate": challenge} if challenge else {}
        self.status, self.body = status, {"error": {"code": code, "message": message, **members}}


def denied(reason: str) -> ServiceError:
    """A refused access key. The service does not say why; ``innererror`` is our courtesy."""
    inner = {"code": "InvalidSignature", "message": reason}
    return ServiceError(401, "Denied", "Denied by the resource provider.", innererror=inner)


def unauthorized(reason: str) -> ServiceError:
    challenge = f'Bearer error="invalid_token", error_description="{reason}"'
    return ServiceError(401, "Unauthorized", reason, challenge=challenge)


def forbidden(reason: str, challenge: str = "") -> ServiceError:
    return ServiceError(403, "Forbidden", reason, challenge=challenge)


def missing(what: str) -> ServiceError:
    return ServiceError(404, "NotFound", f"There is no such {what}.")


def invalid(target: str, problem: str) -> ServiceError:
    return ServiceError(400, "ValidationError", f"Invalid {target} - {problem}.", target=target)


# --- Reading requests


@dataclass
class Call:
    """A request with its body read, and the claims of its caller once they are verified."""

    service: LocalService
    request: web.Request
    content: bytes
    claims: Json = field(default_factory=dict)

    @property
    def user(self) -> str:
        return f"8:{self.claims['skypeid']}"

    @property
    def time(self) -> str:
        now = datetime.fromtimestamp(self.service.clock(), timezone.utc)
        return now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def json(self) -> object:
        if self.request.content_type not in ("application/json", "application/merge-patch+json"):
            raise ServiceError(415, "UnsupportedMediaType", "The request body must be JSON.")
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError) as error:  # the latter if it is nested too deeply
            raise invalid("body", "It is not JSON") from error

    def body(self, required: Shape, optional: Shape) -> Json:
        return members(self.json(), "body", required, optional)

    def page(self, items: list[Json]) -> Reply:
        """Answer one page of a listing, with a link to the next."""
        query = self.request.query
        texts = query.get("maxPageSize", "100"), query.get("skip", "0")
        if texts[0] == "0" or not all(text.isdecimal() and len(text) < 9 for text in texts):
            raise invalid("maxPageSize", "Page sizes and skips are whole numbers")
        size, skip = map(int, texts)
        answer: Json = {"value": items[skip : skip + size]}
        if skip + size < len(items):
            next_page = self.request.rel_url.update_query(skip=skip + size)
            answer["nextLink"] = f"{self.service.endpoint}{next_page}"
        return 200, answer


def members(value: object, target: str, required: Shape, optional: Shape) -> Json:
    """Return the members of a JSON object that are not null, or refuse the object."""
    if not isinstance(value, dict):
        raise invalid(target, "An object is expected")
    present = {name: member for name, member in value.items() if member is not None}
    for name, kind in {**required, **optional}.items():
        if name in required and present.get(name, "") == "":
            raise invalid(f"{target}.{name}", "The field is required")
        if name in present and type(present[name]) is not kind:  # in JSON, true is not a number
            raise invalid(f"{target}.{name}", f"The field must be of type {kind.__name__}")
    for name in present.keys() - required.keys() - optional.keys():
        raise invalid(f"{target}.{name}", "There is no such field")
    return present


IDENTIFIERS: dict[str, tuple[Shape, Shape]] = {
    "communicationUser": ({"id": str}, {}),
    "phoneNumber": ({"value": str}, {"isAnonymous": bool, "assertedId": str}),
    "microsoftTeamsUser": ({"userId": str}, {"isAnonymous": bool, "cloud": str}),
    "microsoftTeamsApp": ({"appId": str}, {"cloud": str}),
    "teamsExtensionUser": ({"userId": str, "tenantId": str, "resourceId": str}, {"cloud": str}),
}


def identifier(value: object, target: str) -> Json:
    """Return a ``communicationIdentifier`` as answers carry it, with ``kind`` and ``rawId``."""
    models = dict.fromkeys(IDENTIFIERS, dict)
    found = members(value, target, {}, {"kind": str, "rawId": str, **models})
    present = [name for name in models if name in found]
    if len(present) > 1:
        raise invalid(target, f"Only one of {', '.join(present)} may be set")
    kind = present[0] if present else "unknown"
    if found.setdefault("kind", kind) != kind:
        raise invalid(f"{target}.kind", "It does not match the other fields")
    if present:
        model = found[kind] = members(found[kind], f"{target}.{kind}", *IDENTIFIERS[kind])
        # The published chat client sends the cloud in upper case.
        if model.get("cloud", "public").lower() not in ("public", "gcch", "dod"):
            raise invalid(f"{target}.{kind}.cloud", "There is no such cloud")
        if kind == "communicationUser" and found.setdefault("rawId", model["id"]) != model["id"]:
            raise invalid(f"{target}.rawId", "It is not the user's id")
    if not found.get("rawId"):
        raise invalid(f"{target}.rawId", "The field is required")
    return found


def participants(values: list[object]) -> dict[str, Json]:
    """Check a request's chat participants, and return them by raw id."""
    found = {}
    for index, value in enumerate(values):
        target = f"participants[{index}]"
        optional = {"displayName": str, "shareHistoryTime": str}
        one = members(value, target, {"communicationIdentifier": dict}, optional)
        who = identifier(one["communicationIdentifier"], f"{target}.communicationIdentifier")
        found[who["rawId"]] = {**one, "communicationIdentifier": who}
    return found


# --- Credentials: a check returns the caller's claims, or raises

Check = Callable[[Call], Json]


def verify_signature(call: Call) -> None:
    """Check the HMAC over what was received: method, request target, date, host and body.

    The target is the request line's own text. Whoever signs another spelling of a URL than the
    one that is sent is refused, as by the service.
    """
    request, headers = call.request, call.request.headers
    scheme = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256"
    given, _, signature = headers.get("Authorization", "").partition("&Signature=")
    if given != scheme:
        raise denied(f"The Authorization header must begin with {scheme}&Signature=")
    date, host = headers.get("x-ms-date", ""), headers.get("Host", "")
    try:
        sent = datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise denied("The x-ms-date header must hold a date in the form of RFC 1123.") from error
    if abs(sent.timestamp() - call.service.clock()) > call.service.date_tolerance:
        raise denied("The x-ms-date header is too far from the service's time.")
    content_hash = base64.b64encode(hashlib.sha256(call.content).digest()).decode()
    if headers.get("x-ms-content-sha256") != content_hash:
        raise denied("The x-ms-content-sha256 header does not match the body.")
    signed = f"{request.method}\n{request.raw_path}\n{date};{host};{content_hash}"
    key = base64.b64decode(call.service.access_key)
    # aiohttp decodes with surrogateescape, so this gives back the bytes that were received.
    digest = hmac.digest(key, signed.encode("utf-8", "surrogateescape"), "sha256")
    received = signature.encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(received, base64.b64encode(digest)):
        raise denied("The signature does not match the request.")


class Signer:
    """Signs JSON Web Tokens and verifies them; Entra has one, and the resource."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, now: float, expires_on: float, **claims: object) -> str:
        return jwt.encode({**claims, "iat": int(now), "exp": int(expires_on)}, self._key, "HS256")

    def verify(self, call: Call, audiences: Iterable[str] | None = None) -> Json:
        scheme, _, token = call.request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer":
            raise unauthorized("The Authorization header must hold a bearer token.")
        options: Any = {"verify_exp": False, "verify_iat": False}  # for our own clock to check
        try:
            claims: Json = jwt.decode(token, self._key, ["HS256"], options, audience=audiences)
        except (jwt.InvalidTokenError, UnicodeError) as error:
            problem = type(error).__name__
            raise unauthorized(f"The access token is not valid ({problem}).") from error
        if claims["exp"] <= call.service.clock():
            raise unauthorized("The access token has expired.")
        return claims


def resource_owner(call: Call) -> Json:
    """The caller holds the resource's access key, or an Entra token for the resource."""
    if call.request.headers.get("Authorization", "").startswith("Bearer "):
        return call.service.entra.verify(call, [RESOURCE])
    verify_signature(call)
    return {}


def entra_user(*audiences: str) -> Check:
    return lambda call: call.service.entra.verify(call, audiences)


def user_with(*scopes: str) -> Check:
    """The caller is a user with a token that has one of the scopes and is not revoked."""

    def check(call: Call) -> Json:
        claims = call.service.signer.verify(call)
        if claims["jti"] not in call.service.live.get(f"8:{claims['skypeid']}", ()):
            raise unauthorized("The access token has been revoked.")
        if not {*scopes} & {*claims["acsScope"].split(",")}:
            problem = f"The access token needs one of the scopes {', '.join(scopes)}."
            raise forbidden(problem, challenge='Bearer error="insufficient_scope"')
        return claims

    return check


# --- The routes: users and their tokens

Function = Callable[[Call], Reply]


class Route(NamedTuple):
    method: str
    path: str
    versions: tuple[str, ...]
    check: Check
    function: Function


ROUTES: list[Route] = []


def route(
    method_and_path: str, versions: tuple[str, ...], check: Check
) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        method, path = method_and_path.split()
        ROUTES.append(Route(method, path, versions, check, function))
        return function

    return register


@route("POST /identities", IDENTITY, resource_owner)
def create_identity(call: Call) -> Reply:
    optional = {"createTokenWithScopes": list, "expiresInMinutes": int}
    body = call.body({}, optional) if call.content else {}
    user = f"8:acs:{call.service.resource_id}_{uuid.uuid4()}"
    answer: Json = {"identity": {"id": user}}
    if scopes := body.get("createTokenWithScopes"):
        answer["accessToken"] = issue(call, user, scopes, body.get("expiresInMinutes"))
    call.service.live.setdefault(user, set())
    return 201, answer


@route("POST /identities/{id}/:issueAccessToken", IDENTITY, resource_owner)
def issue_access_token(call: Call) -> Reply:
    user, body = own_user(call), call.body({"scopes": list}, {"expiresInMinutes": int})
    return 200, issue(call, user, body["scopes"], body.get("expiresInMinutes"))


@route("POST /identities/{id}/:revokeAccessTokens", IDENTITY, resource_owner)
def revoke_access_tokens(call: Call) -> Reply:
    call.service.revoke(own_user(call))
    return 204, None


@route("DELETE /identities/{id}", IDENTITY, resource_owner)
def delete_identity(call: Call) -> Reply:
    del call.service.live[own_user(call)]
    return 204, None


@route("POST /access/entra/:exchangeAccessToken", ("2025-03-02-preview",), entra_user(CLIENTS))
@route("POST /access/teamsExtension/:exchangeAccessToken", ("2025-06-30",), entra_user(*TEAMS))
def exchange_access_token(call: Call) -> Reply:
    """Answer an Entra token with a token of the user that represents its owner."""
    call.body({}, {})
    permitted = call.claims["scp"].split()
    scopes = [scope for name, scope in PERMISSIONS.items() if name in permitted]
    if not scopes:
        raise forbidden("The access token permits neither calls nor chat.")
    user = f"8:acs:{call.service.resource_id}_{call.claims['tid']}_{call.claims['oid']}"
    token = issue(call, user, scopes, latest=call.claims["exp"])
    return 200, {"identity": {"id": user}, "accessToken": token}


def own_user(call: Call) -> str:
    user = call.request.match_info["id"]
    if user not in call.service.live:
        message = "Provided identity doesn't belong to the resource."
        raise ServiceError(401, "IdentityNotOwned", message)
    return user


def issue(
    call: Call, user: str, scopes: list[str], minutes: int | None = None, latest: float = math.inf
) -> Json:
    """Return a new token of a user, as answers carry it, that expires at ``latest`` or earlier."""
    if not scopes:
        raise invalid("scopes", "Scopes field is required")
    if unknown := [scope for scope in scopes if scope not in PERMISSIONS.values()]:
        raise invalid("scopes", f"There is no scope {unknown[0]!r}")
    if minutes is not None and not 60 <= minutes <= 1440:
        raise invalid("expiresInMinutes", "It must be between 60 and 1440")
    service, now, token_id = call.service, call.service.clock(), uuid.uuid4().hex
    life = service.token_lifetime if minutes is None else minutes * 60
    expires_on = min(math.ceil(now + life), latest)
    token = service.signer.sign(
        now,
        expires_on,
        skypeid=user.removeprefix("8:"),
        acsScope=",".join(scopes),
        resourceId=service.resource_id,
        jti=token_id,
    )
    service.live.setdefault(user, set()).add(token_id)
    service.issued[user] += 1
    expiry = datetime.fromtimestamp(expires_on, timezone.utc)
    return {"token": token, "expiresOn": expiry.strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")}


# --- The routes: chat, as far as the scopes chat, chat.join and chat.join.limited reach

manage = user_with("chat")
invite = user_with("chat", "chat.join")
talk = user_with("chat", "chat.join", "chat.join.limited")


@dataclass
class Thread:
    """A chat thread; the dictionaries are as the REST API shows them."""

    properties: Json
    participants: dict[str, Json] = field(default_factory=dict)  # by raw id
    messages: list[Json] = field(default_factory=list)

    def post(self, call: Call, kind: str, **content: object) -> Json:
        """Append a message. The service tells what happens to a thread by messages, too."""
        earliest = int(self.messages[-1]["id"]) + 1 if self.messages else 0
        message_id = str(max(int(call.service.clock() * 1000), earliest))
        number, sender = str(len(self.messages) + 1), as_identifier(call.user)
        message: Json = {"id": message_id, "version": message_id, "sequenceId": number}
        message |= {"type": kind, "createdOn": call.time, "content": content}
        if kind in ("text", "html"):
            message["senderCommunicationIdentifier"] = sender
        else:
            content["initiatorCommunicationIdentifier"] = sender
        self.messages.append(message)
        return message

    def add(self, call: Call, invited: dict[str, Json]) -> Json:
        """Add whom the resource knows, and report the others as the service does."""
        live, present = call.service.live, self.participants
        unknown = [one for one in invited if one.startswith("8:acs:") and one not in live]
        new = {one: invited[one] for one in invited if one not in unknown and one not in present}
        if new:
            present |= new
            self.post(call, "participantAdded", participants=list(new.values()))
        error = {"code": "403", "message": "Permissions check failed"}
        refused = [{**error, "target": one} for one in unknown]
        return {"invalidParticipants": refused} if refused else {}


def as_identifier(user: str) -> Json:
    return {"kind": "communicationUser", "rawId": user, "communicationUser": {"id": user}}


def own_thread(call: Call) -> Thread:
    thread = call.service.threads.get(call.request.match_info["thread"])
    if thread is None:
        raise missing("chat thread")
    if call.user not in thread.participants:
        raise forbidden("The caller is not a participant of the chat thread.")
    return thread


def own_message(call: Call, *, to_change: bool = False) -> Json:
    for message in own_thread(call).messages:
        if message["id"] == call.request.match_info["message"]:
            sender = message.get("senderCommunicationIdentifier")
            if to_change and sender != as_identifier(call.user):
                raise forbidden("Only its sender may change a chat message.")
            return message
    raise missing("chat message")


@route("POST /chat/threads", CHAT, manage)
def create_thread(call: Call) -> Reply:
    body, me = call.body({"topic": str}, {"participants": list}), as_identifier(call.user)
    invited = participants(body.get("participants", []))
    thread = Thread({"id": f"19:{uuid.uuid4().hex}@thread.v2", "topic": body["topic"]})
    thread.properties |= {"createdOn": call.time, "createdByCommunicationIdentifier": me}
    thread.post(call, "topicUpdated", topic=body["topic"])
    refused = thread.add(call, {call.user: {"communicationIdentifier": me}, **invited})
    call.service.threads[thread.properties["id"]] = thread
    return 201, {"chatThread": thread.properties, **refused}


@route("GET /chat/threads", CHAT, talk)
def list_threads(call: Call) -> Reply:
    mine = [one for one in call.service.threads.values() if call.user in one.participants]
    items = [{name: one.properties[name] for name in ("id", "topic")} for one in mine]
    for item, one in zip(items, mine, strict=True):
        item["lastMessageReceivedOn"] = one.messages[-1]["createdOn"]
    return call.page(items)


@route("GET /chat/threads/{thread}", CHAT, talk)
def get_thread(call: Call) -> Reply:
    return 200, own_thread(call).properties


@route("PATCH /chat/threads/{thread}", CHAT, manage)
def update_thread(call: Call) -> Reply:
    thread, body = own_thread(call), call.body({"topic": str}, {})
    thread.properties |= body
    thread.post(call, "topicUpdated", **body)
    return 204, None


@route("DELETE /chat/threads/{thread}", CHAT, manage)
def delete_thread(call: Call) -> Reply:
    del call.service.threads[own_thread(call).properties["id"]]
    return 204, None


@route("GET /chat/threads/{thread}/participants", CHAT, talk)
def list_participants(call: Call) -> Reply:
    return call.page(list(own_thread(call).participants.values()))


@route("POST /chat/threads/{thread}/participants/:add", CHAT, invite)
def add_participants(call: Call) -> Reply:
    thread, body = own_thread(call), call.body({"participants": list}, {})
    return 201, thread.add(call, participants(body["participants"]))


@route("POST /chat/threads/{thread}/participants/:remove", CHAT, invite)
def remove_participant(call: Call) -> Reply:
    thread, who = own_thread(call), identifier(call.json(), "body")
    removed = thread.participants.pop(who["rawId"], None)
    if removed is None:
        raise missing("participant")
    thread.post(call, "participantRemoved", participants=[removed])
    return 204, None


@route("POST /chat/threads/{thread}/typing", CHAT, talk)
def send_typing_notification(call: Call) -> Reply:
    own_thread(call)
    call.body({}, {"senderDisplayName": str})
    return 200, None


@route("POST /chat/threads/{thread}/messages", CHAT, talk)
def send_message(call: Call) -> Reply:
    optional = {"senderDisplayName": str, "type": str, "metadata": dict}
    thread, body = own_thread(call), call.body({"content": str}, optional)
    kind = body.pop("type", "text")
    if kind not in ("text", "html"):
        raise invalid("type", "Only text and html can be sent")
    message = thread.post(call, kind, message=body.pop("content"))
    message |= body
    return 201, {"id": message["id"]}


@route("GET /chat/threads/{thread}/messages", CHAT, talk)
def list_messages(call: Call) -> Reply:
    return call.page(own_thread(call).messages[::-1])  # the newest first


@route("GET /chat/threads/{thread}/messages/{message}", CHAT, talk)
def get_message(call: Call) -> Reply:
    return 200, own_message(call)


@route("PATCH /chat/threads/{thread}/messages/{message}", CHAT, talk)
def update_message(call: Call) -> Reply:
    message = own_message(call, to_change=True)
    body = call.body({}, {"content": str, "metadata": dict})
    if "content" in body:
        message["content"] = {"message": body.pop("content")}
    message |= {**body, "editedOn": call.time}
    return 204, None


@route("DELETE /chat/threads/{thread}/messages/{message}", CHAT, talk)
def delete_message(call: Call) -> Reply:
    message = own_message(call, to_change=True)
    message |= {"content": None, "deletedOn": call.time}
    return 204, None


# --- The server


@dataclass(frozen=True)
class Received:
    """A request as it arrived, and the status of its answer. The ``repr`` shows no credential."""

    method: str
    target: str  # path and query, as on the request line
    headers: Mapping[str, str] = field(repr=False)  # names in any case
    content: bytes = field(repr=False)
    status: int


@dataclass(frozen=True)
class Answer:
    """A scripted answer. A ``str`` body is sent as it is, anything else as JSON."""

    status: int
    body: object = None  # an error in the service's shape, unless given
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        phrase = HTTPStatus(self.status).phrase
        error = ServiceError(self.status, phrase.replace(" ", ""), phrase)
        body = error.body if self.body is None else self.body
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"Content-Type": "application/json", **self.headers}
        return web.Response(text=text, status=self.status, headers=headers)


class LocalService:
    """Serves on ``https://localhost`` from a thread of its own, while its ``with`` block runs.

    The keywords are attributes, too, and may be changed at any time, as may ``access_key``. The
    end of the block cuts open connections and removes the certificate.

    :keyword float token_lifetime: How long users' tokens live, in seconds, where the request does
        not say. Expiries are whole seconds, rounded up.
    :keyword clock: Tells the time in seconds since 1970, for tokens, dates and signatures.
    :paramtype clock: ~collections.abc.Callable[[], float]
    :keyword float date_tolerance: How far, in seconds, the date of a signed request may be off.
    :keyword bool echo: Whether a signed request to any other path is answered, if the signature
        is right, by 200 and the method, target and host that were received.
    :keyword int port: Where to listen, on 127.0.0.1; 0 for any free port.
    """

    def __init__(
        self,
        *,
        token_lifetime: float = 86400,
        clock: Callable[[], float] = time.time,
        date_tolerance: float = 900,
        echo: bool = False,
        port: int = 0,
    ) -> None:
        self.token_lifetime, self.clock, self.date_tolerance = token_lifetime, clock, date_tolerance
        self.echo, self.port = echo, port
        self.access_key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.resource_id, self.tenant_id, self.owner_id = (str(uuid.uuid4()) for _ in range(3))
        self.entra, self.signer = Signer(), Signer()
        self.live: dict[str, set[str]] = {}  # user id -> ids of tokens that are not revoked
        self.threads: dict[str, Thread] = {}
        self.requests: list[Received] = []
        self.statuses: Counter[int] = Counter()  # answers by status
        self.issued: Counter[str] = Counter()  # tokens by user id
        self._scripts: dict[str, deque[Answer]] = {}

    def __enter__(self) -> LocalService:
        authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self._directory = tempfile.TemporaryDirectory(prefix="local-service-")
        self.ca_path = str(Path(self._directory.name) / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_path)
        self.ssl_context = ssl.create_default_context(cafile=self.ca_path)
        started: Future[int] = Future()
        serve = partial(asyncio.run, self._serve(context, started))
        self._serving = threading.Thread(target=serve, daemon=True)
        self._serving.start()
        try:
            self.port = started.result(timeout=30)
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._serving.join(timeout=30)
        self._directory.cleanup()

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def connection_string(self) -> str:
        return f"endpoint={self.endpoint}/;accesskey={self.access_key}"

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments that make an Azure client trust the certificate."""
        return {"connection_verify": self.ca_path}

    def entra_token(
        self, scopes: Iterable[str] = (f"{CLIENTS}/.default",), life: float = 3600
    ) -> str:
        """Return an Entra token of the tenant's one user; ``life`` is in seconds."""
        audiences, names = map(set, zip(*(scope.rsplit("/", 1) for scope in scopes), strict=True))
        audience = audiences.pop()
        if audiences:
            raise ValueError("scopes must belong to one audience, as in Entra")
        if ".default" in names:  # all that the user has consented to
            names = {name for name in PERMISSIONS if ("Teams" in name) == (audience in TEAMS)}
        now, owner = self.clock(), {"oid": self.owner_id, "tid": self.tenant_id}
        expires_on, scp = math.ceil(now + life), " ".join(sorted(names))
        return self.entra.sign(now, expires_on, **owner, aud=audience, scp=scp)

    def revoke(self, user_id: str) -> None:
        """Revoke the tokens that were issued to a user so far, exactly those."""
        self.live[user_id].clear()

    def script(self, route: str, *answers: Answer) -> None:
        """Answer the next requests to a route as given and unverified, one by one, then as usual.

        :param str route: Such as ``"POST /identities/{id}/:issueAccessToken"``, or a method and
            a path as sent.
        :param Answer answers: What to answer.
        """
        self._scripts.setdefault(route, deque()).extend(answers)

    async def _serve(self, context: ssl.SSLContext, started: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[self._record])
        for each in ROUTES:
            app.router.add_route(each.method, each.path, partial(self._answer, each))
        app.router.add_route("*", "/{path:.*}", self._answer_other)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context).start()
            started.set_result(runner.addresses[0][1])
            await self._stopping.wait()
        except OSError as error:  # the port is taken
            started.set_exception(error)
        finally:
            # Clients may hold connections open. A TLS goodbye would wait for their answer, and an
            # end of the loop before it would leave sockets open, hence no goodbye.
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        content, resource = await request.read(), request.match_info.route.resource
        paths = (resource.canonical if resource else "", request.raw_path.partition("?")[0])
        scripts = [self._scripts.get(f"{request.method} {path}") for path in paths]
        try:
            if script := next(filter(None, scripts), None):
                response: web.StreamResponse = script.popleft().response()
            else:
                response = await handler(request)
        except ServiceError as error:
            response = web.json_response(error.body, status=error.status, headers=error.headers)
        response.headers["MS-CV"] = f"{secrets.token_urlsafe(16)}.0"
        if client_request_id := request.headers.get("x-ms-client-request-id"):
            response.headers["x-ms-client-request-id"] = client_request_id
        seen = (request.method, request.raw_path, request.headers, content, response.status)
        self.requests.append(Received(*seen))
        self.statuses[response.status] += 1
        return response

    async def _answer(self, route: Route, request: web.Request) -> web.Response:
        call = Call(self, request, await request.read())
        call.claims = route.check(call)
        version = request.query.get("api-version")
        if version is None:
            message = "An API version is required, but was not specified."
            raise ServiceError(400, "ApiVersionUnspecified", message)
        if version not in route.versions:
            message = (
                f"The HTTP resource that matches the request URI '{self.endpoint}{request.path}'"
                f" does not support the API version '{version}'."
            )
            raise ServiceError(400, "UnsupportedApiVersion", message)
        status, body = route.function(call)
        if body is None:
            return web.Response(status=status)
        return web.json_response(body, status=status)

    async def _answer_other(self, request: web.Request) -> web.Response:
        if not self.echo:
            raise missing("resource")
        resource_owner(Call(self, request, await request.read()))
        seen = {"method": request.method, "target": request.raw_path, "host": request.host}
        return web.json_response(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for Azure Communication Services.")
    parser.add_argument("--port", type=int, default=0, help="any free one unless given")
    parser.add_argument("--token-lifetime", type=float, default=86400, metavar="SECONDS")
    options = parser.parse_args()
    # A shell that starts it in the background has it ignore the signal otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with LocalService(port=options.port, token_lifetime=options.token_lifetime) as service:
        # The key was made for this run, opens nothing else and dies with it: showing it is safe.
        print(f"endpoint: {service.endpoint}")
        print(f"connection string: {service.connection_string}")
        print(f"trusted certificates: {service.ca_path}")
        print("Serving until Ctrl-C.", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("Stopped.")


if __name__ == "__main__":
    main()
