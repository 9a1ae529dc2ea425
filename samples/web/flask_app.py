"""A chat back end on Flask and gunicorn, whose workers are forked from one process.

``POST /token`` and ``POST /threads/<thread_id>/messages`` do what they do in ``fastapi_app.py``.
``POST /threads/<thread_id>/announcements`` sends a message as a user of the app's own.

*What a fork does to a credential.* With ``--preload``, gunicorn imports this module once and forks
its workers afterwards. A credential that is made here works in each of them: they start with the
token that was fetched before the fork, and from then on each worker refreshes its own copy.

*What must not be forked* is a connection: two processes would read each other's answers. So the
connections of the workers are made when they are first needed. And a credential that is made before
the fork should not be proactive: it would refresh in the first process, too, which serves nobody.
"""

import json
import logging
import os
import re
from contextlib import suppress
from functools import cache
from typing import Any

from azure.communication.chat import ChatThreadClient
from azure.communication.common import (
    CommunicationTokenCredential,
    CommunicationUserIdentifier,
    get_authentication_policy,
    parse_client_arguments,
)
from azure.communication.identity import CommunicationIdentityClient
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from flask import Flask, abort, request
from flask.typing import ResponseReturnValue

from user_credentials import UserCredentials

ENDPOINT, KEY = parse_client_arguments(os.environ["COMMUNICATION_SERVICES_CONNECTION_STRING"])
# The user of Communication Services for each of your accounts; in production, from your database.
USERS: dict[str, str] = json.loads(os.environ["COMMUNICATION_SERVICES_USERS"])
APP_USER: Any = CommunicationUserIdentifier(os.environ["COMMUNICATION_SERVICES_USER_ID"])
THREAD_ID = re.compile(r"19:[\w.@:=-]+")  # in a URL, ".." would reach another resource
# Three attempts end within the 60 seconds that a refresh may take.
PATIENCE: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 2}

app = Flask(__name__)


def fetch_app_token() -> str:
    """Issue a token for the app's own user, by a connection that does not outlive the call."""
    with RequestsTransport() as connection:
        identity = CommunicationIdentityClient(ENDPOINT, KEY, transport=connection, **PATIENCE)
        return identity.get_token(APP_USER, ["chat"]).token


app_credential = CommunicationTokenCredential(token_refresher=fetch_app_token)
app_credential.get_token()  # with --preload, the token with which all workers start


@cache  # threads that come first may make one each; all of them work, and the last one stays
def connections() -> RequestsTransport:
    """Return the connections of this process."""
    return RequestsTransport()


def create_credential(raw_id: str) -> CommunicationTokenCredential:
    user: Any = CommunicationUserIdentifier(raw_id)

    def fetch_token() -> str:
        identity = CommunicationIdentityClient(ENDPOINT, KEY, transport=connections(), **PATIENCE)
        return identity.get_token(user, ["chat"]).token

    return CommunicationTokenCredential(token_refresher=fetch_token)


credentials = UserCredentials(create_credential, size=10_000)


def signed_in() -> CommunicationTokenCredential:
    """Return the credential of the user who has signed in.

    App Service authentication sets this header and removes it from what browsers send. Where it is
    not in front of your app, put your own sign-in here, or callers can be whom they like.
    """
    account = request.headers.get("X-MS-CLIENT-PRINCIPAL-ID", "")
    if account not in USERS:
        abort(401)
    return credentials.get(USERS[account])


@app.post("/token")
def issue_token() -> ResponseReturnValue:
    """Return a token of the user who has signed in."""
    token = signed_in().get_token()
    return {"token": token.token, "expiresOn": token.expires_on}, {"Cache-Control": "no-store"}


@app.post("/threads/<thread_id>/messages")
def send_message(thread_id: str) -> ResponseReturnValue:
    """Send a message to a thread that the user takes part in."""
    return send(signed_in(), thread_id)


@app.post("/threads/<thread_id>/announcements")
def announce(thread_id: str) -> ResponseReturnValue:
    """Send a message as the app's own user, for any account that has signed in."""
    signed_in()
    return send(app_credential, thread_id)


def read_content() -> str:
    """Return what is to be sent: text that is not empty, and that UTF-8 can express."""
    with suppress(RecursionError, UnicodeError):  # the former if it is nested too deeply
        body = request.get_json(silent=True)
        json.dumps(body, ensure_ascii=False).encode()
        if isinstance(body, dict) and isinstance(body.get("content"), str) and body["content"]:
            return str(body["content"])
    return abort(400)


def send(credential: Any, thread_id: str) -> ResponseReturnValue:
    if not THREAD_ID.fullmatch(thread_id):
        abort(404)
    content = read_content()
    # A client for each request, and connections for all: closing a client would close those. Our
    # policy sends a request once more if its token has been revoked; the client's own does not.
    policy = get_authentication_policy(ENDPOINT, credential)
    options: Any = {"transport": connections(), "per_retry_policies": policy}
    thread = ChatThreadClient(ENDPOINT, credential, thread_id, **options)
    return {"id": thread.send_message(content).id, "process": os.getpid()}, 201


@app.errorhandler(AzureError)
@app.errorhandler(TimeoutError)
def answer_failure(error: Exception) -> ResponseReturnValue:
    """Tell the caller whether its own request was at fault; the log has the rest."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status not in (400, 403, 404):
        logging.error("A call to Azure Communication Services failed.", exc_info=error)
        status = 502
    return {"detail": "The message could not be sent."}, status
