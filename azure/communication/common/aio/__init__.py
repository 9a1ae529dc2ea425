"""The asynchronous counterparts of the credential and the policies, under the same names."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._hmac import HMACCredentialsPolicy
    from ._credential import AzureCommunicationTokenCredential, CommunicationTokenCredential
    from ._policies import get_authentication_policy

__all__ = [
    "AzureCommunicationTokenCredential",
    "CommunicationTokenCredential",
    "HMACCredentialsPolicy",
    "get_authentication_policy",
]

_MODULES = {
    "AzureCommunicationTokenCredential": "aio._credential",
    "CommunicationTokenCredential": "aio._credential",
    "HMACCredentialsPolicy": "_hmac",
    "get_authentication_policy": "aio._policies",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = import_module(f"azure.communication.common.{_MODULES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
