"""Access-key authentication: signing a request as it will be sent.

The service computes the signature over the request line and the body that it receives, so what has
to be signed is not ``request.url`` but what the transport makes of it. As seen on a raw socket,
with azure-core 1.31 to 1.41: ``requests`` upper-cases escapes, drops unnecessary ones, removes dot
segments and escapes characters that are not allowed in a URL; ``aiohttp`` does the same and also
decodes escapes of characters that need none (``8%3Aacs`` is sent as ``8:acs``, ``x=%2F`` as
``x=/``, a space in a query as ``+``). There is no form that both leave unchanged, and their
releases differ, so a URL that is not plain is passed through the very library that will send it.
The request's own URL and body are not changed.

Known limit: any other kind of transport is assumed to send what ``requests`` would.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sys
import time
from binascii import b2a_base64
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from azure.core.credentials import AzureKeyCredential  # noqa: TC002 - for get_type_hints()
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.core.rest import HttpRequest

from ._bearer import Destinations
from ._connection import (
    as_key_credential,
    parse_access_key,
    parse_additional_hosts,
    parse_endpoint,
    with_scheme,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from azure.core.pipeline import PipelineRequest

# A URL that is sent as it is, by requests always, by aiohttp if it has no escapes: no leading
# double slash, no segment that begins with a dot, no empty query, only characters that need no
# escape, and upper-case escapes of characters that do. Every repetition begins with a character
# that the one inside it cannot match, so that matching takes linear time.
_BARE = "-A-Za-z0-9._~!$&'()*+,;=:@"
_ESCAPE = "%(?:2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[B-D]|[89A-F][0-9A-F])"
_SENT_AS_IS = re.compile(
    rf"https?://[^/?#]+(?!//)"
    rf"((?:/(?!\.)[{_BARE}]*(?:{_ESCAPE}[{_BARE}]*)*)+"
    rf"(?:\?(?=.)[{_BARE}/?]*(?:{_ESCAPE}[{_BARE}/?]*)*)?)"
)

# No service accepts URLs that long, and the libraries are slow to quote them.
_LONGEST_URL = 32_768
_LONGEST_CHAIN_OF_TRANSPORTS = 10


class HMACCredentialsPolicy(SansIOHTTPPolicy[Any, Any]):
    """Signs requests with an access key, in a ``Pipeline`` or an ``AsyncPipeline``.

    It belongs after the retry policy, so that each attempt is signed anew. It sets the headers
    ``Host``, ``x-ms-date``, ``x-ms-content-sha256``, ``x-ms-return-client-request-id`` and
    ``Authorization``, and leaves the URL and the body as they are. Safe to share between threads
    and event loops; it never blocks.

    :param str endpoint: The endpoint of the resource, ``https://<host>[:<port>]``, or its host
     alone.
    :param access_key: The access key, in base64. The key of an ``AzureKeyCredential`` is read for
        each request, so a rotated key takes effect at once.
    :type access_key: str or ~azure.core.credentials.AzureKeyCredential
    :keyword additional_hosts: Further hosts of the service that may receive signed requests, over
        https on its default port: a host name, or one with a leading dot for any subdomain, such as
        ``.asm.skype.com``. A request to one of them is signed for the resource's host, which is
        sent as ``x-ms-host``, and ``Host`` is left to the transport.
    :paramtype additional_hosts: ~collections.abc.Sequence[str]
    :keyword now: Returns the current time, in Unix seconds; the system's clock if not given.
    :paramtype now: ~collections.abc.Callable[[], float] or None
    :raises TypeError: If an argument is of another type.
    :raises ValueError: If the endpoint, the access key or a host is malformed. The message does not
     contain it.
    """

    def __init__(
        self,
        endpoint: str,
        access_key: str | AzureKeyCredential,
        *,
        additional_hosts: Sequence[str] = (),
        now: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(endpoint, str):
            endpoint = with_scheme(endpoint)  # the siblings' own policies are given the host alone
        hosts = parse_additional_hosts(additional_hosts)
        self._destinations = Destinations(parse_endpoint(endpoint), hosts)
        self._credential = as_key_credential(access_key)
        self._decoded = ("", b"")  # a key and its bytes, replaced together: threads share them
        self._now = now

    def __reduce__(self) -> Any:
        msg = "HMACCredentialsPolicy holds an access key and cannot be copied or pickled"
        raise TypeError(msg)

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Sign the request.

        :param ~azure.core.pipeline.PipelineRequest request: The request. The option
            ``enforce_https=False`` allows plain http to a loopback address.
        :raises ~azure.core.exceptions.ClientAuthenticationError: If the request goes to a host
            other than the endpoint's and the additional ones, or over plain http.
        :raises TypeError: If the body can be read only once, or is made by the transport, as
         multipart forms are.
        :raises ValueError: If the URL has more than 32,768 characters.
        """
        is_own_host = self._destinations.check(request)
        host = self._destinations.host
        http_request = request.http_request
        headers = http_request.headers
        content_hash = _base64(hashlib.sha256(_sent_body(http_request)).digest())
        target = _sent_target(http_request.url, request.context.transport)
        date = _http_date(int(time.time() if self._now is None else self._now()))
        to_sign = (
            f"{http_request.method.upper()}\n{target}\n{date};{host};{content_hash}"
        ).encode()
        signature = _base64(hmac.digest(self._key(), to_sign, "sha256"))
        if is_own_host:
            # Transports would set Host themselves; set here, it is the one that was signed.
            headers["Host"] = host
        else:
            headers.pop("Host", None)  # it may be left by an attempt before a redirect
        headers["x-ms-return-client-request-id"] = "true"
        headers["x-ms-date"] = date
        headers["x-ms-content-sha256"] = content_hash
        headers["Authorization"] = (
            f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}"
        )

    def _key(self) -> bytes:
        text, decoded = self._decoded
        current = self._credential.key
        if current != text:
            decoded = parse_access_key(current)
            self._decoded = (current, decoded)
        return decoded


def _sent_target(url: str, transport: object) -> str:
    """Path and query as the transport will send them."""
    if len(url) > _LONGEST_URL:
        msg = f"The URL has {len(url)} characters, too many for a signed request: shorten its query"
        raise ValueError(msg)
    as_is = _SENT_AS_IS.fullmatch(url)
    if as_is and "%" not in url:
        return as_is[1]
    if _is_aiohttp(transport):
        from yarl import URL

        return URL(url).raw_path_qs
    if as_is:
        return as_is[1]
    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter

    prepared = PreparedRequest()
    prepared.prepare_url(url, None)
    # Not prepared.path_url: some releases change a leading double slash after that.
    return HTTPAdapter().request_url(prepared, None)


def _is_aiohttp(transport: object) -> bool:
    if "aiohttp" not in sys.modules:  # then it cannot be, and importing it is slow
        return False
    from azure.core.pipeline.transport import AioHttpTransport

    # Transports that wrap another hold it as _transport, azure-core's own included.
    for _ in range(_LONGEST_CHAIN_OF_TRANSPORTS):  # that of a mock, with any attribute, is endless
        if isinstance(transport, AioHttpTransport):
            return True
        transport = getattr(transport, "_transport", None)
    return False


def _sent_body(http_request: Any) -> bytes:
    """The body as the transport will send it."""
    if isinstance(http_request, HttpRequest):
        body = http_request.content
    else:
        body = http_request.data or http_request.files
    if body is None:
        return b""
    if isinstance(body, str):
        encoded = body.encode()
        if len(encoded) != len(body) and "Content-Length" in http_request.headers:
            # azure-core counted characters, and aiohttp would truncate the text to that many bytes.
            http_request.headers["Content-Length"] = str(len(encoded))
        return encoded
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    if not isinstance(body, dict) or http_request.files:
        msg = (
            "The body of a request signed with an access key must be str, bytes, JSON or a form "
            "without files: streams can be read only once, and transports make multipart bodies. "
            "Read it into bytes first"
        )
        raise TypeError(msg)
    if not all(map(_is_plain_field, body, body.values())):
        msg = (
            "A form that is signed with an access key must have str as names, and str, int, float "
            "or lists of them as values: transports send None and bytes in different ways"
        )
        raise TypeError(msg)
    return urlencode(body, doseq=True).encode()


def _is_plain_field(name: object, value: object) -> bool:
    values = value if isinstance(value, (list, tuple)) else [value]
    return isinstance(name, str) and all(isinstance(each, (str, int, float)) for each in values)


def _base64(digest: bytes) -> str:
    return b2a_base64(digest, newline=False).decode()


@lru_cache(maxsize=2)
def _http_date(unix_seconds: int) -> str:
    return formatdate(unix_seconds, usegmt=True)
