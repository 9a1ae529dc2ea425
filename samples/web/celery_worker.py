"""A Celery worker that sends chat messages for thousands of users.

Celery forks its worker processes, and any of them may get any user's message. Each process would
issue a token for each user, and again and again, as it keeps only the credentials that it used
last. So tokens are shared through the Redis that is there anyway, by
``samples/shared_token_cache``: one is issued for each user and period, however many processes there
are.

Nothing here connects to anything before the fork.
"""

import os
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
from azure.core.pipeline.transport import RequestsTransport
from celery import Celery

from shared_token_cache import SharedTokenCache
from user_credentials import UserCredentials

ENDPOINT, KEY = parse_client_arguments(os.environ["COMMUNICATION_SERVICES_CONNECTION_STRING"])
REDIS_URL = os.environ["REDIS_URL"]
# The shared cache expects that a token is issued within ten seconds.
PATIENCE: dict[str, Any] = {"connection_timeout": 3, "read_timeout": 5, "retry_total": 1}

app = Celery("chat", broker=REDIS_URL)
tokens = SharedTokenCache(REDIS_URL, os.environ["SHARED_TOKEN_CACHE_KEYS"])


@cache
def connections() -> RequestsTransport:
    """Return the connections of this process."""
    return RequestsTransport()


def create_credential(raw_id: str) -> CommunicationTokenCredential:
    user: Any = CommunicationUserIdentifier(raw_id)

    def issue() -> str:
        identity = CommunicationIdentityClient(ENDPOINT, KEY, transport=connections(), **PATIENCE)
        return identity.get_token(user, ["chat"]).token

    return CommunicationTokenCredential(token_refresher=tokens.refresher(raw_id, issue))


# Few, because what is missing here is in Redis.
credentials = UserCredentials(create_credential, size=100)


@app.task
def send_message(raw_id: str, thread_id: str, content: str) -> None:
    """Send a message as a user. Only code of yours can call this."""
    credential: Any = credentials.get(raw_id)
    # Our policy sends a request once more if its token has been revoked; the client's own does not.
    policy = get_authentication_policy(ENDPOINT, credential)
    options: Any = {"transport": connections(), "per_retry_policies": policy}
    thread = ChatThreadClient(ENDPOINT, credential, thread_id, **options)
    thread.send_message(content)
