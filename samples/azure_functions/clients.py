"""The settings, the credentials and the clients that all invocations of an instance share.

The credentials are made when the app is loaded. The connections are made when they are first
needed: azure-core then imports aiohttp or requests, which takes longer than everything here.
"""

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from azure.communication.chat import ChatThreadClient
from azure.communication.chat.aio import ChatClient as AsyncChatClient
from azure.communication.chat.aio import ChatThreadClient as AsyncChatThreadClient
from azure.communication.common import (
    CommunicationTokenCredential,
    CommunicationUserIdentifier,
    aio,
    get_authentication_policy,
    parse_client_arguments,
)
from azure.communication.identity import CommunicationIdentityClient
from azure.communication.identity.aio import CommunicationIdentityClient as AsyncIdentityClient
from azure.core.credentials import AccessToken

if TYPE_CHECKING:
    from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport

ENDPOINT, KEY = parse_client_arguments(os.environ["COMMUNICATION_SERVICES_CONNECTION_STRING"])
SCOPES: list[Any] = ["chat"]
# Three attempts end within the 60 seconds that a refresh may take.
PATIENCE: dict[str, Any] = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 2}

# For type checkers, what the clients are given is Any: they take every identifier and credential,
# but their annotations name the classes of private copies.
APP_USER: Any = CommunicationUserIdentifier(os.environ["COMMUNICATION_SERVICES_USER_ID"])


async def fetch_token() -> AccessToken:
    """Issue a token for the app's own user.

    It happens about once a day and on whichever event loop asks first, while a connection belongs
    to one loop: hence a client of its own.
    """
    async with AsyncIdentityClient(ENDPOINT, KEY, **PATIENCE) as identity:
        return await identity.get_token(APP_USER, SCOPES)


def fetch_token_sync() -> AccessToken:
    """Issue a token for the app's own user."""
    identity = CommunicationIdentityClient(ENDPOINT, KEY, **PATIENCE)
    return identity.get_token(APP_USER, SCOPES)


# The worker loads the app on the event loop on which all async functions run. So this credential
# fetches a token at once, before most first invocations ask for one.
async_credential: Any = aio.CommunicationTokenCredential(
    token_refresher=fetch_token, proactive_refresh=True
)
# For the functions that are not async, which run in threads. It fetches a token when it is asked.
sync_credential: Any = CommunicationTokenCredential(token_refresher=fetch_token_sync)


# One pool of connections serves all async invocations, another all sync ones. A client is made for
# each invocation and not closed, because that would close the pool.


@cache
def async_connections() -> "AioHttpTransport":
    from azure.core.pipeline.transport import AioHttpTransport

    return AioHttpTransport()


@cache  # threads that are first together may make one each; all work, and the last one stays
def sync_connections() -> "RequestsTransport":
    from azure.core.pipeline.transport import RequestsTransport

    return RequestsTransport()


def identity_client() -> AsyncIdentityClient:
    return AsyncIdentityClient(ENDPOINT, KEY, transport=async_connections())


# The chat clients' own policy passes on the 401 of a token that was revoked. Ours, behind it, has
# the credential fetch another token and sends the request again.


def async_options() -> dict[str, Any]:
    policy = aio.get_authentication_policy(ENDPOINT, async_credential)
    return {"transport": async_connections(), "per_retry_policies": policy}


def sync_options() -> dict[str, Any]:
    policy = get_authentication_policy(ENDPOINT, sync_credential)
    return {"transport": sync_connections(), "per_retry_policies": policy}


def chat_client() -> AsyncChatClient:
    return AsyncChatClient(ENDPOINT, async_credential, **async_options())


def chat_thread(thread_id: str) -> AsyncChatThreadClient:
    return AsyncChatThreadClient(ENDPOINT, async_credential, thread_id, **async_options())


def chat_thread_sync(thread_id: str) -> ChatThreadClient:
    return ChatThreadClient(ENDPOINT, sync_credential, thread_id, **sync_options())
