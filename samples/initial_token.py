"""A credential that starts with a token that you already have, such as one issued at sign-in.

Run it without arguments. A stand-in for the service creates a user together with a token for four
seconds. You see that the callback is not called until that token is about to expire.
"""

import time

from azure.communication.common import CommunicationTokenCredential
from azure.communication.identity import CommunicationIdentityClient, CommunicationTokenScope

from local_service import LocalService

with LocalService(token_lifetime=4) as service:
    identity = CommunicationIdentityClient.from_connection_string(
        service.connection_string, **service.client_options()
    )
    user, issued = identity.create_user_and_token([CommunicationTokenScope.CHAT])

    def fetch_token() -> str:
        print("  The callback asks the service for a token.")
        return identity.get_token(user, [CommunicationTokenScope.CHAT]).token

    with CommunicationTokenCredential(issued.token, token_refresher=fetch_token) as credential:
        print("A client asks at once.")
        first = credential.get_token()
        print("It gets the first token:", first.token == issued.token)

        time.sleep(first.expires_on - time.time() - 1.5)
        print("A client asks shortly before the token expires.")
        print("It gets a new token:", credential.get_token() is not first)
