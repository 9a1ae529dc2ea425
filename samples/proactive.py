"""A token that is refreshed in the background, so that no client ever waits for one.

Run it without arguments. A stand-in for the service issues tokens for two seconds. You see that
the callback runs although nobody asks for a token: at once, and then at half of each token's life.
(With a longer life, it is ten minutes before the end.) It stops when the credential is closed.
"""

import threading
import time

from azure.communication.common import CommunicationTokenCredential
from azure.communication.identity import CommunicationIdentityClient, CommunicationTokenScope

from local_service import LocalService

with LocalService(token_lifetime=2) as service:
    identity = CommunicationIdentityClient.from_connection_string(
        service.connection_string, **service.client_options()
    )
    user = identity.create_user()

    def fetch_token() -> str:
        print("The callback runs on the thread", threading.current_thread().name)
        return identity.get_token(user, [CommunicationTokenScope.CHAT]).token

    print("The credential is made, and nobody asks it for a token.")
    with CommunicationTokenCredential(token_refresher=fetch_token, proactive_refresh=True):
        time.sleep(3)

    print("The credential is closed. Tokens fetched so far:", service.issued[user.raw_id])
    time.sleep(2)
    print("Tokens fetched after two more seconds:", service.issued[user.raw_id])
