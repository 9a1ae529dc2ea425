"""One request of each SDK's client, with the resource's key and with an Entra token; JSON out.

They go to ``samples/local_service.py``, which answers 401 unless the signature is that of what
arrived, or the token is its own. A path or a body that is not ASCII is among them.
"""

import asyncio
import json
import warnings

from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import AzureError

from interop.matrix import module_of, settle
from interop.test_interop_matrix import CALLS
from local_service import LocalService

RESOURCE_SCOPE = "https://communication.azure.com//.default"
KEY_ALONE = "jobrouter"  # its clients take no token
EXPIRY = 4102444800


class Entra:
    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return AccessToken(self.token, EXPIRY)


class AsyncEntra(Entra):
    async def get_token(self, *scopes: str, **options: object) -> AccessToken:  # type: ignore[override]
        return super().get_token()


async def main() -> None:
    report = {}
    with LocalService(echo=True) as service:
        token = service.entra_token([RESOURCE_SCOPE])
        for sdk, (name, call) in CALLS.items():
            for aio in (False, True):
                for kind in ("connection string", "key", "Entra"):
                    if kind == "Entra" and sdk == KEY_ALONE:
                        continue
                    options = {"retry_total": 0, **service.client_options()}
                    client_class = getattr(module_of(sdk, aio=aio), name)
                    case = f"{sdk} {'aio' if aio else 'sync'} {kind}"
                    entra = (AsyncEntra if aio else Entra)(token)
                    credential = AzureKeyCredential(service.access_key) if kind == "key" else entra
                    client, before = None, len(service.requests)
                    try:
                        if kind == "connection string":
                            text = service.connection_string
                            client = client_class.from_connection_string(text, **options)
                        else:
                            client = client_class(service.endpoint, credential, **options)
                        await settle(call(client))
                    except (AzureError, KeyError):
                        pass  # the answer only says what was received
                    except Exception as error:
                        report[case] = [type(error).__name__, ""]
                    for received in service.requests[before:]:
                        header = received.headers.get("x-ms-return-client-request-id", "")
                        report[case] = [received.status, header]
                    if hasattr(client, "close"):
                        await settle(client.close())
    print(json.dumps(report))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(main())
