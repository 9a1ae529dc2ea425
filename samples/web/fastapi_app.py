"""A chat back end on FastAPI and uvicorn, with one credential of ``aio`` for each user.

``POST /token`` returns a token for a browser's or a phone's chat client, and
``POST /threads/{thread_id}/messages`` sends a message for the user who has signed in.

Both get the token from the user's credential: most requests find it there, one in the last two
minutes of its life fetches the next one, and the others use the old one meanwhile.
"""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from azure.communication.chat.aio import ChatThreadClient
from azure.communication.common import CommunicationUserIdentifier, parse_client_arguments
from azure.communication.common.aio import CommunicationTokenCredential, get_authentication_policy
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport
from fastapi import Depends, FastAPI, Header, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from user_credentials import UserCredentials

ENDPOINT, KEY = parse_client_arguments(os.environ["COMMUNICATION_SERVICES_CONNECTION_STRING"])
# The user of Communication Services for each of your accounts; in production, from your database.
USERS: dict[str, str] = json.loads(os.environ["COMMUNICATION_SERVICES_USERS"])
# Three attempts end within the 60 seconds that a refresh may take.
PATIENCE: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 2}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Make what all requests share, on the event loop that they run on."""
    async with AioHttpTransport() as connections:
        identity = CommunicationIdentityClient(ENDPOINT, KEY, transport=connections, **PATIENCE)

        def create_credential(raw_id: str) -> CommunicationTokenCredential:
            user: Any = CommunicationUserIdentifier(raw_id)

            async def fetch_token() -> str:
                return (await identity.get_token(user, ["chat"])).token

            # Not proactive, or tokens would be fetched for users who have long left.
            return CommunicationTokenCredential(token_refresher=fetch_token)

        credentials = UserCredentials(create_credential, size=10_000)
        yield {"credentials": credentials, "connections": connections}


app = FastAPI(lifespan=lifespan)


def signed_in(
    request: Request, account: Annotated[str, Header(alias="x-ms-client-principal-id")] = ""
) -> Any:
    """Return the credential of the user who has signed in.

    App Service authentication sets this header and removes it from what browsers send. Where it is
    not in front of your app, put your own sign-in here, or callers can be whom they like.
    """
    if account not in USERS:
        raise HTTPException(401, "Sign in first.")
    return request.state.credentials.get(USERS[account])


Credential = Annotated[Any, Depends(signed_in)]
ThreadId = Annotated[str, Path(pattern=r"^19:[\w.@:=-]+$")]  # ".." would reach something else


class Message(BaseModel):
    """What is sent."""

    content: str = Field(min_length=1)


@app.post("/token")
async def issue_token(credential: Credential, response: Response) -> dict[str, Any]:
    """Return a token of the user who has signed in."""
    response.headers["Cache-Control"] = "no-store"
    token = await credential.get_token()
    return {"token": token.token, "expiresOn": token.expires_on}


@app.post("/threads/{thread_id}/messages", status_code=201)
async def send_message(
    thread_id: ThreadId, message: Message, credential: Credential, request: Request
) -> dict[str, str]:
    """Send a message to a thread that the user takes part in."""
    # A client for each request, and connections for all: closing a client would close those. Our
    # policy sends a request once more if its token has been revoked; the client's own does not.
    policy = get_authentication_policy(ENDPOINT, credential)
    options = {"transport": request.state.connections, "per_retry_policies": policy}
    thread = ChatThreadClient(ENDPOINT, credential, thread_id, **options)
    sent = await thread.send_message(message.content)
    return {"id": sent.id}


@app.exception_handler(RequestValidationError)
async def answer_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong without the input, which is not always text that can be sent back."""
    details = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return JSONResponse({"detail": details}, 422)


@app.exception_handler(AzureError)
@app.exception_handler(TimeoutError)
async def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Tell the caller whether its own request was at fault; uvicorn's log has the rest."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status not in (400, 403, 404):
        logging.error("A call to Azure Communication Services failed.", exc_info=error)
        status = 502
    return JSONResponse({"detail": "The message could not be sent."}, status)
