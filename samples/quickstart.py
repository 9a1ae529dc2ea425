"""A user's token is refreshed in the background while the user sends chat messages.

The published azure-communication-identity issues tokens for a user, and the published
azure-communication-chat sends messages with our credential, whose callback fetches a new token in
the middle of the life of the old one, or ten minutes before its end, whichever comes later.

Without arguments, it starts a stand-in for the service on this machine, whose tokens live for a few
seconds, and ends after ten. You see each message, each new token, and that no request was refused::

    python samples/quickstart.py

With a resource of your own, tokens live for an hour or longer. Then the same messages are sent with
one token and nothing waits for the next. The users and the thread are deleted in the end::

    python samples/quickstart.py --connection-string "endpoint=https://...;accesskey=..."
    python samples/quickstart.py --endpoint https://contoso.communication.azure.com

The endpoint alone is enough where azure-identity is installed and its DefaultAzureCredential may
manage the resource.
"""

import argparse
import sys
import threading
import time
from typing import Any, cast

from azure.communication.chat import ChatClient, ChatParticipant
from azure.communication.common import (
    CommunicationTokenCredential,
    CommunicationUserIdentifier,
    parse_client_arguments,
)
from azure.communication.identity import CommunicationIdentityClient, CommunicationTokenScope

from local_service import LocalService

STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:4.1f} s  {text}", flush=True)


def converse(
    identity: CommunicationIdentityClient, endpoint: str, *, pause: float = 0, **options: Any
) -> int:
    """Send messages as a new user, with a pause of seconds after each; return the tokens needed."""
    alice, bob = identity.create_user(), identity.create_user()
    say("Created two users, Alice and Bob.")
    tokens = 0

    def fetch_token() -> str:
        nonlocal tokens
        issued = identity.get_token(alice, [CommunicationTokenScope.CHAT])
        tokens += 1
        is_background = threading.current_thread() is not threading.main_thread()
        say(f"Fetched token {tokens} for Alice{', in the background' if is_background else ''}.")
        return issued.token

    credential = CommunicationTokenCredential(token_refresher=fetch_token, proactive_refresh=True)
    # For type checkers: ChatClient takes any azure-core credential, but its annotation names a
    # private class, and those of its methods are not right either.
    client: Any = ChatClient(endpoint, cast("Any", credential), **options)
    with credential, client:
        # Identifiers are those of this package. What the clients return equals them.
        me, friend = map(CommunicationUserIdentifier, (alice.raw_id, bob.raw_id))
        invited = [ChatParticipant(identifier=friend, display_name="Bob")]
        created = client.create_chat_thread("Hello", thread_participants=invited)
        say("Created a chat thread.")
        with client.get_chat_thread_client(created.chat_thread.id, **options) as thread:
            for number in range(1, 9):
                thread.send_message(f"Message {number}", sender_display_name="Alice")
                say(f"Sent message {number}.")
                time.sleep(pause)
            people = [each.identifier for each in thread.list_participants()]
            mine = [each for each in thread.list_messages() if each.sender == me]
        say(f"Listed {len(people)} participants and {len(mine)} messages of Alice.")
        client.delete_chat_thread(created.chat_thread.id)

    identity.delete_user(alice)
    identity.delete_user(bob)
    say("Deleted the thread and the users.")
    return tokens


def run_here() -> int:
    with LocalService(token_lifetime=4) as service:
        say("Started a stand-in for the service. Its tokens live for 4 seconds.")
        options = service.client_options()  # have the clients trust its certificate
        identity = CommunicationIdentityClient.from_connection_string(
            service.connection_string, **options
        )
        refreshes = converse(identity, service.endpoint, pause=1, **options) - 1
        refused = service.statuses[401]
    say(f"The token was refreshed {refreshes} times. Requests answered with 401: {refused}.")
    return 0 if refreshes >= 2 and refused == 0 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Chat while the token is refreshed.")
    resource = parser.add_mutually_exclusive_group()
    resource.add_argument("--connection-string", help="of a resource, with its access key")
    resource.add_argument("--endpoint", help="of a resource that azure-identity gives access to")
    arguments = parser.parse_args()
    if arguments.connection_string:
        endpoint, key = parse_client_arguments(arguments.connection_string)
        identity = CommunicationIdentityClient(endpoint, key)
    elif arguments.endpoint:
        from azure.identity import DefaultAzureCredential  # which the other ways do not need

        endpoint = arguments.endpoint
        identity = CommunicationIdentityClient(endpoint, DefaultAzureCredential())
    else:
        return run_here()
    say("The tokens of a resource live for an hour or longer, so one is enough here.")
    converse(identity, endpoint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
