"""Identifiers: from raw ids and from the REST API's JSON, and what to do for each kind.

Run it without arguments; it needs no service. You see each raw id of a list with what it stands
for, its JSON as events and requests carry it, and that identifiers can be the members of a set.
"""

import json

from azure.communication.common import (
    CommunicationIdentifier,
    CommunicationUserIdentifier,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    deserialize_identifier,
    identifier_from_raw_id,
    serialize_identifier,
)


def describe(who: CommunicationIdentifier) -> str:
    match who:
        case CommunicationUserIdentifier(id):
            return f"a user of Communication Services, {id}"
        case PhoneNumberIdentifier(number):
            return f"the phone number {number}"
        case MicrosoftTeamsUserIdentifier(is_anonymous=True):
            return "somebody who joined a Teams meeting without signing in"
        case MicrosoftTeamsUserIdentifier(user_id, cloud=cloud):
            return f"the Teams user {user_id} in the cloud {cloud.lower()}"
        case MicrosoftTeamsAppIdentifier(app_id):
            return f"the Teams app {app_id}"
        case _:
            return f"something else, {who.raw_id}"


RAW_IDS = ["8:acs:r_u", "4:+14255550123", "8:gcch:u", "8:teamsvisitor:v", "28:orgid:a", "8:new:x"]

for raw_id in RAW_IDS:
    identifier = identifier_from_raw_id(raw_id)
    wire = serialize_identifier(identifier)
    print(f"{raw_id} is {describe(identifier)}.")
    print("  As JSON:", json.dumps(wire))
    print("  And back:", deserialize_identifier(wire))

people = {PhoneNumberIdentifier("+14255550123"), identifier_from_raw_id("4:+14255550123")}
print("A set that was given a phone number twice has", len(people), "member.")
