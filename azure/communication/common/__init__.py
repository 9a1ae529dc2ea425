"""What every Azure Communication Services library needs: credential, identifiers, authentication.

Each name below loads its module on first use, so an application that only reads identifiers loads
neither azure-core nor PyJWT when it starts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import VERSION as __version__  # noqa: N811 - the name that tools look for

if TYPE_CHECKING:
    from ._connection import parse_client_arguments, parse_connection_string
    from ._hmac import HMACCredentialsPolicy
    from ._identifiers import (
        CommunicationCloudEnvironment,
        CommunicationIdentifier,
        CommunicationIdentifierKind,
        CommunicationUserIdentifier,
        CommunicationUserProperties,
        MicrosoftTeamsAppIdentifier,
        MicrosoftTeamsAppProperties,
        MicrosoftTeamsUserIdentifier,
        MicrosoftTeamsUserProperties,
        PhoneNumberIdentifier,
        PhoneNumberProperties,
        TeamsExtensionUserIdentifier,
        TeamsExtensionUserProperties,
        UnknownIdentifier,
        identifier_from_raw_id,
    )
    from ._serialization import deserialize_identifier, serialize_identifier
    from ._sync._credential import AzureCommunicationTokenCredential, CommunicationTokenCredential
    from ._sync._policies import get_authentication_policy

__all__ = [
    "AzureCommunicationTokenCredential",
    "CommunicationCloudEnvironment",
    "CommunicationIdentifier",
    "CommunicationIdentifierKind",
    "CommunicationTokenCredential",
    "CommunicationUserIdentifier",
    "CommunicationUserProperties",
    "HMACCredentialsPolicy",
    "MicrosoftTeamsAppIdentifier",
    "MicrosoftTeamsAppProperties",
    "MicrosoftTeamsUserIdentifier",
    "MicrosoftTeamsUserProperties",
    "PhoneNumberIdentifier",
    "PhoneNumberProperties",
    "TeamsExtensionUserIdentifier",
    "TeamsExtensionUserProperties",
    "UnknownIdentifier",
    "__version__",
    "deserialize_identifier",
    "get_authentication_policy",
    "identifier_from_raw_id",
    "parse_client_arguments",
    "parse_connection_string",
    "serialize_identifier",
]

# The modules of the names that are not identifiers; all others are in _identifiers.
_MODULES = {
    "AzureCommunicationTokenCredential": "_sync._credential",
    "CommunicationTokenCredential": "_sync._credential",
    "HMACCredentialsPolicy": "_hmac",
    "deserialize_identifier": "_serialization",
    "get_authentication_policy": "_sync._policies",
    "parse_client_arguments": "_connection",
    "parse_connection_string": "_connection",
    "serialize_identifier": "_serialization",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = import_module(f"{__name__}.{_MODULES.get(name, '_identifiers')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
