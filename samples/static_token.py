"""A credential created from a static token, for a script that ends before the token expires.

Run it without arguments. A stand-in for the service issues a token for an hour to a new user, who
creates a chat thread with it. You see when the token expires, and that printing a credential shows
no token.
"""

import time
from typing import Any, cast

from azure.communication.chat import ChatClient
from azure.communication.common import CommunicationTokenCredential
from azure.communication.identity import CommunicationIdentityClient, CommunicationTokenScope

from local_service import LocalService

with LocalService(token_lifetime=3600) as service:
    options = service.client_options()
    identity = CommunicationIdentityClient.from_connection_string(
        service.connection_string, **options
    )
    user, issued = identity.create_user_and_token([CommunicationTokenScope.CHAT])

    credential = CommunicationTokenCredential(issued.token)
    print("The credential prints as", credential)
    seconds = credential.get_token().expires_on - time.time()
    print(f"Its token, the only one it ever returns, expires in {seconds / 60:.0f} minutes.")

    client: Any = ChatClient(service.endpoint, cast("Any", credential), **options)
    with credential, client:
        client.create_chat_thread("Hello")
        print("The user is now in this chat:", *(each.topic for each in client.list_chat_threads()))
