"""One program with the classes of azure-communication-chat, and again with those of this package.

``before`` has everything from azure-communication-chat. ``after`` is the result: the import
changes, a refresher may return the token alone, and what the client returned is distinguished by
its kind, because the client makes objects of its own classes. Both run against a stand-in for the
service on this machine, and you see that they send the same::

    python samples/migrate_from_shared/migrate.py
"""

import sys
import warnings
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from azure.communication.identity import CommunicationIdentityClient

sys.path.insert(0, str(Path(__file__).parents[1]))  # where local_service is
from local_service import LocalService


def before(endpoint: str, identity: Any, alice: str, bob: str, options: dict[str, Any]) -> int:
    """Invite Bob to a chat, and count who is there."""
    from azure.communication.chat import (
        ChatClient,
        ChatParticipant,
        CommunicationTokenCredential,
        CommunicationUserIdentifier,
    )

    def fetch_token() -> Any:
        return identity.get_token(CommunicationUserIdentifier(alice), ["chat"])

    credential = CommunicationTokenCredential(fetch_token().token, token_refresher=fetch_token)
    client: Any = ChatClient(endpoint, credential, **options)
    invited = ChatParticipant(identifier=CommunicationUserIdentifier(bob), display_name="Bob")
    thread_id = client.create_chat_thread("Hi", thread_participants=[invited]).chat_thread.id
    with client.get_chat_thread_client(thread_id, **options) as thread:
        thread.send_message("Hello, Bob")
        present = [each.identifier for each in thread.list_participants()]
    return sum(isinstance(each, CommunicationUserIdentifier) for each in present)


def after(endpoint: str, identity: Any, alice: str, bob: str, options: dict[str, Any]) -> int:
    """Invite Bob to a chat, and count who is there."""
    from azure.communication.chat import ChatClient, ChatParticipant
    from azure.communication.common import (
        CommunicationIdentifierKind,
        CommunicationTokenCredential,
        CommunicationUserIdentifier,
    )

    def fetch_token() -> str:
        token: str = identity.get_token(CommunicationUserIdentifier(alice), ["chat"]).token
        return token

    credential = CommunicationTokenCredential(token_refresher=fetch_token)
    client: Any = ChatClient(endpoint, cast("Any", credential), **options)  # for type checkers
    invited = ChatParticipant(identifier=CommunicationUserIdentifier(bob), display_name="Bob")
    thread_id = client.create_chat_thread("Hi", thread_participants=[invited]).chat_thread.id
    with client.get_chat_thread_client(thread_id, **options) as thread:
        thread.send_message("Hello, Bob")
        present = [each.identifier for each in thread.list_participants()]
    return sum(each.kind == CommunicationIdentifierKind.COMMUNICATION_USER for each in present)


def main() -> None:
    # The old credential calls what Python 3.12 deprecates.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="azure")
    with LocalService() as service:
        options = service.client_options()
        identity = CommunicationIdentityClient.from_connection_string(
            service.connection_string, **options
        )
        alice, bob = (identity.create_user().raw_id for _ in range(2))
        sent = []
        for program in (before, after):
            del service.requests[:]
            count = program(service.endpoint, identity, alice, bob, options)
            print(f"{program.__name__}: {count} users are in the chat.")
            thread_id = quote([*service.threads][-1], safe="")  # a new one each time
            sent.append(
                [
                    (each.method, each.target.replace(thread_id, "ID"), each.content, each.status)
                    for each in service.requests
                ]
            )
        if sent[0] != sent[1]:
            raise SystemExit("The requests differ.")
        print(f"Both sent the same {len(sent[0])} requests:")
        for method, target, _, status in sent[0]:
            print(f"  {status} {method} {target}")


if __name__ == "__main__":
    main()
