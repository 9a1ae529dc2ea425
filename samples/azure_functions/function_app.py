"""Azure Communication Services in a function app: a token broker, chat messages, and events.

Messages are sent by the app's own user, from an async function and from one that is not. All
invocations of either share a credential, see ``clients.py``. ``invitations.py`` holds the Durable
Functions.
"""

import logging
import re
from typing import Any

import azure.functions as func
from azure.communication.common import (
    CommunicationIdentifier,
    CommunicationIdentifierKind,
    deserialize_identifier,
    identifier_from_raw_id,
)
from azure.core.exceptions import AzureError

import clients
from answers import answer, failure, problem, read_json
from invitations import invitations

# Below warnings, azure-core logs the headers of every request. You would pay for storing them.
logging.getLogger("azure.core").setLevel(logging.WARNING)

THREAD_ID = re.compile(r"19:[\w.@:=-]+")

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
app.register_functions(invitations)


@app.route("token", methods=["POST"])
async def issue_token(req: func.HttpRequest) -> func.HttpResponse:
    """Issue a chat token: for ``{"rawId": "8:acs:..."}``, or for ``{"newUser": true}``.

    The function key says which app is calling, not who uses it. Where users call this function
    themselves, have them sign in, and take their raw id from the sign-in and not from the body.
    Nobody gets a token of the app's own user, who reads all that is sent to the app's threads.
    """
    identity = clients.identity_client()
    try:
        match read_json(req):
            case {"rawId": str(raw_id)}:
                user: Any = identifier_from_raw_id(raw_id)
                if user.kind != CommunicationIdentifierKind.COMMUNICATION_USER:
                    return problem(400, "rawId must be that of a Communication Services user.")
                if user.raw_id.casefold() == clients.APP_USER.raw_id.casefold():
                    return problem(403, "rawId is that of this app, which shares no token.")
                token = await identity.get_token(user, clients.SCOPES)
            case {"newUser": True}:
                user, token = await identity.create_user_and_token(clients.SCOPES)
            case _:
                return problem(400, 'The body must be {"rawId": "8:acs:..."} or {"newUser": true}.')
    except (AzureError, TimeoutError) as error:
        return failure(error)
    return answer(200, rawId=user.raw_id, token=token.token, expiresOn=token.expires_on)


@app.route("threads/{thread_id}/messages", methods=["POST"])
async def send_message(req: func.HttpRequest) -> func.HttpResponse:
    """Send ``{"content": "..."}`` to a chat thread that the app's user takes part in."""
    thread_id, content = read_message(req)
    if not content:
        return problem(400, 'The body must be {"content": "..."}.')
    if not thread_id:
        return problem(404, "There is no such chat thread.")
    try:
        sent = await clients.chat_thread(thread_id).send_message(content)
    except (AzureError, TimeoutError) as error:
        return failure(error)
    return answer(201, id=sent.id)


@app.route("sync/threads/{thread_id}/messages", methods=["POST"])
def send_message_sync(req: func.HttpRequest) -> func.HttpResponse:
    """Do the same in a thread of the worker's pool, with the sync credential."""
    thread_id, content = read_message(req)
    if not content:
        return problem(400, 'The body must be {"content": "..."}.')
    if not thread_id:
        return problem(404, "There is no such chat thread.")
    try:
        sent = clients.chat_thread_sync(thread_id).send_message(content)
    except (AzureError, TimeoutError) as error:
        return failure(error)
    return answer(201, id=sent.id)


def read_message(req: func.HttpRequest) -> tuple[str, str]:
    """Return the thread's id and the content of a message; what is not usable, as an empty text."""
    thread_id = req.route_params["thread_id"]
    if not THREAD_ID.fullmatch(thread_id):  # in a URL, ".." would reach another resource
        thread_id = ""
    match read_json(req):
        case {"content": str(content)}:
            return thread_id, content
        case _:
            return thread_id, ""


@app.event_grid_trigger("event")
def on_event(event: func.EventGridEvent) -> None:
    """Tell who takes part in an incoming call or a chat message."""
    data = event.get_json()
    match event.event_type.removeprefix("Microsoft.Communication."):
        case "IncomingCall":
            people = {"caller": data["from"], "callee": data["to"]}
        case "ChatMessageReceived":
            people = {
                "sender": data["senderCommunicationIdentifier"],
                "recipient": data["recipientCommunicationIdentifier"],
            }
        case "ChatMessageReceivedInThread":
            people = {"sender": data["senderCommunicationIdentifier"]}
        case other:
            logging.warning("There is nothing to do for %s.", other)
            return
    for role, wire in people.items():
        participant = deserialize_identifier(wire)
        logging.info("%s: the %s is %s.", event.event_type, role, describe(participant))


def describe(participant: CommunicationIdentifier) -> str:
    """Describe a participant for the log, where telephone numbers do not belong."""
    match participant.kind:
        case CommunicationIdentifierKind.COMMUNICATION_USER:
            return f"the user {participant.raw_id}"
        case CommunicationIdentifierKind.PHONE_NUMBER:
            return "on the telephone"
        case CommunicationIdentifierKind.MICROSOFT_TEAMS_USER:
            guest = participant.properties["is_anonymous"]
            return "a guest in Teams" if guest else "a user of Teams"
        case CommunicationIdentifierKind.TEAMS_EXTENSION_USER:
            return "a user of Teams, by way of this resource"
        case CommunicationIdentifierKind.MICROSOFT_TEAMS_APP:
            return "an app in Teams, such as a call queue"
        case _:
            return "of a kind that this version does not know"
