"""Connection strings, endpoints and access keys: text in, checked values out.

All of this text is, or stands beside, a secret, so a message says which part is wrong and never
quotes it.

azure-core is imported only where an ``AzureKeyCredential`` is met or made: reading an endpoint does
not need it.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

if TYPE_CHECKING:
    from azure.core.credentials import AzureKeyCredential, SupportsTokenInfo, TokenCredential
    from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential

    _TokenCredentialT = TypeVar(
        "_TokenCredentialT",
        bound=TokenCredential | SupportsTokenInfo | AsyncTokenCredential | AsyncSupportsTokenInfo,
    )

# ASCII, or IGNORECASE would let the long s and the Kelvin sign into a host name.
_ENDPOINT = re.compile(
    r"https://(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f.]*:[0-9a-f:.]*\])(?::([0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)
# Before Python 3.13, b64decode(validate=True) puts up with needless padding; and its error would
# stay reachable as the context of ours.
_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_CONNECTION_STRING_FORM = (
    "endpoint=https://<host>/;accesskey=<key>, as the Azure portal shows it under Keys"
)


class ConnectionString(NamedTuple):
    """The two values of a connection string; its ``repr`` does not show the key."""

    endpoint: str
    access_key: str

    def __repr__(self) -> str:
        return f"ConnectionString(endpoint={self.endpoint!r}, access_key=<hidden>)"


def parse_connection_string(connection_string: str) -> ConnectionString:
    """Split the connection string of a Communication Services resource.

    The form is ``endpoint=https://<host>/;accesskey=<key>``. The parts may come in any order, their
    names in any case, with spaces around names and values and a semicolon at the end. Parts of
    other names are ignored.

    :param str connection_string: The connection string, as the Azure portal shows it under Keys.
    :return: The endpoint, ``https://<host>[:<port>]`` without a trailing slash, and the base64 key.
    :rtype: tuple[str, str]
    :raises TypeError: If ``connection_string`` is not a ``str``.
    :raises ValueError: If a part is missing, empty, given twice or malformed. The message does not
     contain the connection string.
    """
    return _parse_connection_string(connection_string, "connection_string")


@overload
def parse_client_arguments(
    connection_string_or_endpoint: str, credential: str | AzureKeyCredential | None = None
) -> tuple[str, AzureKeyCredential]: ...
@overload
def parse_client_arguments(
    connection_string_or_endpoint: str, credential: _TokenCredentialT
) -> tuple[str, _TokenCredentialT]: ...
def parse_client_arguments(
    connection_string_or_endpoint: str, credential: Any = None
) -> tuple[str, Any]:
    """Read the two arguments that the constructor of a Communication Services client takes.

    A client is made either from a connection string alone or from an endpoint and a credential.

    :param str connection_string_or_endpoint: Without a credential, the connection string of the
     resource; with one, its endpoint, ``https://<host>[:<port>]``.
    :param credential: An access key, an ``AzureKeyCredential``, or a token credential, sync or
     async.
    :type credential: str or ~azure.core.credentials.AzureKeyCredential or
     ~azure.core.credentials.TokenCredential or ~azure.core.credentials.SupportsTokenInfo or None
    :return: The endpoint without a trailing slash, and the credential: the one that was given, or
     an ``AzureKeyCredential`` that holds the access key.
    :rtype: tuple[str, ~azure.core.credentials.AzureKeyCredential or
     ~azure.core.credentials.TokenCredential or ~azure.core.credentials.SupportsTokenInfo]
    :raises TypeError: If an argument is of another type.
    :raises ValueError: If the connection string, the endpoint or the access key is malformed. The
     message does not contain it.
    """
    if credential is None:
        endpoint, access_key = _parse_connection_string(
            connection_string_or_endpoint,
            "connection_string_or_endpoint, given without a credential,",
        )
        return endpoint, as_key_credential(access_key)
    if not is_token_credential(credential):
        credential = as_key_credential(credential, "credential, unless it is a token credential,")
    return (
        parse_endpoint(
            connection_string_or_endpoint, "connection_string_or_endpoint, given with a credential,"
        ),
        credential,
    )


def parse_endpoint(endpoint: str, argument: str = "endpoint") -> str:
    """Check an endpoint, ``https://<host>[:<port>]``, and return it without a trailing slash.

    :param str endpoint: The endpoint of a Communication Services resource.
    :param str argument: What error messages call it.
    :return: The endpoint without a trailing slash, in the letter case that was given.
    :rtype: str
    :raises TypeError: If ``endpoint`` is not a ``str``.
    :raises ValueError: If it is not an endpoint. The message does not contain it.
    """
    if not isinstance(endpoint, str):
        msg = f"{argument} must be a str, not {type(endpoint).__name__}"
        raise TypeError(msg)
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match[1] or 443) < 65536:
        msg = (
            f"{argument} must be https://<host>, optionally with a port and a trailing slash, but "
            "without user name, path, query or fragment, such as "
            "https://contoso.communication.azure.com"
        )
        raise ValueError(msg)
    return endpoint.removesuffix("/")


def parse_access_key(access_key: str, argument: str = "access_key") -> bytes:
    """Decode a base64 access key.

    :param str access_key: The access key, in padded base64 of the standard alphabet.
    :param str argument: What error messages call it.
    :return: The bytes to sign with.
    :rtype: bytes
    :raises TypeError: If ``access_key`` is not a ``str``.
    :raises ValueError: If it is not base64, or empty. The message does not contain it.
    """
    if not isinstance(access_key, str):
        msg = f"{argument} must be a str, not {type(access_key).__name__}"
        raise TypeError(msg)
    if not access_key or not _BASE64.fullmatch(access_key):
        msg = (
            f"{argument} is not a base64 access key: copy it, with any '=' at its end, from Keys "
            "on the resource's page in the Azure portal"
        )
        raise ValueError(msg)
    return base64.b64decode(access_key)


def is_token_credential(credential: object) -> bool:
    """Tell whether a credential follows one of azure-core's four token credential protocols."""
    return hasattr(credential, "get_token") or hasattr(credential, "get_token_info")


def as_key_credential(
    access_key: str | AzureKeyCredential, argument: str = "access_key"
) -> AzureKeyCredential:
    """Return the access key as an ``AzureKeyCredential``, whose key may be rotated; it is checked.

    :param access_key: An access key.
    :type access_key: str or ~azure.core.credentials.AzureKeyCredential
    :param str argument: What error messages call it.
    :return: The same credential, or a new one that holds the ``str``.
    :rtype: ~azure.core.credentials.AzureKeyCredential
    :raises TypeError: If ``access_key`` is neither.
    :raises ValueError: If the key is not base64, or empty. The message does not contain it.
    """
    from azure.core.credentials import AzureKeyCredential

    if isinstance(access_key, AzureKeyCredential):
        parse_access_key(access_key.key, argument)
        return access_key
    if isinstance(access_key, str):
        parse_access_key(access_key, argument)
        return AzureKeyCredential(access_key)
    msg = f"{argument} must be a str or an AzureKeyCredential, not {type(access_key).__name__}"
    raise TypeError(msg)


def _parse_connection_string(connection_string: str, argument: str) -> ConnectionString:
    if not isinstance(connection_string, str):
        msg = f"{argument} must be a str, not {type(connection_string).__name__}"
        raise TypeError(msg)
    if _CONTROL_CHARACTER.search(connection_string):
        msg = f"{argument} must not contain control characters, such as line ends: remove them"
        raise ValueError(msg)
    values: dict[str, str] = {}
    for number, part in enumerate(connection_string.split(";"), start=1):
        name, separator, value = part.partition("=")
        name = name.strip(" ").lower()
        if not separator and name:
            msg = f"{argument} must be {_CONNECTION_STRING_FORM}; part {number} has no '='"
            raise ValueError(msg)
        if name in ("endpoint", "accesskey"):
            if name in values:
                msg = f"{argument} must be {_CONNECTION_STRING_FORM}; it has {name} twice"
                raise ValueError(msg)
            values[name] = value.strip(" ")
    for name in ("endpoint", "accesskey"):
        if not values.get(name):
            msg = f"{argument} must be {_CONNECTION_STRING_FORM}; it has no {name}"
            raise ValueError(msg)
    endpoint = parse_endpoint(values["endpoint"], f"the endpoint in {argument}")
    parse_access_key(values["accesskey"], f"the accesskey in {argument}")
    return ConnectionString(endpoint, values["accesskey"])
