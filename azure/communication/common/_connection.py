"""Connection strings, endpoints and access keys: text in, checked values out.

All of this text is a secret or contains one, so an error says which part is wrong and never quotes
it.

azure-core is imported only where an ``AzureKeyCredential`` is checked or created: reading an
endpoint does not need it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
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
# Before Python 3.13, b64decode(validate=True) tolerates excess padding; and its error would remain
# reachable as the context of ours.
_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_HOST = re.compile(r"\.?(?:[a-z0-9_-]+\.)+[a-z][a-z0-9-]*", re.ASCII)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_CONNECTION_STRING_FORM = (
    "endpoint=https://<host>/;accesskey=<key>, as the portal shows it under Keys"
)

# Far longer than real ones, and short enough to be read quickly.
_LONGEST_CONNECTION_STRING = 4096
_LONGEST_ENDPOINT = 300  # a host name has at most 253 characters

_BYTES = (bytes, bytearray, memoryview)


class ConnectionString(NamedTuple):
    """The two values of a connection string; its ``repr`` does not show the key."""

    endpoint: str
    access_key: str

    def __repr__(self) -> str:
        return f"ConnectionString(endpoint={self.endpoint!r}, access_key=<hidden>)"


def parse_connection_string(connection_string: str) -> ConnectionString:
    """Split the connection string of a Communication Services resource.

    The form is ``endpoint=https://<host>/;accesskey=<key>``. The parts may come in any order and
    their names in any case. White space around the string, the names and the values, such as the
    line end of a file, is ignored, as are a trailing semicolon and parts with other names. An
    endpoint without a scheme is https.

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

    A client is created either from a connection string alone or from an endpoint and a credential.

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
    first = connection_string_or_endpoint
    if not isinstance(first, str):
        remedy = _remedy_for_type(first)
        if isinstance(credential, str):
            remedy = ". Are the arguments swapped?"
        msg = f"connection_string_or_endpoint must be a str, not {_name(first)}{remedy}"
        raise TypeError(msg)
    if credential is None:
        if _is_endpoint(first):
            msg = (
                "connection_string_or_endpoint is an endpoint, so credential must not be None: "
                "pass an access key or a token credential, or pass the connection string alone"
            )
            raise ValueError(msg)
        endpoint, access_key = _parse_connection_string(first, "connection_string_or_endpoint")
        return endpoint, as_key_credential(access_key)
    if _looks_like_connection_string(first):
        msg = (
            "connection_string_or_endpoint is a connection string, which contains its own key: "
            "pass it without a credential, or pass https://<host> with one"
        )
        raise ValueError(msg)
    if isinstance(credential, str) and _is_endpoint(credential) and not _is_endpoint(first):
        msg = (
            "credential is an endpoint and connection_string_or_endpoint is not: swap the arguments"
        )
        raise ValueError(msg)
    credential = as_credential(credential)
    return parse_endpoint(first, "connection_string_or_endpoint"), credential


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
        msg = f"{argument} must be a str, not {_name(endpoint)}{_remedy_for_type(endpoint)}"
        raise TypeError(msg)
    if _is_endpoint(endpoint):
        return endpoint.removesuffix("/")
    form = "https://<host>[:<port>], such as https://contoso.communication.azure.com"
    if _looks_like_connection_string(endpoint):
        msg = f"{argument} is a connection string: pass {form}, or use parse_connection_string()"
    elif _looks_like_access_key(endpoint):
        msg = f"{argument} looks like an access key, not an endpoint: pass {form}"
    else:
        fault = _fault(endpoint)
        msg = f"{argument} must be {form}, without user name, path, query or fragment{fault}"
    raise ValueError(msg)


def _fault(endpoint: str) -> str:
    scheme, separator, rest = endpoint.partition("://")
    if not separator:
        return "; https:// is missing" if endpoint else "; it is empty"
    if scheme.strip().lower() != "https":
        return "; it is not https"
    return "; it has a path" if "/" in rest[:-1] else ""


def parse_additional_hosts(additional_hosts: Sequence[str]) -> tuple[str, ...]:
    """Check the names of further hosts that may receive a credential, and return them in lower
    case.

    :param additional_hosts: Host names; one with a leading dot stands for any subdomain.
    :type additional_hosts: ~collections.abc.Sequence[str]
    :return: The names.
    :rtype: tuple[str, ...]
    :raises TypeError: If it is not a sequence of ``str``.
    :raises ValueError: If a name is not a host name with a dot inside, or has a scheme, a port, a
     path or user information.
    """
    if isinstance(additional_hosts, (str, *_BYTES)) or not isinstance(additional_hosts, Sequence):
        kind = _name(additional_hosts)
        msg = f"additional_hosts must be a list or tuple of host names, not {kind}"
        raise TypeError(msg)
    hosts = []
    for number, host in enumerate(additional_hosts):
        if not isinstance(host, str):
            msg = f"additional_hosts[{number}] must be a str, not {_name(host)}"
            raise TypeError(msg)
        # Only ASCII is lower-cased, or a Kelvin sign would become a k.
        lower = host.lower() if host.isascii() and len(host) <= _LONGEST_ENDPOINT else ""
        if not _HOST.fullmatch(lower):
            msg = (
                f"additional_hosts[{number}] must be a host name with a dot inside, such as "
                "'storage.example.com', or '.example.com' for any subdomain, without scheme, port "
                "or path"
            )
            raise ValueError(msg)
        hosts.append(lower)
    return tuple(hosts)


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
        msg = f"{argument} must be a str, not {_name(access_key)}{_remedy_for_type(access_key)}"
        raise TypeError(msg)
    if access_key and _BASE64.fullmatch(access_key):
        return base64.b64decode(access_key)
    if _looks_like_connection_string(access_key):
        msg = f"{argument} is a connection string: use parse_connection_string() to get its key"
    elif _is_endpoint(access_key):
        msg = f"{argument} is an endpoint, not an access key. Are the arguments swapped?"
    elif _looks_like_jwt(access_key):
        msg = (
            f"{argument} looks like a user's token, not an access key: pass "
            "CommunicationTokenCredential(token) as the credential"
        )
    else:
        msg = (
            f"{argument} is not a base64 access key: copy it, with any '=' at its end, from Keys "
            "on the resource's page in the Azure portal"
        )
    raise ValueError(msg)


def is_token_credential(credential: object) -> bool:
    """Return whether a credential follows one of azure-core's four token credential protocols."""
    return hasattr(credential, "get_token") or hasattr(credential, "get_token_info")


def as_credential(credential: Any) -> Any:
    """Return a token credential as it is, and an access key as an ``AzureKeyCredential``.

    :param credential: The credential of a client.
    :raises TypeError: If it is neither.
    :raises ValueError: If it is a key that is not base64. The message does not contain it.
    """
    if is_token_credential(credential):
        return credential
    expected = "a token credential or an access key (str or AzureKeyCredential)"
    return as_key_credential(credential, "credential", expected)


def as_key_credential(
    access_key: str | AzureKeyCredential,
    argument: str = "access_key",
    expected: str = "a str or an AzureKeyCredential",
) -> AzureKeyCredential:
    """Check an access key and return it as an ``AzureKeyCredential``, whose key may be rotated.

    :param access_key: An access key.
    :type access_key: str or ~azure.core.credentials.AzureKeyCredential
    :param str argument: What error messages call it.
    :param str expected: What they say was expected.
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
    remedy = _remedy_for_type(access_key)
    if hasattr(access_key, "token"):  # an AccessToken, for example
        remedy = ": pass CommunicationTokenCredential(token) as the credential"
    msg = f"{argument} must be {expected}, not {_name(access_key)}{remedy}"
    raise TypeError(msg)


def _parse_connection_string(connection_string: str, argument: str) -> ConnectionString:
    if not isinstance(connection_string, str):
        remedy = _remedy_for_type(connection_string)
        msg = f"{argument} must be a str, not {_name(connection_string)}{remedy}"
        raise TypeError(msg)
    if len(connection_string) > _LONGEST_CONNECTION_STRING:
        msg = (
            f"{argument} must be {_CONNECTION_STRING_FORM}; it has {len(connection_string)} "
            "characters"
        )
        raise ValueError(msg)
    if _looks_like_access_key(connection_string):
        msg = f"{argument} looks like an access key: pass {_CONNECTION_STRING_FORM}"
        raise ValueError(msg)
    values: dict[str, str] = {}
    for number, part in enumerate(connection_string.split(";"), start=1):
        name, separator, value = part.partition("=")
        name, value = name.strip().lower(), value.strip()
        if _CONTROL_CHARACTER.search(name) or _CONTROL_CHARACTER.search(value):
            msg = f"{argument} must not contain control characters, such as line ends: remove them"
            raise ValueError(msg)
        if not separator and name:
            msg = f"{argument} must be {_CONNECTION_STRING_FORM}; part {number} has no '='"
            raise ValueError(msg)
        if name in ("endpoint", "accesskey"):
            if name in values:
                msg = f"{argument} must be {_CONNECTION_STRING_FORM}; it has {name} twice"
                raise ValueError(msg)
            values[name] = value
    for name in ("endpoint", "accesskey"):
        if not values.get(name):
            msg = f"{argument} must be {_CONNECTION_STRING_FORM}; it has no {name}"
            raise ValueError(msg)
    endpoint = with_scheme(values["endpoint"])
    access_key = values["accesskey"]
    parse_access_key(access_key, f"the accesskey in {argument}")
    return ConnectionString(parse_endpoint(endpoint, f"the endpoint in {argument}"), access_key)


def with_scheme(endpoint: str) -> str:
    """Return an endpoint with its scheme, which is https if the endpoint is a bare host."""
    if "://" in endpoint or _looks_like_access_key(endpoint):
        return endpoint
    return f"https://{endpoint}"


def _is_endpoint(text: str) -> bool:
    match = _ENDPOINT.fullmatch(text) if len(text) <= _LONGEST_ENDPOINT else None
    return match is not None and 0 < int(match[1] or 443) < 65536


def _looks_like_connection_string(text: str) -> bool:
    return "accesskey=" in text[:_LONGEST_CONNECTION_STRING].lower()


def _looks_like_access_key(text: str) -> bool:
    return len(text) >= 40 and _BASE64.fullmatch(text) is not None


def _looks_like_jwt(text: str) -> bool:
    return text.startswith("eyJ") and text.count(".") >= 2


def _name(value: object) -> str:
    return type(value).__name__


def _remedy_for_type(value: object) -> str:
    if isinstance(value, _BYTES):
        return ": decode it"
    if value is None:
        return ": is the setting it comes from missing?"
    return ""
