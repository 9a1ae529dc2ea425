"""The quickstart on asyncio: a user's token is refreshed by a timer of the event loop.

It does what quickstart.py does, with the ``aio`` classes of the same names. The callback is a
coroutine function, and nothing blocks the event loop while it runs.

Without arguments, it starts a stand-in for the service on this machine, whose tokens live for a few
seconds, and ends after ten. You see each message, each new token, and that no request was refused::

    python samples/quickstart_async.py

With a resource of your own, tokens live for an hour or longer. Then the same messages are sent with
one token and nothing waits for the next. The users and the thread are deleted in the end::

    python samples/quickstart_async.py --connection-string "endpoint=https://...;accesskey=..."
    python samples/quickstart_async.py --endpoint https://contoso.communication.azure.com

The endpoint alone is enough where azure-identity is installed and its DefaultAzureCredential may
manage the resource.
"""

import argparse
import asyncio
import sys
import time
from typing import Any, cast

from azure.communication.chat import ChatParticipant
from azure.communication.chat.aio import ChatClient
from azure.communication.common import CommunicationUserIdentifier, parse_client_arguments
from azure.communication.common.aio import CommunicationTokenCredential
from azure.communication.identity import CommunicationTokenScope
from azure.communication.identity.aio import CommunicationIdentityClient

from local_service import LocalService

STARTED = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:4.1f} s  {text}", flush=True)


async def converse(
    identity: CommunicationIdentityClient, endpoint: str, *, pause: float = 0, **options: Any
) -> int:
    """Send messages as a new user, with a pause of seconds after each; return the tokens needed."""
    alice, bob = await asyncio.gather(identity.create_user(), identity.create_user())
    say("Created two users, Alice and Bob.")
    tokens = 0

    async def fetch_token() -> str:
        nonlocal tokens
        issued = await identity.get_token(alice, [CommunicationTokenScope.CHAT])
        tokens += 1
        say(f"Fetched token {tokens} for Alice.")
        return issued.token

    credential = CommunicationTokenCredential(token_refresher=fetch_token, proactive_refresh=True)
    # For type checkers: ChatClient takes any azure-core credential, but its annotation names a
    # private class, and those of its methods are not right either.
    client: Any = ChatClient(endpoint, cast("Any", credential), **options)
    async with credential, client:
        # Identifiers are those of this package. What the clients return equals them.
        me, friend = map(CommunicationUserIdentifier, (alice.raw_id, bob.raw_id))
        invited = [ChatParticipant(identifier=friend, display_name="Bob")]
        created = await client.create_chat_thread("Hello", thread_participants=invited)
        say("Created a chat thread.")
        async with client.get_chat_thread_client(created.chat_thread.id, **options) as thread:
            for number in range(1, 9):
                await thread.send_message(f"Message {number}", sender_display_name="Alice")
                say(f"Sent message {number}.")
                await asyncio.sleep(pause)
            people = [each.identifier async for each in thread.list_participants()]
            mine = [each async for each in thread.list_messages() if each.sender == me]
        say(f"Listed {len(people)} participants and {len(mine)} messages of Alice.")
        await client.delete_chat_thread(created.chat_thread.id)

    await asyncio.gather(identity.delete_user(alice), identity.delete_user(bob))
    say("Deleted the thread and the users.")
    return tokens


async def run_here() -> int:
    with LocalService(token_lifetime=4) as service:
        say("Started a stand-in for the service. Its tokens live for 4 seconds.")
        options = service.client_options()  # have the clients trust its certificate
        async with CommunicationIdentityClient.from_connection_string(
            service.connection_string, **options
        ) as identity:
            refreshes = await converse(identity, service.endpoint, pause=1, **options) - 1
        refused = service.statuses[401]
    say(f"The token was refreshed {refreshes} times. Requests answered with 401: {refused}.")
    return 0 if refreshes >= 2 and refused == 0 else 1


async def main() -> int:
    parser = argparse.ArgumentParser(description="Chat while the token is refreshed.")
    resource = parser.add_mutually_exclusive_group()
    resource.add_argument("--connection-string", help="of a resource, with its access key")
    resource.add_argument("--endpoint", help="of a resource that azure-identity gives access to")
    arguments = parser.parse_args()
    if not (arguments.connection_string or arguments.endpoint):
        return await run_here()
    say("The tokens of a resource live for an hour or longer, so one is enough here.")
    if arguments.connection_string:
        endpoint, key = parse_client_arguments(arguments.connection_string)
        async with CommunicationIdentityClient(endpoint, key) as identity:
            await converse(identity, endpoint)
    else:
        from azure.identity.aio import DefaultAzureCredential  # which the other ways do not need

        async with (
            DefaultAzureCredential() as entra,
            CommunicationIdentityClient(arguments.endpoint, entra) as identity,
        ):
            await converse(identity, arguments.endpoint)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
