"""The exchange of an Entra token for a Communication token: what to ask, and what the answer says.

Theory of operation
-------------------
The token of an Entra user is posted to the resource, which answers with a token of the
Communication user that stands for them. Which of the two routes it is follows from the scopes. The
driver asks the Entra credential, sends the request through a pipeline that is made for this one
exchange, and hands the response over. So nothing has to be closed, and a credential serves any
thread, loop and forked child; an exchange happens once an hour.

The answer holds a token, and so may the text of an answer that cannot be read. Errors therefore
refer to the response only if it is a refusal, and never to the Entra token.
"""

import json
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.policies import (
    CustomHookPolicy,
    DistributedTracingPolicy,
    HeadersPolicy,
    HttpLoggingPolicy,
    ProxyPolicy,
    RequestIdPolicy,
    UserAgentPolicy,
)
from azure.core.rest import HttpRequest

from ._connection import parse_endpoint
from ._token import RedactedAccessToken, read_time
from ._version import VERSION

if TYPE_CHECKING:  # what both of azure-core's retry policies inherit from has no public name
    from azure.core.pipeline.policies._retry import RetryPolicyBase
else:
    RetryPolicyBase = object

DEFAULT_SCOPE = "https://communication.azure.com/clients/.default"
_ENTRA = "/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview"
_TEAMS_EXTENSION = "/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30"
_ROUTES = {
    "https://communication.azure.com/clients/": _ENTRA,
    "https://auth.msft.communication.azure.com/": _TEAMS_EXTENSION,
    "https://auth.msft.communication.azure.us/": _TEAMS_EXTENSION,
}

# All of it has to end within the 60 seconds that a refresh may take. azure-core's own defaults are
# 300 seconds for each of both time-outs, ten retries, and a week for the whole.
LONGEST_WAIT_SECONDS = 15
_OPTIONS = {
    "connection_timeout": 10,
    "read_timeout": 10,
    "retry_total": 3,
    "timeout": 50,  # no try starts later
    "sdk_moniker": f"communication-common/{VERSION}",
}
# azure-core does not repeat a POST after 429 or a failed connection, unless told that it may. An
# exchange may: it changes nothing.
RETRY_METHODS = ("POST",)

OUTLIVES_BY_SECONDS = 60


class Exchange:
    """The exchange of one Entra user's tokens, but for asking, sending and waiting.

    :keyword str resource_endpoint: The endpoint of the resource.
    :keyword token_credential: The Entra credential.
    :keyword scopes: Scopes of the Entra token; all under one of three prefixes.
    :raises TypeError: If an argument has a wrong type, or a pipeline option is of no use here.
    :raises ValueError: If the endpoint is malformed, or the scopes do not fit.
    """

    def __init__(
        self,
        *,
        resource_endpoint: str,
        token_credential: Any,
        scopes: str | Sequence[str] | None = None,
        **pipeline_options: Any,
    ) -> None:
        self._endpoint = parse_endpoint(resource_endpoint, "resource_endpoint")
        self._scopes, self._route = _read_scopes(DEFAULT_SCOPE if scopes is None else scopes)
        self._credential = token_credential
        for name in ("policies", "pipeline"):
            if name in pipeline_options:
                msg = f"{name} cannot be replaced: use per_call_policies or per_retry_policies"
                raise TypeError(msg)
        self._options = {**_OPTIONS, **pipeline_options}
        self._exchanged: int | None = None  # the hash of an Entra token; its text is not kept

    def prepare(self) -> None:
        """Load what an exchange needs."""

    @property
    def _owns_transport(self) -> bool:
        return self._options.get("transport") is None

    def _is_in_vain(
        self,
        entra: AccessToken | AccessTokenInfo,
        held: AccessToken | None,
        options: TokenRequestOptions,
    ) -> bool:
        """Tell whether an exchange could bring no token that is better than the valid one.

        A Communication token expires with its Entra token, or earlier.
        """
        return (
            held is not None
            and not options.get("claims")
            and hash(entra.token) == self._exchanged
            and entra.expires_on <= held.expires_on + OUTLIVES_BY_SECONDS
        )

    def _policies(self, retry: Any, authentication: Any) -> list[Any]:
        """Return the policies of a generated client, but for three.

        There is none that logs bodies, even with ``logging_enable``, since there are tokens in
        them; none that follows redirects, since the request is for the resource alone; and none
        that reads JSON, since its error would quote it.
        """
        return [
            RequestIdPolicy(**self._options),
            HeadersPolicy(**self._options),
            UserAgentPolicy(**self._options),
            ProxyPolicy(**self._options),
            retry,
            authentication,
            CustomHookPolicy(**self._options),
            DistributedTracingPolicy(**self._options),
            HttpLoggingPolicy(**self._options),
        ]

    def _request(self) -> HttpRequest:
        headers = {"Accept": "application/json"}
        return HttpRequest("POST", self._endpoint + self._route, headers=headers, json={})

    def _read(self, response: Any, entra: AccessToken | AccessTokenInfo) -> RedactedAccessToken:
        """Return the token of an answer, and note the Entra token that it was given for.

        :raises ~azure.core.exceptions.ClientAuthenticationError: If the service refused the Entra
            token.
        :raises ~azure.core.exceptions.HttpResponseError: If it failed, or answered nonsense.
        """
        response.request.headers.pop("Authorization", None)  # for errors that refer to it
        if response.status_code != 200:
            raise _refusal(response, entra.token)
        token = _read_answer(response.content)
        if isinstance(token, str):
            msg = f"The answer to the exchange of the Entra token is malformed: {token}"
            raise _without_response(HttpResponseError, msg, response)
        self._exchanged = hash(entra.token)
        return token


class PatientRetries(RetryPolicyBase):
    """What the retry policies of both pipelines have in common beside azure-core's rules.

    A wait that a refresh has no time for is not begun: the error tells the credential how long to
    hold back.
    """

    def get_retry_after(self, response: Any) -> float | None:
        try:
            return super().get_retry_after(response)
        except Exception:  # noqa: BLE001 - azure-core raises what parsing the header happens to
            return None

    def is_retry(self, settings: Any, response: Any) -> bool:
        wait = self.get_retry_after(response) or 0
        return wait <= LONGEST_WAIT_SECONDS and super().is_retry(settings, response)


def _read_scopes(scopes: Any) -> tuple[tuple[str, ...], str]:
    """Return the scopes and the route that they are exchanged at."""
    listed = [scopes] if isinstance(scopes, str) else scopes
    if not isinstance(listed, (list, tuple, set, frozenset)):
        msg = f"scopes must be a str or a list of str, not {type(scopes).__name__}"
        raise TypeError(msg)
    wrong = [type(scope).__name__ for scope in listed if not isinstance(scope, str)]
    if wrong:
        msg = f"scopes must be a str or a list of str; it holds a {wrong[0]}"
        raise TypeError(msg)
    for prefix, route in _ROUTES.items():
        pattern = re.compile(re.escape(prefix) + r"\S+")
        if listed and all(map(pattern.fullmatch, listed)):
            return tuple(listed), route
    msg = (
        "scopes must hold at least one scope, and all of them must begin with the same one of "
        f"{', '.join(_ROUTES)}. Pass several as a list, or none for {DEFAULT_SCOPE}."
    )
    raise ValueError(msg)


def _read_answer(content: bytes) -> RedactedAccessToken | str:
    """Return the token of an answer, or what is wrong with it.

    No exception leaves this function: those of parsers refer to the text, with the token in it.
    """
    try:
        access_token = json.loads(content)["accessToken"]
        token, expires_on = access_token["token"], access_token["expiresOn"]
    except (ValueError, RecursionError):
        return "it is not JSON"
    except (TypeError, LookupError):
        return "there is no accessToken with token and expiresOn"
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        return "its token must be a non-empty text of printable ASCII"
    expiry = read_time(expires_on)
    if expiry is None:
        return "its expiresOn must be a time in the form of ISO 8601"
    return RedactedAccessToken(token, expiry)


def _refusal(response: Any, entra_token: str) -> HttpResponseError:
    status = response.status_code
    kind = ClientAuthenticationError if status in (401, 403) else HttpResponseError
    msg = f"The exchange of the Entra token was answered with status {status}"
    if status < 400 or entra_token.encode() in response.content:  # some services echo
        return _without_response(kind, msg, response)
    error = kind(msg, response)
    # The transport's own response leads to its own request, with the Entra token in it.
    stand_in: Any = SimpleNamespace(
        status_code=status, reason=response.reason, headers=response.headers
    )
    error.response = stand_in
    return error


def _without_response(
    kind: type[HttpResponseError], message: str, response: Any
) -> HttpResponseError:
    """Return an error that does not lead to the text of the response."""
    error = kind(message)
    error.status_code, error.reason = response.status_code, response.reason
    return error
