"""Rules about bearer tokens in requests, for the pipeline policies and the Entra exchange.

A 401 may come to a request that cannot be sent a second time, and long after others have replaced
the token that it carried. So the rules speak of the request as it was sent, never of what a
credential or a policy holds by now.
"""

import inspect
from typing import Any

from azure.core.credentials import TokenRequestOptions
from azure.core.pipeline import PipelineRequest

from ._connection import is_token_credential

SCOPE = "https://communication.azure.com//.default"


def check_token_credential(credential: object, argument: str, *, sync: bool) -> None:
    """Check that a credential can be asked for tokens, by code that awaits or by code that cannot.

    :param credential: The credential.
    :param str argument: What the error calls it.
    :keyword bool sync: Whether the caller cannot await.
    :raises TypeError: If it cannot be asked.
    """
    name = type(credential).__name__
    if not is_token_credential(credential):
        msg = f"{argument} must be a token credential, such as one of azure-identity, not {name}"
        raise TypeError(msg)
    methods = [getattr(credential, each, None) for each in ("get_token", "get_token_info")]
    if sync and any(map(inspect.iscoroutinefunction, methods)):
        msg = (
            f"{argument} is an async credential ({name}): use its synchronous form, or the "
            "function or class of the same name in azure.communication.common.aio"
        )
        raise TypeError(msg)


def sent_token(request: PipelineRequest[Any]) -> str:
    """Return the bearer token that a request carries."""
    authorization: str = request.http_request.headers.get("Authorization", "")
    return authorization.removeprefix("Bearer ")


def can_be_sent_again(http_request: Any) -> bool:
    """Tell whether the body of a request can be read a second time, as streams cannot.

    Files count as streams.
    """
    body, files = http_request.data, http_request.files
    return not files and (
        body is None or isinstance(body, (str, bytes, bytearray, memoryview, dict))
    )


def ask(credential: Any, scopes: tuple[str, ...], options: TokenRequestOptions) -> Any:
    """Ask a credential for a token by the method that it has; its answer may be an awaitable."""
    if hasattr(credential, "get_token_info"):
        return credential.get_token_info(*scopes, options=options)
    return credential.get_token(*scopes, **options)


def invalidate(credential: Any, token: str) -> None:
    """Tell a credential, if it wants to know, that the service refused a token."""
    if hasattr(credential, "invalidate_token"):
        credential.invalidate_token(token)
