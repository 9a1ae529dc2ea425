"""Identifiers in the events of the service: Event Grid and Call Automation callbacks.

The events are made up; their members and nesting are those that the service documents, and so are
their variations: ``kind`` next to the model or not, members beyond the model, ``null`` for models
that do not apply, clouds in lower case.
"""

import json
from typing import Any, NamedTuple

import pytest
from azure.communication.common import (
    CommunicationIdentifier,
    CommunicationUserIdentifier,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    TeamsExtensionUserIdentifier,
    UnknownIdentifier,
    deserialize_identifier,
    identifier_from_raw_id,
    serialize_identifier,
)

RESOURCE, TENANT, OBJECT = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "123")
ALICE, BOB = (f"8:acs:{RESOURCE}_0000000e-{part}-07fd-0848220077e1" for part in ("1fb9", "27cc"))

alice = CommunicationUserIdentifier(ALICE)
bob = CommunicationUserIdentifier(BOB)


def user(raw_id: str, **more: Any) -> dict[str, Any]:
    return {"rawId": raw_id, "communicationUser": {"id": raw_id}, **more}


class Event(NamedTuple):
    """An event's type and case, its ``data`` as JSON, and the identifiers in it by their path."""

    name: str
    data: dict[str, Any]
    identifiers: dict[str, CommunicationIdentifier]


EVENTS = [
    # Event Grid: calls
    Event(
        "IncomingCall between users",
        {
            "to": user(ALICE, kind="communicationUser"),
            "from": user(BOB, kind="communicationUser"),
            "serverCallId": "c2VydmVy",
            "callerDisplayName": "Bob",
            "customContext": {"sipHeaders": {"X-MS-Custom-a": "b"}, "voipHeaders": {"c": "d"}},
            "incomingCallContext": "c2lnbmVk",
            "correlationId": "d5b1",
        },
        {"to": alice, "from": bob},
    ),
    Event(
        "IncomingCall by phone",
        {
            "to": {
                "kind": "phoneNumber",
                "rawId": "4:+14255550100",
                "phoneNumber": {"value": "+14255550100"},
            },
            "from": {
                "kind": "phoneNumber",
                "rawId": "4:anonymous",
                "phoneNumber": {"value": "anonymous", "isAnonymous": True},
            },
            "onBehalfOfCallee": {
                "kind": "microsoftTeamsUser",
                "rawId": f"8:orgid:{OBJECT}",
                "microsoftTeamsUser": {"userId": OBJECT, "isAnonymous": False, "cloud": "public"},
            },
            "serverCallId": "c2VydmVy",
            "incomingCallContext": "c2lnbmVk",
        },
        {
            "to": PhoneNumberIdentifier("+14255550100", raw_id="4:+14255550100"),
            "from": PhoneNumberIdentifier("anonymous", raw_id="4:anonymous"),
            "onBehalfOfCallee": MicrosoftTeamsUserIdentifier(OBJECT),
        },
    ),
    Event(
        "IncomingCall with Teams",
        {
            "to": {
                "kind": "microsoftTeamsApp",
                "rawId": f"28:gcch:{OBJECT}",
                "microsoftTeamsApp": {"appId": OBJECT, "cloud": "gcch"},
            },
            "from": {
                "kind": "teamsExtensionUser",
                "rawId": f"8:acs:{RESOURCE}_{TENANT}_{OBJECT}",
                "teamsExtensionUser": {
                    "userId": OBJECT,
                    "tenantId": TENANT,
                    "resourceId": RESOURCE,
                    "cloud": "public",
                },
            },
            "incomingCallContext": "c2lnbmVk",
        },
        {
            "to": MicrosoftTeamsAppIdentifier(OBJECT, cloud="GCCH"),
            "from": TeamsExtensionUserIdentifier(
                user_id=OBJECT, tenant_id=TENANT, resource_id=RESOURCE
            ),
        },
    ),
    Event(
        "CallStarted",
        {
            "startedBy": user(ALICE, role="{role}"),
            "serverCallId": "c2VydmVy",
            "group": {"id": RESOURCE},
            "room": {"id": "99123"},
            "isTwoParty": False,
            "isRoomsCall": True,
        },
        {"startedBy": alice},
    ),
    Event(
        "CallParticipantAdded",
        {
            "user": user(BOB, role="{role}"),
            "displayName": "Bob",
            "participantId": OBJECT,
            "startedBy": user(ALICE, role="{role}"),
            "serverCallId": "c2VydmVy",
        },
        {"user": bob, "startedBy": alice},
    ),
    # Event Grid: chat
    Event(
        "ChatMessageReceived",
        {
            "messageBody": "Hello",
            "messageId": "1613694358927",
            "metadata": {"key": "value"},
            "senderId": ALICE,
            "senderCommunicationIdentifier": user(ALICE),
            "senderDisplayName": "Alice",
            "composeTime": "2026-02-19T00:25:58.927Z",
            "type": "Text",
            "version": 1613694358927,
            "recipientId": BOB,
            "recipientCommunicationIdentifier": user(BOB),
            "threadId": "19:a@thread.v2",
        },
        {"senderCommunicationIdentifier": alice, "recipientCommunicationIdentifier": bob},
    ),
    Event(
        "ChatMessageReceivedInThread",
        {
            "messageBody": "<p>Hello from the meeting</p>",
            "type": "RichText/HTML",
            "version": "1613783230064",
            "senderDisplayName": "Visitor",
            "senderCommunicationIdentifier": {
                "rawId": "8:teamsvisitor:5e0a",
                "microsoftTeamsUser": {"userId": "5e0a", "isAnonymous": True},
            },
            "threadId": "19:meeting_a@thread.v2",
        },
        {"senderCommunicationIdentifier": MicrosoftTeamsUserIdentifier("5e0a", is_anonymous=True)},
    ),
    Event(
        "ChatThreadCreatedWithUser",
        {
            "createdBy": ALICE,
            "createdByCommunicationIdentifier": user(ALICE),
            "properties": {"topic": "Hello"},
            "participants": [
                {"displayName": "Alice", "participantCommunicationIdentifier": user(ALICE)},
                {"displayName": "Bob", "participantCommunicationIdentifier": user(BOB)},
            ],
            "recipientCommunicationIdentifier": user(BOB),
            "threadId": "19:a@thread.v2",
        },
        {
            "createdByCommunicationIdentifier": alice,
            "participants.0.participantCommunicationIdentifier": alice,
            "participants.1.participantCommunicationIdentifier": bob,
            "recipientCommunicationIdentifier": bob,
        },
    ),
    Event(
        "ChatThreadParticipantRemoved",
        {
            "removedByCommunicationIdentifier": user(ALICE),
            "participantRemoved": {
                "displayName": "Bob",
                "participantCommunicationIdentifier": user(BOB),
            },
            "threadId": "19:a@thread.v2",
        },
        {
            "removedByCommunicationIdentifier": alice,
            "participantRemoved.participantCommunicationIdentifier": bob,
        },
    ),
    Event(
        "UserDisconnected",
        {"userCommunicationIdentifier": user(ALICE, kind="communicationUser")},
        {"userCommunicationIdentifier": alice},
    ),
    # Call Automation
    Event(
        "ParticipantsUpdated",
        {
            "callConnectionId": "401f",
            "serverCallId": "c2VydmVy",
            "correlationId": "d5b1",
            "sequenceNumber": 2,
            "participants": [
                {
                    "identifier": user(ALICE, phoneNumber=None, microsoftTeamsUser=None),
                    "isMuted": False,
                    "isOnHold": False,
                },
                {
                    "identifier": {
                        "kind": "phoneNumber",
                        "rawId": "4:+14255550123_7b1c",
                        "phoneNumber": {
                            "value": "+14255550123",
                            "isAnonymous": False,
                            "assertedId": "7b1c",
                        },
                    },
                    "isMuted": True,
                    "isOnHold": False,
                },
                {
                    "identifier": {
                        "kind": "microsoftTeamsUser",
                        "rawId": f"8:dod:{OBJECT}",
                        "microsoftTeamsUser": {
                            "userId": OBJECT,
                            "isAnonymous": False,
                            "cloud": "dod",
                        },
                    },
                    "isMuted": False,
                    "isOnHold": True,
                },
            ],
        },
        {
            "participants.0.identifier": alice,
            "participants.1.identifier": PhoneNumberIdentifier(
                "+14255550123", raw_id="4:+14255550123_7b1c"
            ),
            "participants.2.identifier": MicrosoftTeamsUserIdentifier(OBJECT, cloud="DOD"),
        },
    ),
    Event(
        "AddParticipantFailed",
        {
            "callConnectionId": "401f",
            "operationContext": "invite",
            "resultInformation": {"code": 480, "subCode": 10037, "message": "No answer"},
            "participant": {
                "rawId": "4:+14255550123",
                "kind": "phoneNumber",
                "phoneNumber": {"value": "+14255550123"},
            },
        },
        {"participant": PhoneNumberIdentifier("+14255550123", raw_id="4:+14255550123")},
    ),
    Event(
        "CallTransferAccepted",
        {
            "callConnectionId": "401f",
            "resultInformation": {"code": 200, "subCode": 7015, "message": "Accepted"},
            "transferTarget": {
                "rawId": f"28:orgid:{OBJECT}",
                "kind": "microsoftTeamsApp",
                "microsoftTeamsApp": {"appId": OBJECT, "cloud": "public"},
            },
            "transferee": user(BOB),
        },
        {"transferTarget": MicrosoftTeamsAppIdentifier(OBJECT), "transferee": bob},
    ),
    Event(
        "MoveParticipantSucceeded",
        {"callConnectionId": "401f", "participant": user(BOB), "fromCall": "2b7e"},
        {"participant": bob},
    ),
    Event(
        "RemoveParticipantSucceeded",
        {"callConnectionId": "401f", "participant": {"rawId": "28:future:x", "kind": "future"}},
        {"participant": UnknownIdentifier("28:future:x")},
    ),
]


def find(data: Any, path: str) -> Any:
    for step in path.split("."):
        data = data[int(step) if step.isdecimal() else step]
    return data


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_event(event: Event) -> None:
    """Each identifier is read as what it is, and can be found again by its raw id."""
    data = json.loads(json.dumps(event.data))
    for path, expected in event.identifiers.items():
        identifier = deserialize_identifier(find(data, path))
        assert type(identifier) is type(expected)
        assert identifier.raw_id == expected.raw_id
        assert identifier.properties == expected.properties
        assert identifier == expected == identifier_from_raw_id(identifier.raw_id)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_event_to_request(event: Event) -> None:
    """An identifier of an event goes into a request with each member that the event had."""
    for path in event.identifiers:
        wire = find(event.data, path)
        again = serialize_identifier(deserialize_identifier(wire))
        assert again["rawId"] == wire["rawId"]
        for name in again.keys() - {"rawId"}:
            assert wire[name].items() <= again[name].items()


def test_events_have_every_kind() -> None:
    """The table above leaves no kind of identifier out."""
    classes = {type(one) for event in EVENTS for one in event.identifiers.values()}
    assert len(classes) == 6
