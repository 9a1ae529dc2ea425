"""A client of your own for the REST API, with an access key, on any azure-core pipeline.

``get_authentication_policy`` makes the policy that signs each request. It takes a key as well as a
token credential, so a client need not tell them apart.

Without arguments, a stand-in for the service on this machine answers. With a resource::

    python samples/access_key.py "endpoint=https://contoso.communication.azure.com/;accesskey=..."
"""

import sys
from typing import Any

from azure.communication.common import (
    CommunicationTokenCredential,
    get_authentication_policy,
    parse_client_arguments,
)
from azure.core import PipelineClient
from azure.core.pipeline.policies import RetryPolicy
from azure.core.rest import HttpRequest

from local_service import LocalService


def manage_a_user(connection_string: str, **options: Any) -> None:
    endpoint, credential = parse_client_arguments(connection_string)
    # After the retry policy, since each attempt needs its own signature.
    policies = [RetryPolicy[Any, Any](), get_authentication_policy(endpoint, credential)]
    client = PipelineClient[Any, Any](endpoint, policies=policies, **options)

    def call(method: str, path: str, **body: Any) -> Any:
        url = f"{endpoint}/identities{path}?api-version=2023-10-01"
        response = client.send_request(HttpRequest(method, url, json=body or None))
        response.raise_for_status()
        return response.json() if response.content else None

    with client:
        created = call("POST", "", createTokenWithScopes=["chat"], expiresInMinutes=60)
        user_id = created["identity"]["id"]
        print("Created a user, and a token for them.")
        with CommunicationTokenCredential(created["accessToken"]["token"]) as user:
            print(f"It is valid until {created['accessToken']['expiresOn']}: {user!r}")
        call("POST", f"/{user_id}/:revokeAccessTokens")
        call("DELETE", f"/{user_id}")
        print("Revoked the token, and deleted the user.")


def main() -> None:
    if len(sys.argv) > 1:
        manage_a_user(sys.argv[1])
        return
    with LocalService() as service:
        manage_a_user(service.connection_string, **service.client_options())


if __name__ == "__main__":
    main()
