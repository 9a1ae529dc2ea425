"""A user of Microsoft Entra ID chats with their own account; the application holds no key.

The credential exchanges the user's Entra tokens at the resource, and does so again before the
Communication token expires.

Without arguments, a stand-in on this machine takes the place of Entra and of the service. With a
resource and an application of your own, a browser opens for the user to sign in::

    python samples/entra_user.py --endpoint https://contoso.communication.azure.com \
        --tenant-id ... --client-id ...
"""

import argparse
import time
from typing import Any, cast

from azure.communication.chat import ChatClient
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken, TokenCredential

from local_service import LocalService

SCOPES = [
    "https://communication.azure.com/clients/Chat",
    "https://communication.azure.com/clients/VoIP",
]


class StandInForEntra:
    """What azure-identity has a credential for: it returns Entra tokens of the scopes asked for."""

    def __init__(self, service: LocalService) -> None:
        self._service = service

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        print("Entra was asked for a token.")
        return AccessToken(self._service.entra_token(scopes, life=3600), int(time.time()) + 3600)


def chat(endpoint: str, entra: TokenCredential, **options: Any) -> None:
    """Create a thread as the Entra user, and send a message to it."""
    credential = CommunicationTokenCredential(
        resource_endpoint=endpoint, token_credential=entra, scopes=SCOPES, **options
    )
    # For type checkers: ChatClient takes any azure-core credential, but its annotation names a
    # private class.
    client: Any = ChatClient(endpoint, cast("Any", credential), **options)
    with credential, client:
        thread_id = client.create_chat_thread("From Entra").chat_thread.id
        with client.get_chat_thread_client(thread_id, **options) as thread:
            thread.send_message("Hello")
        client.delete_chat_thread(thread_id)
    print("Created a thread, sent a message, and deleted the thread.")


def main() -> None:
    parser = argparse.ArgumentParser(description="Chat as a user of Microsoft Entra ID.")
    parser.add_argument("--endpoint", help="of a resource; a stand-in on this machine unless given")
    parser.add_argument("--tenant-id", help="of the user")
    parser.add_argument("--client-id", help="of your application, which may use the resource")
    arguments = parser.parse_args()
    if arguments.endpoint:
        from azure.identity import InteractiveBrowserCredential  # which the stand-in does without

        given = {"tenant_id": arguments.tenant_id, "client_id": arguments.client_id}
        options = {name: value for name, value in given.items() if value}
        with InteractiveBrowserCredential(**options) as entra:
            chat(arguments.endpoint, entra)
    else:
        with LocalService() as service:
            chat(service.endpoint, StandInForEntra(service), **service.client_options())


if __name__ == "__main__":
    main()
