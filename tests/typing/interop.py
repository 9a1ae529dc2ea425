"""Our classes as arguments of the published packages. Checked by mypy and pyright, never run.

Where a package asks for a protocol, ours is taken as it is. Where it names a class of its own copy,
a user writes ``type: ignore`` or ``cast``, and both checkers report an error that is ignored
without need.
"""
# pyright: standard, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Iterable
from typing import Any, cast

import azure.communication.callautomation as callautomation
import azure.communication.chat as chat
import azure.communication.common as common
import azure.communication.identity as identity
import azure.communication.rooms as rooms
from azure.communication.callautomation import aio as callautomation_aio
from azure.communication.chat import aio as chat_aio
from azure.communication.common import aio
from azure.communication.email import EmailClient
from azure.communication.email.aio import EmailClient as AsyncEmailClient
from azure.communication.identity import aio as identity_aio
from azure.communication.messages import NotificationMessagesClient
from azure.communication.messages.aio import NotificationMessagesClient as AsyncMessagesClient
from azure.communication.phonenumbers import PhoneNumbersClient
from azure.communication.phonenumbers.aio import PhoneNumbersClient as AsyncPhoneNumbersClient
from azure.communication.rooms import aio as rooms_aio
from azure.communication.sms import SmsClient
from azure.communication.sms.aio import SmsClient as AsyncSmsClient
from azure.core.credentials import AzureKeyCredential

ENDPOINT = "https://contoso.communication.azure.com"
CALLBACK = "https://contoso.example/events"

user = common.CommunicationUserIdentifier("8:acs:u")
phone = common.PhoneNumberIdentifier("+14255550123")
teams_app = common.MicrosoftTeamsAppIdentifier("a")
IDENTIFIERS = (
    *(user, phone, teams_app, common.MicrosoftTeamsUserIdentifier("u")),
    common.TeamsExtensionUserIdentifier(user_id="u", tenant_id="t", resource_id="r"),
    common.UnknownIdentifier("28:other"),
    common.identifier_from_raw_id("8:acs:u"),
)


# --- Protocols: every kind is taken


def chat_participants(thread: chat.ChatThreadClient) -> None:
    for each in IDENTIFIERS:
        thread.add_participants([chat.ChatParticipant(identifier=each)])
        thread.remove_participant(each)


async def chat_participants_async(thread: chat_aio.ChatThreadClient) -> None:
    for each in IDENTIFIERS:
        await thread.add_participants([chat.ChatParticipant(identifier=each)])
        await thread.remove_participant(each)


def room_participants(client: rooms.RoomsClient) -> None:
    for each in IDENTIFIERS:
        invited = [rooms.RoomParticipant(communication_identifier=each)]
        client.create_room(participants=invited)
        client.add_or_update_participants(room_id="r", participants=invited)
        client.remove_participants(room_id="r", participants=[each])


async def room_participants_async(client: rooms_aio.RoomsClient) -> None:
    for each in IDENTIFIERS:
        invited = [rooms.RoomParticipant(communication_identifier=each)]
        await client.create_room(participants=invited)
        await client.remove_participants(room_id="r", participants=[each])


def call_participants(
    client: callautomation.CallAutomationClient, call: callautomation.CallConnectionClient
) -> None:
    for each in IDENTIFIERS:
        client.create_call(each, CALLBACK)
        client.create_call([each, user], CALLBACK)
        client.redirect_call("context", each)
        client.start_recording(
            server_call_id="s",
            audio_channel_participant_ordering=[each],
            channel_affinity=[callautomation.ChannelAffinity(each, 0)],
        )
        call.add_participant(each)
        call.get_participant(each)
        call.move_participants([each], "other")
        call.transfer_call_to_participant(each, transferee=each)
        call.play_media(callautomation.FileSource(CALLBACK), [each])
        call.send_dtmf_tones(["one"], each)
        call.remove_participant(each)


async def call_participants_async(
    client: callautomation_aio.CallAutomationClient, call: callautomation_aio.CallConnectionClient
) -> None:
    for each in IDENTIFIERS:
        await client.create_call(each, CALLBACK)
        await client.redirect_call("context", each)
        await call.add_participant(each)
        await call.transfer_call_to_participant(each, transferee=each)
        await call.remove_participant(each)


def credentials(credential: common.CommunicationTokenCredential) -> None:
    """These take azure-core's protocol; the service wants an Entra token there."""
    identity.CommunicationIdentityClient(ENDPOINT, credential)
    callautomation.CallAutomationClient(ENDPOINT, credential)
    rooms.RoomsClient(ENDPOINT, credential)
    EmailClient(ENDPOINT, credential)
    NotificationMessagesClient(ENDPOINT, credential)
    PhoneNumbersClient(ENDPOINT, credential)
    SmsClient(ENDPOINT, credential)


def async_credentials(credential: aio.CommunicationTokenCredential) -> None:
    identity_aio.CommunicationIdentityClient(ENDPOINT, credential)
    callautomation_aio.CallAutomationClient(ENDPOINT, credential)
    rooms_aio.RoomsClient(ENDPOINT, credential)
    AsyncEmailClient(ENDPOINT, credential)
    AsyncMessagesClient(ENDPOINT, credential)
    AsyncPhoneNumbersClient(ENDPOINT, credential)
    AsyncSmsClient(ENDPOINT, credential)


def results(
    chat_members: Iterable[chat.ChatParticipant],
    room_member: rooms.RoomParticipant,
    call_member: callautomation.CallParticipant,
    created: identity.CommunicationUserIdentifier,
) -> list[common.CommunicationIdentifier]:
    """What the packages return is what ours take."""
    found: list[common.CommunicationIdentifier] = [each.identifier for each in chat_members]
    if call_member.identifier is not None:
        found.append(call_member.identifier)
    common.serialize_identifier(created)
    return [*found, room_member.communication_identifier, created]


# --- Classes of their own copies: ignored or cast


def concrete_users(client: identity.CommunicationIdentityClient) -> None:
    client.get_token(user, ["chat"])  # type: ignore[arg-type]
    client.revoke_tokens(cast("Any", user))
    client.delete_user(identity.CommunicationUserIdentifier(user.raw_id))


async def concrete_users_async(client: identity_aio.CommunicationIdentityClient) -> None:
    await client.get_token(user, ["chat"])  # type: ignore[arg-type]
    await client.revoke_tokens(cast("Any", user))


def concrete_sources(
    client: callautomation.CallAutomationClient, call: callautomation.CallConnectionClient
) -> None:
    key = AzureKeyCredential("a2V5")
    callautomation.CallAutomationClient(ENDPOINT, key, source=user)  # type: ignore[arg-type]
    client.create_call(user, CALLBACK, source_caller_id_number=phone)  # type: ignore[arg-type]
    client.create_call(user, CALLBACK, teams_app_source=teams_app)  # type: ignore[arg-type]
    call.add_participant(user, source_caller_id_number=cast("Any", phone))


def concrete_credentials(credential: common.CommunicationTokenCredential) -> None:
    chat.ChatClient(ENDPOINT, credential)  # type: ignore[arg-type]
    chat.ChatThreadClient(ENDPOINT, cast("Any", credential), "thread")


def concrete_async_credentials(credential: aio.CommunicationTokenCredential) -> None:
    chat_aio.ChatClient(ENDPOINT, credential)  # type: ignore[arg-type]
    chat_aio.ChatThreadClient(ENDPOINT, cast("Any", credential), "thread")


def policies(credential: common.CommunicationTokenCredential) -> None:
    policy = common.get_authentication_policy(ENDPOINT, credential)
    chat.ChatClient(ENDPOINT, cast("Any", credential), per_retry_policies=policy)
