"""The published Communication packages with their own identifiers and with ours, side by side.

``python tests/interop/matrix.py`` prints which package was tried in which version with which kind
of identifier, sync and aio, and what came of it.

*How it works.* Every method that takes or returns an identifier is called twice, with the same
arguments made of the package's own classes and of ours. Real transports send the requests into an
adapter that keeps them and answers with the identifier in question. What was sent must be the same
both times, and the identifiers in the results must be equal to ours.
"""

import asyncio
import importlib
import inspect
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from enum import Enum
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import unquote

import requests
from azure.communication import common
from azure.communication.callautomation import (
    ChannelAffinity,
    FileSource,
    TeamsPhoneCallDetails,
    TeamsPhoneCallerDetails,
    TeamsPhoneSourceDetails,
)
from azure.communication.chat import ChatParticipant
from azure.communication.rooms import ParticipantRole, RoomParticipant
from azure.core.credentials import AzureKeyCredential
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport

ENDPOINT = "https://contoso.communication.azure.com"
CALLBACK = "https://contoso.example/events"
KEY = AzureKeyCredential("a2V5")
# {"alg": "none"}, {"exp": 4102444800} and an empty signature
TOKEN = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9."
TIME = "2026-01-02T03:04:05Z"

Kit = Any  # a module that has the identifier classes: a package's own, or ours

# --- Identifiers: each kind in the forms that users have, made of the classes of a kit

CLOUDS = ("PUBLIC", "DOD", "GCCH")


def communication_users(kit: Kit) -> list[Any]:
    ids = ["8:acs:r_u", "8:dod-acs:r_u", "8:gcch-acs:r_u", "8:spool:u"]
    return [*map(kit.CommunicationUserIdentifier, ids)]


def phone_numbers(kit: Kit) -> list[Any]:
    number = kit.PhoneNumberIdentifier
    return [
        number("+14255550123"),
        number("+14255550123", raw_id="4:+14255550123"),
        number("+14255550123", raw_id="4:+14255550123_5f0e6a"),
        number("anonymous", raw_id="4:anonymous"),
    ]


def teams_users(kit: Kit) -> list[Any]:
    user = kit.MicrosoftTeamsUserIdentifier
    return [
        *(user("u", cloud=cloud) for cloud in CLOUDS),
        user("u"),
        user("v", is_anonymous=True),
        user("u", cloud="DOD", raw_id="8:dod:u"),
    ]


def teams_apps(kit: Kit) -> list[Any]:
    app = kit.MicrosoftTeamsAppIdentifier
    return [*(app("a", cloud=cloud) for cloud in CLOUDS), app("a"), app("a", raw_id="28:orgid:a")]


def teams_extension_users(kit: Kit) -> list[Any]:
    user = kit.TeamsExtensionUserIdentifier
    ids = {"user_id": "u", "tenant_id": "t", "resource_id": "r"}
    return [*(user(**ids, cloud=cloud) for cloud in CLOUDS), user(**ids)]


def unknown(kit: Kit) -> list[Any]:
    return [kit.UnknownIdentifier("28:dod-global:b"), kit.UnknownIdentifier("9:future:x")]


KINDS: dict[str, Callable[[Kit], list[Any]]] = {
    "communication user": communication_users,
    "phone number": phone_numbers,
    "Teams user": teams_users,
    "Teams app": teams_apps,
    "Teams extension user": teams_extension_users,
    "unknown": unknown,
}

# --- Operations: what to call, and what the service answers

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Operation(NamedTuple):
    """A call of one method, and the service's answer to it.

    Arguments that hold identifiers are made of a kit and an identifier, and then the request must
    name that identifier. The answer is made of its JSON; ``None`` stands for no body.
    """

    client: str
    method: str
    arguments: Arguments | Callable[[Kit, Any], Arguments]
    status: int
    answer: Callable[[Any], Any]


def call(*arguments: Any, **keywords: Any) -> Arguments:
    return arguments, keywords


def only(kit: Kit, who: Any) -> Arguments:
    return call(who)


def nothing(who: Any) -> None:
    return None


def empty(who: Any) -> Any:
    return {}


def page(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda who: {"value": [item(who)]}


def thread(who: Any) -> Any:
    return {"id": "t", "topic": "t", "createdOn": TIME, "createdByCommunicationIdentifier": who}


def created_thread(who: Any) -> Any:
    return {"chatThread": thread(who)}


def member(who: Any) -> Any:
    return {"communicationIdentifier": who, "displayName": "name"}


def message(who: Any) -> Any:
    head = {"id": "1", "type": "participantAdded", "sequenceId": "1", "version": "1"}
    content = {"initiatorCommunicationIdentifier": who, "participants": [member(who)]}
    sender = {"senderCommunicationIdentifier": who, "createdOn": TIME}
    return {**head, **sender, "content": content}


def receipt(who: Any) -> Any:
    return {"senderCommunicationIdentifier": who, "chatMessageId": "1", "readOn": TIME}


def participant(who: Any) -> ChatParticipant:
    return ChatParticipant(identifier=who, display_name="name")


def invitation(kit: Kit, who: Any) -> Arguments:
    return call("topic", thread_participants=[participant(who)])


def added(kit: Kit, who: Any) -> Arguments:
    return call([participant(who)])


CHAT = [
    Operation("ChatClient", "create_chat_thread", invitation, 201, created_thread),
    Operation("ChatThreadClient", "get_properties", call(), 200, thread),
    Operation("ChatThreadClient", "add_participants", added, 201, empty),
    Operation("ChatThreadClient", "remove_participant", only, 204, nothing),
    Operation("ChatThreadClient", "list_participants", call(), 200, page(member)),
    Operation("ChatThreadClient", "get_message", call("1"), 200, message),
    Operation("ChatThreadClient", "list_messages", call(), 200, page(message)),
    Operation("ChatThreadClient", "list_read_receipts", call(), 200, page(receipt)),
]


def issued(who: Any) -> Any:
    return {"token": TOKEN, "expiresOn": TIME}


def created_user(who: Any) -> Any:
    return {"identity": {"id": who["rawId"]}, "accessToken": issued(who)}


def scopes(kit: Kit, who: Any) -> Arguments:
    return call(who, ["chat", "voip"])


USERS = "CommunicationIdentityClient"
IDENTITY = [
    Operation(USERS, "create_user", call(), 201, created_user),
    Operation(USERS, "create_user_and_token", call(["chat"]), 201, created_user),
    Operation(USERS, "get_token", scopes, 200, issued),
    Operation(USERS, "revoke_tokens", only, 204, nothing),
    Operation(USERS, "delete_user", only, 204, nothing),
]


def room(who: Any) -> Any:
    times = dict.fromkeys(("createdAt", "validFrom", "validUntil"), TIME)
    return {"id": "r", **times, "pstnDialOutEnabled": False}


def seat(who: Any) -> Any:
    return {"rawId": who["rawId"], "role": "Presenter"}


def presenter(who: Any) -> RoomParticipant:
    return RoomParticipant(communication_identifier=who, role=ParticipantRole.PRESENTER)


def for_new_room(kit: Kit, who: Any) -> Arguments:
    return call(participants=[presenter(who)])


def for_room(kit: Kit, who: Any) -> Arguments:
    return call(room_id="r", participants=[presenter(who)])


def from_room(kit: Kit, who: Any) -> Arguments:
    return call(room_id="r", participants=[who, presenter(who)])


ROOMS = [
    Operation("RoomsClient", "create_room", for_new_room, 201, room),
    Operation("RoomsClient", "add_or_update_participants", for_room, 200, empty),
    Operation("RoomsClient", "remove_participants", from_room, 200, empty),
    Operation("RoomsClient", "list_participants", call("r"), 200, page(seat)),
]


def connection(who: Any) -> Any:
    users = {"targets": [who], "source": who, "answeredBy": {"id": "8:acs:r_agent"}}
    number = {"value": "+14255550100"}
    numbers = {"sourceCallerIdNumber": number, "answeredFor": number}
    return {"callConnectionId": "c", **users, **numbers}


def recording(who: Any) -> Any:
    return {"recordingId": "r", "recordingState": "active"}


def in_call(who: Any) -> Any:
    return {"identifier": who, "isMuted": False, "isOnHold": False}


def invited(who: Any) -> Any:
    return {"participant": in_call(who), "invitationId": "i"}


def moved(who: Any) -> Any:
    return {"participants": [in_call(who)], "fromCall": "other"}


def caller(kit: Kit) -> dict[str, Any]:
    return {"source_caller_id_number": kit.PhoneNumberIdentifier("+14255550100")}


def phone_call(who: Any) -> dict[str, Any]:
    source = TeamsPhoneSourceDetails(
        source=who, language="en-US", status="status", intended_targets={"first": who}
    )
    person = TeamsPhoneCallerDetails(caller=who, name="name", phone_number="+14255550123")
    details = TeamsPhoneCallDetails(teams_phone_caller=person, teams_phone_source=source)
    return {"teams_phone_call_details": details}


def to_one(kit: Kit, who: Any) -> Arguments:
    app = kit.MicrosoftTeamsAppIdentifier("a")
    return call(who, CALLBACK, teams_app_source=app, **caller(kit))


def to_group(kit: Kit, who: Any) -> Arguments:
    return call([who, kit.CommunicationUserIdentifier("8:acs:r_u")], CALLBACK, **caller(kit))


def redirected(kit: Kit, who: Any) -> Arguments:
    return call("context", who)


def recorded(kit: Kit, who: Any) -> Arguments:
    affinity = ChannelAffinity(target_participant=who, channel=0)
    order = {"audio_channel_participant_ordering": [who], "channel_affinity": [affinity]}
    return call(server_call_id="s", **order)


def to_call(kit: Kit, who: Any) -> Arguments:
    return call(who, **phone_call(who), **caller(kit))


def transferred(kit: Kit, who: Any) -> Arguments:
    return call(who, transferee=who, **phone_call(who), **caller(kit))


def from_other_call(kit: Kit, who: Any) -> Arguments:
    return call([who], "other")


def played(kit: Kit, who: Any) -> Arguments:
    return call(FileSource(url="https://contoso.example/a.wav"), play_to=[who])


def recognized(kit: Kit, who: Any) -> Arguments:
    return call("dtmf", who, dtmf_max_tones_to_collect=1)


def tones(kit: Kit, who: Any) -> Arguments:
    return call(["one", "pound"], who)


CALLS, CALL = "CallAutomationClient", "CallConnectionClient"
CALL_AUTOMATION = [
    Operation(CALLS, "create_call", to_one, 201, connection),
    Operation(CALLS, "create_group_call", to_group, 201, connection),
    Operation(CALLS, "redirect_call", redirected, 204, nothing),
    Operation(CALLS, "start_recording", recorded, 200, recording),
    Operation(CALL, "get_call_properties", call(), 200, connection),
    Operation(CALL, "add_participant", to_call, 202, invited),
    Operation(CALL, "get_participant", only, 200, in_call),
    Operation(CALL, "list_participants", call(), 200, page(in_call)),
    Operation(CALL, "move_participants", from_other_call, 202, moved),
    Operation(CALL, "remove_participant", only, 202, empty),
    Operation(CALL, "transfer_call_to_participant", transferred, 202, empty),
    Operation(CALL, "play_media", played, 202, nothing),
    Operation(CALL, "start_recognizing_media", recognized, 202, nothing),
    Operation(CALL, "send_dtmf_tones", tones, 202, empty),
    Operation(CALL, "start_continuous_dtmf_recognition", only, 200, nothing),
    Operation(CALL, "stop_continuous_dtmf_recognition", only, 200, nothing),
    Operation(CALL, "mute_participant", only, 200, empty),
    Operation(CALL, "hold", only, 200, nothing),
    Operation(CALL, "unhold", only, 200, nothing),
]


def connect(client: str, package: str, kit: Kit, transport: Any, *, aio: bool) -> Any:
    """Return a client of a package, which has from the kit what it can have from there."""
    cls = getattr(module_of(package, aio=aio), client)
    match client:
        case "ChatClient":
            return cls(ENDPOINT, user_credential(kit, aio=aio), transport=transport)
        case "ChatThreadClient":
            return cls(ENDPOINT, user_credential(kit, aio=aio), "t", transport=transport)
        case "CallAutomationClient":
            source = kit.CommunicationUserIdentifier("8:acs:r_source")
            return cls(ENDPOINT, KEY, source=source, transport=transport)
        case "CallConnectionClient":
            return cls(ENDPOINT, KEY, "c", transport=transport)
        case _:
            return cls(ENDPOINT, KEY, transport=transport)


def user_credential(kit: Kit, *, aio: bool) -> Any:
    module = importlib.import_module(f"{kit.__name__}.aio") if aio else kit
    return module.CommunicationTokenCredential(TOKEN)


# --- Packages

PACKAGES = {"callautomation": CALL_AUTOMATION, "chat": CHAT, "identity": IDENTITY, "rooms": ROOMS}

# Those that take no identifier and no user credential, and what they take instead of identifiers.
OTHERS = {
    "email": "e-mail addresses",
    "jobrouter": "ids of jobs and workers that the application chooses",
    "messages": "recipients as text",
    "phonenumbers": "phone numbers as text",
    "sms": "phone numbers as text",
}


def module_of(package: str, *, aio: bool) -> Any:
    return importlib.import_module(f"azure.communication.{package}" + (".aio" if aio else ""))


# --- Requests that go nowhere


class Adapter(requests.adapters.BaseAdapter):
    """Keeps what ``requests`` would put on the wire, and answers as it is told."""

    def __init__(self, status: int, answer: Any) -> None:
        super().__init__()
        self._status, self._answer = status, answer
        self.sent: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        self.sent.append(request)
        response = requests.Response()
        response.request, response.url = request, str(request.url)
        response.status_code = self._status
        response.headers["Content-Type"] = "application/json"
        response.raw = io.BytesIO(
            b"" if self._answer is None else json.dumps(self._answer).encode()
        )
        return response

    def close(self) -> None:
        pass


def as_transport(adapter: Adapter, *, aio: bool) -> Any:
    session = requests.Session()
    session.mount("https://", adapter)
    cls = AsyncioRequestsTransport if aio else RequestsTransport
    return cls(session=session, session_owner=False)


class Sent(NamedTuple):
    """A request as far as it must be the same: the rest are dates, serial numbers and signatures
    over them.
    """

    method: str
    target: str
    body: Any
    bearer: str


def as_sent(request: requests.PreparedRequest) -> Sent:
    body: Any = request.body
    authorization = str(request.headers.get("Authorization", ""))
    return Sent(
        str(request.method),
        request.path_url,
        json.loads(body) if body else None,
        authorization if authorization.startswith("Bearer ") else "",
    )


async def settle(result: Any) -> Any:
    """Await what a method returned, and read its pages if it has any."""
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__aiter__"):
        return [item async for item in result]
    return list(result) if hasattr(result, "by_page") else result


def identifiers_in(value: Any) -> Iterator[Any]:
    """Find the identifiers in a result, however deep."""
    if all(hasattr(value, name) for name in ("raw_id", "kind", "properties")):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from identifiers_in(item)
    elif hasattr(value, "__dict__") and not isinstance(value, Enum):
        for item in vars(value).values():
            yield from identifiers_in(item)


class Trial(NamedTuple):
    """What one call sent, and the identifiers in its result or how it failed."""

    sent: list[Sent]
    found: list[Any]
    error: str = ""


async def run(
    package: str, operation: Operation, answer: Any, kit: Kit, who: Any, *, aio: bool
) -> Trial:
    """Call one method with one identifier, all of a kit."""
    adapter = Adapter(operation.status, answer)
    transport = as_transport(adapter, aio=aio)
    client = connect(operation.client, package, kit, transport, aio=aio)
    arguments = operation.arguments
    positional, keywords = arguments(kit, who) if callable(arguments) else arguments
    try:
        result = await settle(getattr(client, operation.method)(*positional, **keywords))
    except KeyError as error:  # chat, once it has sent what names another kind than users
        return Trial([*map(as_sent, adapter.sent)], [], repr(error))
    return Trial([*map(as_sent, adapter.sent)], [*identifiers_in(result)])


def reason(package: str, kind: str) -> str | None:
    """Tell why a package cannot be tried with a kind of identifier, if it cannot."""
    if package == "identity" and kind != "communication user":
        return "its methods take Communication users only"
    return None


async def compare(package: str, kind: str, *, aio: bool) -> str:
    """Compare a package with its own classes and with ours, or raise an AssertionError.

    :return: What was equal.
    """
    kit, sent, found = module_of(package, aio=False), 0, 0
    failing: set[str] = set()
    ours = KINDS[kind](common)
    is_known = hasattr(kit, type(ours[0]).__name__)
    theirs = KINDS[kind](kit) if is_known else [kit.UnknownIdentifier(o.raw_id) for o in ours]
    for operation in PACKAGES[package]:
        for their, our in zip(theirs, ours, strict=True):
            answer = operation.answer(common.serialize_identifier(our))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of their own code
                expected = await run(package, operation, answer, kit, their, aio=aio)
                actual = await run(package, operation, answer, common, our, aio=aio)
            case = f"{package}.{operation.client}.{operation.method}({our!r})"
            assert actual.sent == expected.sent, case
            if callable(operation.arguments):
                said = unquote(actual.sent[0].target) + json.dumps(actual.sent[0].body)
                assert our.raw_id in said, case
            assert actual.error == expected.error, case
            assert [one.raw_id for one in actual.found] == [one.raw_id for one in expected.found]
            for one in actual.found:
                converted = common.identifier_from_raw_id(one.raw_id)
                assert converted == one, case
                assert one == converted, case
                assert one.kind in (converted.kind, "unknown") or not is_known, case
            sent += len(actual.sent)
            found += len(actual.found)
            failing |= {operation.method} if actual.error else set()
    notes = [] if is_known else ["as its unknown"]
    if failing:
        notes.append(f"{' and '.join(sorted(failing))} raise KeyError after sending, with both")
    return "; ".join([f"equal: {sent} requests, {found} in results", *notes])


def rows(package: str) -> Iterator[str]:
    """Yield the lines of one package; raises an AssertionError where something differs."""
    start = f"{package:<16}{version(f'azure-communication-{package}'):<9}"
    if package in OTHERS:
        yield f"{start}{'none':<28}takes {OTHERS[package]}, and no user credential"
        return
    for kind, aio in itertools.product(KINDS, (False, True)):
        outcome = reason(package, kind) or asyncio.run(compare(package, kind, aio=aio))
        yield f"{start}{kind:<22}{'aio' if aio else 'sync':<6}{outcome}"


if __name__ == "__main__":
    logging.disable()  # Call Automation warns of its own arguments
    print(f"{'package':<16}{'version':<9}{'identifier':<28}outcome")
    for package in sorted(PACKAGES | OTHERS):
        for row in rows(package):
            print(row, flush=True)
