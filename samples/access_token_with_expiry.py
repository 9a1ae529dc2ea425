"""A callback that returns a token with its expiry, for a back end whose tokens cannot be read.

Run it without arguments; it needs no service. The back end is a function here. It answers with an
opaque token, which no client can read, and with the seconds for which it lives. You see that the
credential uses the expiry that the callback returns.
"""

import secrets
import time
from typing import Any

from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken


def ask_back_end() -> dict[str, Any]:
    return {"token": secrets.token_urlsafe(), "expires_in": 1800}


def fetch_token() -> AccessToken:
    answer = ask_back_end()
    print("  The back end issues a token for", answer["expires_in"], "seconds.")
    return AccessToken(answer["token"], int(time.time()) + answer["expires_in"])


with CommunicationTokenCredential(token_refresher=fetch_token) as credential:
    print("A client asks for a token.")
    token = credential.get_token_info()
    print(f"It expires in {(token.expires_on - time.time()) / 60:.0f} minutes.")
    if token.refresh_on is not None:  # as it is for a static token
        left = token.refresh_on - time.time()
        print(f"A client that keeps it should ask again in {left / 60:.0f} minutes.")
