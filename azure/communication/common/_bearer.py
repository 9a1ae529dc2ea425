"""Which hosts may receive a credential, and what a 401 means: rules for both kinds of pipelines.

Every request that is about to carry a credential goes through ``Destinations.check``: each attempt,
the replay after a 401, and the answer to a claims challenge.

A 401 may answer a request that cannot be sent again, long after others have replaced the token that
it carried. So the rules look at the request as it was sent, never at what a credential or a policy
holds now.
"""

import inspect
import re
from collections.abc import Sequence
from typing import Any, cast

from azure.core.credentials import TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy

from ._connection import is_token_credential, parse_additional_hosts, parse_endpoint
from ._token import check_token_text

SCOPE = "https://communication.azure.com//.default"

# Everything before the path, limited to characters that all parsers read alike.
_ORIGIN = re.compile(
    r"(https?)://([a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f.]*:[0-9a-f:.]*\])(?::([0-9]{1,5}))?"
    r"(?![^/?#])",
    re.ASCII | re.IGNORECASE,
)
_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|\[::1\]", re.ASCII)
_DEFAULT_PORTS = {"https": 443, "http": 80}


class Destinations:
    """Where a credential may go: to the endpoint, and to further hosts of the service, over https.

    :param str endpoint: The endpoint, as ``parse_endpoint`` returns it.
    :param additional_hosts: Further hosts, as ``parse_additional_hosts`` returns them.
    :type additional_hosts: tuple[str, ...]
    """

    def __init__(self, endpoint: str, additional_hosts: tuple[str, ...] = ()) -> None:
        self._endpoint = endpoint
        self._address = _address(_ORIGIN.match(endpoint))
        self._additional_hosts = additional_hosts
        self.host = endpoint.lower().partition("://")[2].removesuffix(":443")
        """The endpoint's host and port as they appear in a ``Host`` header."""

    def check(self, request: PipelineRequest[Any]) -> bool:
        """Refuse a request that would carry the credential elsewhere.

        This covers redirects and absolute URLs, because a policy sees the URL of each attempt. The
        header ``x-ms-host`` tells a further host which resource is meant.

        :param ~azure.core.pipeline.PipelineRequest request: The request. Its option
            ``enforce_https`` is kept in the context for later tries and away from the transport, as
            azure-core's bearer token policy does.
        :return: Whether it goes to the endpoint's own host.
        :rtype: bool
        :raises ~azure.core.exceptions.ClientAuthenticationError: If the host may not receive the
            credential. azure-core's retry policy does not retry after this error.
        """
        if request.context.options.pop("enforce_https", None) is False:
            request.context["enforce_https"] = False
        url: str = request.http_request.url
        endpoint = self._endpoint
        is_own = url.startswith(endpoint) and url[len(endpoint) : len(endpoint) + 1] in "/?#"
        if not is_own:
            is_own = self._parse(url, request)
        if self._additional_hosts:
            headers = request.http_request.headers
            if not is_own:
                headers["x-ms-host"] = self.host
            elif headers.get("x-ms-host") == self.host:  # left by an attempt before a redirect
                del headers["x-ms-host"]
        return is_own

    def accept(self, request: PipelineRequest[Any]) -> bool:
        """Return whether ``check`` lets a request pass."""
        try:
            self.check(request)
        except ClientAuthenticationError:
            return False
        return True

    def _parse(self, url: str, request: PipelineRequest[Any]) -> bool:
        match = _ORIGIN.match(url)
        scheme, (host, port) = match[1].lower() if match else "", _address(match)
        if scheme == "http" and host == self._address[0]:
            self._check_plain_http(request, host)
        if (host, port) == self._address:
            return True
        if scheme == "https" and port == 443:
            for known in self._additional_hosts:
                if host.endswith(known) if known.startswith(".") else host == known:
                    return False
        others = " and additional_hosts" if self._additional_hosts else ""
        msg = (
            "The request goes to a host that may not receive the credential, which is only for "
            f"{self._endpoint}{others}: check its URL, or the redirect that led there"
        )
        raise ClientAuthenticationError(msg)

    def _check_plain_http(self, request: PipelineRequest[Any], host: str) -> None:
        if request.context.get("enforce_https", True) or not _LOOPBACK.fullmatch(host):
            msg = (
                f"The request to {self._endpoint} goes over plain http, which would expose the "
                "credential: use https (a test on a loopback address may set enforce_https=False)"
            )
            raise ClientAuthenticationError(msg)
        if _goes_through_proxy(request, host):
            msg = (
                f"The request to {self._endpoint} goes over plain http through a proxy, which "
                "would see the credential: use https, or set NO_PROXY for this host"
            )
            raise ClientAuthenticationError(msg)


def _address(match: "re.Match[str] | None") -> tuple[str, int]:
    if match is None:
        return "", 0
    return match[2].lower(), int(match[3] or _DEFAULT_PORTS[match[1].lower()])


def _goes_through_proxy(request: PipelineRequest[Any], host: str) -> bool:
    """Return whether the environment or the request's options name a proxy for plain http.

    A proxy cannot be removed from a request: aiohttp reads the environment itself.
    """
    from urllib.request import getproxies, proxy_bypass

    options = request.context.options
    if options.get("proxy"):  # aiohttp's own
        return True
    proxies = {} if proxy_bypass(host.strip("[]")) else getproxies()
    proxies.update(options.get("proxies") or {})
    return any(
        proxy and name.partition("://")[0].lower() in ("http", "all")
        for name, proxy in proxies.items()
    )


class Bearer:
    """What a bearer policy decides about the tokens of one credential.

    A credential that has ``invalidate_token`` caches its own token and is asked for every request,
    so the policy keeps no token, and sends none after it was refused elsewhere or the credential
    was closed. For any other credential, azure-core's policy caches the token; this class remembers
    the hash of the last one that was refused.

    :param str endpoint: The endpoint of the resource.
    :param credential: The token credential.
    :param additional_hosts: Further hosts of the service.
    :type additional_hosts: ~collections.abc.Sequence[str]
    :keyword bool sync: Whether the policy cannot await.
    :raises TypeError: If an argument is of another type.
    :raises ValueError: If the endpoint or a host is malformed.
    """

    def __init__(
        self, endpoint: str, credential: object, additional_hosts: Sequence[str], *, sync: bool
    ) -> None:
        hosts = parse_additional_hosts(additional_hosts)
        self._destinations = Destinations(parse_endpoint(endpoint), hosts)
        check_token_credential(credential, "credential", sync=sync)
        self._credential: Any = credential
        self.asks_each_time = hasattr(credential, "invalidate_token")
        self._refused: int | None = None

    def check(self, request: PipelineRequest[Any]) -> None:
        """Refuse a request that would carry the token elsewhere, before a token is asked for."""
        self._destinations.check(request)

    def can_try_again(
        self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]
    ) -> bool:
        """Take note of a response; return whether to send the request again, with another token.

        A 401 says nothing about the token if it comes from another host, after a redirect, or if a
        later policy has removed the token. Its claims may ask for a token that satisfies them.
        """
        sent = sent_token(request)
        if response.http_response.status_code != 401:
            if self.was_refused(sent):  # so the 401 was not about the token
                self._refused = None
            return False
        if not sent or not self._destinations.accept(request):
            return False
        if self.asks_each_time:
            self._credential.invalidate_token(sent)
        else:
            self._refused = hash(sent)
        return can_be_sent_again(request.http_request)

    def was_refused(self, token: str) -> bool:
        """Return whether a token is the one that was refused last."""
        return self._refused is not None and hash(token) == self._refused


class _ChallengeReader(BearerTokenCredentialPolicy[Any, Any]):
    """azure-core's parser of challenges, without the token request that it makes afterwards."""

    claims: str | None = None

    def authorize_request(
        self, request: PipelineRequest[Any], *scopes: str, **options: Any
    ) -> None:
        self.claims = options.get("claims")


def read_claims(request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> str | None:
    """Return the claims that a 401 asks for, or None if it asks for none that can be read."""
    reader = _ChallengeReader(cast("Any", None))
    try:
        reader.on_challenge(request, response)
    except ValueError:  # malformed base64 or UTF-8, or characters that neither allows
        return None
    return reader.claims


def check_token_credential(credential: object, argument: str, *, sync: bool) -> None:
    """Check that a credential can be asked for tokens, by code that awaits or by code that cannot.

    :param credential: The credential.
    :param str argument: What the error calls it.
    :keyword bool sync: Whether the caller cannot await.
    :raises TypeError: If it cannot be asked.
    """
    name = type(credential).__name__
    if not is_token_credential(credential):
        msg = f"{argument} must be a token credential, such as one from azure-identity, not {name}"
        raise TypeError(msg)
    methods = [getattr(credential, each, None) for each in ("get_token", "get_token_info")]
    if sync and any(map(inspect.iscoroutinefunction, methods)):
        msg = (
            f"{argument} is an async credential ({name}): pass a synchronous one, or import what "
            "you call from azure.communication.common.aio"
        )
        raise TypeError(msg)


def check_token(token: Any) -> Any:
    """Return what a credential returned if it is a token that a header can carry.

    A transport would quote any other in its error. Neither this error nor its traceback refers to
    it.

    :param token: What the credential returned.
    :return: The same.
    :raises TypeError: If it is not a token, or its text is not a ``str``.
    :raises ValueError: If its text is empty or not printable ASCII.
    """
    problem: Exception
    try:
        if not hasattr(token, "token"):
            kind = type(token).__name__
            msg = f"The credential returned {kind}: an AccessToken or AccessTokenInfo was expected"
            raise TypeError(msg)
        check_token_text(token.token, "The token that the credential returned")
        return token  # noqa: TRY300 - nothing else is to be done
    except (TypeError, ValueError) as error:
        problem = error.with_traceback(None)
    if inspect.iscoroutine(token):
        token.close()  # or Python warns that it was never awaited
    del token
    raise problem


def sent_token(request: PipelineRequest[Any]) -> str:
    """Return the bearer token that a request carries, or an empty string."""
    authorization: str = request.http_request.headers.get("Authorization", "")
    scheme, _, token = authorization.partition(" ")
    return token if scheme == "Bearer" else ""


def carry(request: PipelineRequest[Any], token: Any) -> None:
    """Put a token into the header of a request."""
    request.http_request.headers["Authorization"] = f"Bearer {token.token}"


def can_be_sent_again(http_request: Any) -> bool:
    """Return whether the body of a request can be read a second time, as streams cannot.

    Files count as streams.
    """
    body, files = http_request.data, http_request.files
    return not files and (
        body is None or isinstance(body, (str, bytes, bytearray, memoryview, dict))
    )


def ask(credential: Any, scopes: tuple[str, ...], options: TokenRequestOptions) -> Any:
    """Ask a credential for a token with the method that it has; the result may be an awaitable."""
    if hasattr(credential, "get_token_info"):
        return credential.get_token_info(*scopes, options=options)
    return credential.get_token(*scopes, **options)
