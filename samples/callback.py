"""A callback that fetches a new token when a client asks and the old one is about to expire.

Run it without arguments. A stand-in for the service issues tokens for four seconds. You see when
the callback runs: for the first token, and again in the second half of that token's life. (With a
longer life, it is the last two minutes.) You also see who gets its error.
"""

import time

from azure.communication.common import CommunicationTokenCredential
from azure.communication.identity import CommunicationIdentityClient, CommunicationTokenScope
from azure.core.exceptions import HttpResponseError

from local_service import Answer, LocalService

with LocalService(token_lifetime=4) as service:
    identity = CommunicationIdentityClient.from_connection_string(
        service.connection_string, **service.client_options()
    )
    user = identity.create_user()

    def fetch_token() -> str:
        print("  The callback asks the service for a token.")
        return identity.get_token(user, [CommunicationTokenScope.CHAT]).token

    with CommunicationTokenCredential(token_refresher=fetch_token) as credential:
        print("The credential is created. Nothing is fetched until a client asks for a token.")
        service.script("POST /identities/{id}/:issueAccessToken", Answer(403))
        try:
            credential.get_token()
        except HttpResponseError as error:
            print(
                f"  It failed, and without a valid token the client gets the error: {error.reason}."
            )

        print("The client asks again.")
        first = credential.get_token()
        print("Another client asks. It gets the same token:", credential.get_token() is first)

        time.sleep(first.expires_on - time.time() - 1.5)
        print("A client asks shortly before the token expires.")
        print("It gets a new token:", credential.get_token() is not first)
