"""An encrypted token (JWE), which only the service can read: how long is it valid?

Run it without arguments; it needs no service. You see the expiry that the credential assumes, with
the warning that it logs once, and the expiry when you say how long such tokens live.
"""

import base64
import logging
import secrets
import time

from azure.communication.common import CommunicationTokenCredential

logging.basicConfig(format="  The log says: %(message)s")


def encrypted_token() -> str:
    """Return a text with the five parts of a JWE; all but the header are random here."""
    header = b'{"alg": "RSA-OAEP-256", "enc": "A256GCM"}'
    parts = header, *(secrets.token_bytes(size) for size in (256, 12, 200, 16))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


with CommunicationTokenCredential(encrypted_token()) as credential:
    left = credential.get_token().expires_on - time.time()
    print(f"By default, it is assumed to live for {left / 60:.0f} minutes.")

with CommunicationTokenCredential(
    token_refresher=encrypted_token, undecodable_token_lifetime=3600
) as credential:
    left = credential.get_token().expires_on - time.time()
    print(f"With undecodable_token_lifetime=3600, for {left / 60:.0f} minutes.")
