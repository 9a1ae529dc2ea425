"""The exchange of an Entra token for a Communication token: the request, and reading its response.

Theory of operation
-------------------
The Entra user's token is posted to the resource, which returns a token for the corresponding
Communication user. The scopes determine which of two routes is used. The driver asks the Entra
credential, sends the request through a pipeline that is created for this one exchange, and passes
on the response. So nothing has to be closed, and a credential works on any thread or loop and in a
forked child; an exchange happens about once an hour.

Errors live long: the credential keeps them, and applications log and pickle them. An error that
leaves an exchange therefore refers to neither a request nor a response, not even indirectly
(``inner_exception.request``, ``response.request``, a frame of a traceback). What a refusal said is
kept as text, without any part of a token.
"""

import json
import logging
import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from operator import itemgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ODataV4Format,
)
from azure.core.pipeline import PipelineRequest, PipelineResponse
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
from azure.core.utils import case_insensitive_dict

from ._bearer import sent_token
from ._connection import parse_endpoint
from ._errors import made, set_field
from ._token import RedactedAccessToken, check_token_text, read_time
from ._version import VERSION

if TYPE_CHECKING:  # the base class of azure-core's two retry policies has no public name
    from azure.core.pipeline.policies._retry import RetryPolicyBase
else:
    RetryPolicyBase = object

_LOGGER = logging.getLogger(__name__)

DEFAULT_SCOPE = "https://communication.azure.com/clients/.default"
_ENTRA = "/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview"
_TEAMS_EXTENSION = "/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30"
_ROUTES = {
    "https://communication.azure.com/clients/": _ENTRA,
    "https://auth.msft.communication.azure.com/": _TEAMS_EXTENSION,
    "https://auth.msft.communication.azure.us/": _TEAMS_EXTENSION,
}

# The whole exchange has to finish within the 60 seconds that a refresh may take. azure-core's own
# defaults are 300 seconds for each of the two time-outs, ten retries, and a week in total.
LONGEST_WAIT_SECONDS = 15
_OPTIONS = {
    "connection_timeout": 10,
    "read_timeout": 10,
    "retry_total": 3,
    "timeout": 50,  # no attempt starts later
    "sdk_moniker": f"communication-common/{VERSION}",
}
# azure-core does not retry a POST after a 429 or a failed connection unless told to. An exchange
# may be retried, because it changes nothing.
RETRY_METHODS = ("POST",)

OUTLIVES_BY_SECONDS = 60

# The headers of a refusal that are kept: how long to wait, and what the service's operators ask
# for.
_KEPT_HEADERS = {
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-ms-request-id",
    "x-ms-client-request-id",
    "request-id",
    "ms-cv",
}
_LONGEST_BODY, _LONGEST_EXCERPT = 16_384, 300  # bytes read, and characters shown

_SHOWN_IN_A_ROW = 16  # this many consecutive characters of a token count as a part of it
_JWT = re.compile(r"eyJ[\w-]{13,}(?:\.[\w-]*)*", re.ASCII)
_MARKUP = re.compile(r"<(style|script)\b[^<]*</\1>|<[^<>]*>", re.IGNORECASE)


class Exchange:
    """The exchange of one Entra user's tokens, except for asking, sending and waiting.

    :keyword str resource_endpoint: The endpoint of the resource.
    :keyword token_credential: The Entra credential.
    :keyword scopes: Scopes of the Entra token; all under one of three prefixes.
    :raises TypeError: If an argument has a wrong type, or a pipeline option cannot be used here.
    :raises ValueError: If the endpoint is malformed, or the scopes do not fit.
    """

    _imported_when_sending: tuple[str, ...] = ()
    """What azure-core, the default transport's library and the standard library import late."""

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
        """Import what an exchange needs, so that no background thread is the first to do it.

        If a process forks during an import, the child waits for the import lock forever. Does no
        I/O; it is left to the exchange to report what is not installed.
        """
        for name in self._imported_when_sending:
            with suppress(ImportError):
                import_module(name)

    @property
    def _owns_transport(self) -> bool:
        return self._options.get("transport") is None

    def _is_redundant(
        self,
        entra: AccessToken | AccessTokenInfo,
        held: AccessToken,
        options: TokenRequestOptions,
    ) -> bool:
        """Return whether an exchange could not bring a better token than the valid one.

        A Communication token expires with its Entra token, or earlier.
        """
        return (
            not options.get("claims")
            and hash(entra.token) == self._exchanged
            and entra.expires_on <= held.expires_on + OUTLIVES_BY_SECONDS
        )

    def _policies(self, retry: Any, authentication: Any) -> list[Any]:
        """Return the policies of a generated client, except for three.

        The one that logs bodies is left out, even with ``logging_enable``, because they contain
        tokens; the one that follows redirects, because the request is meant only for the resource;
        and the one that parses JSON, because its error would quote it.
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
            _HttpLoggingPolicy(**self._options),
        ]

    def _request(self) -> HttpRequest:
        headers = {"Accept": "application/json"}
        return HttpRequest("POST", self._endpoint + self._route, headers=headers, json={})

    def _read(self, response: Any, entra: AccessToken | AccessTokenInfo) -> RedactedAccessToken:
        """Return the token in a response, and remember which Entra token it was issued for.

        :raises FinishedError: If the service refused the Entra token, failed or sent a malformed
            response.
        """
        status = response.status_code
        if status != 200:
            kind = ClientAuthenticationError if status in (401, 403) else HttpResponseError
            msg = f"Entra token exchange failed with status {status}"
            said, details = _read_refusal(response.content if status >= 400 else b"", entra.token)
            msg = f"{msg}: {said}" if said else msg
            raise FinishedError(_error(kind, msg, response, entra.token, details))
        token = _read_answer(response.content)
        if isinstance(token, str):
            msg = f"Entra token exchange returned a malformed response: {token}"
            raise FinishedError(_error(HttpResponseError, msg, response, entra.token))
        self._exchanged = hash(entra.token)
        return token


class FinishedError(Exception):
    """Carries an error out of the exchange unchanged, past azure-core, which would change it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def credential_error(error: Exception) -> FinishedError:
    """Wrap an error of the Entra credential, right where it was caught."""
    frames = error.__traceback__
    # The first frame is that of the caller, which holds the previous token.
    return FinishedError(error.with_traceback(frames.tb_next if frames is not None else None))


def check_entra_token(token: Any) -> None:
    """Check what the Entra credential returned, before it becomes a header.

    :raises FinishedError: If it is not a token that a header can carry.
    """
    try:
        text = getattr(token, "token", None)
        check_token_text(text, "The token that token_credential returned")
    except (TypeError, ValueError) as error:
        raise FinishedError(error.with_traceback(None)) from None


def without_secrets(error: BaseException, entra: Any) -> BaseException:
    """Return an error of the pipeline, without references to the request and to the Entra token.

    It keeps its type and its text, but no frame, no cause, and only those attributes that are plain
    values.

    :param error: The error. No exception may be being handled at the moment, because azure-core's
        errors refer to the one that is handled when they are created.
    :param entra: The Entra token, or None if there is none yet.
    :return: The same error, or an ``AzureError`` if its text depends on what was removed, or if it
        has fields that cannot be cleared.
    """
    if isinstance(error, FinishedError):
        return error.error
    secret = "" if entra is None else entra.token
    frames = "".join(traceback.format_tb(error.__traceback__))  # names and lines, no values
    _LOGGER.debug("The Entra token exchange failed at:\n%s", frames)
    text = _redact(_text(error), secret)
    for field in ("__cause__", "__context__", "__traceback__"):
        set_field(error, field, None)
    vars(error).pop("__notes__", None)
    for name, value in vars(error).items():
        vars(error)[name] = _redact(value, secret) if isinstance(value, str) else _number(value)
    args = (_redact(_text(arg), secret) if _number(arg) is None else arg for arg in error.args)
    set_field(error, "args", tuple(args))
    # Some built-in exceptions have further fields: an AttributeError its object, for example.
    has_fields = type(error).__basicsize__ > FinishedError.__basicsize__
    if not isinstance(error, Exception) or (_text(error) == text and not has_fields):
        return error
    return made(AzureError, f"Entra token exchange failed: {type(error).__name__}: {text}")


def _number(value: object) -> int | float | None:
    return value if isinstance(value, (int, float)) else None


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a mistake in the class of a transport's or policy's error
        return type(value).__name__


class _HttpLoggingPolicy(HttpLoggingPolicy):
    """azure-core's log of requests, without those response headers that repeat a token."""

    def on_response(
        self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]
    ) -> None:
        secret = sent_token(request)
        headers = response.http_response.headers.items()
        repeated = {name.lower() for name, value in headers if _redact(value, secret) != value}
        self.allowed_header_names = {
            name for name in self.allowed_header_names if name.lower() not in repeated
        }
        super().on_response(request, response)


class PatientRetries(RetryPolicyBase):
    """What the retry policies of both pipelines add to azure-core's rules.

    A wait that is too long for a refresh is not started: the error tells the credential how long to
    hold back.
    """

    def get_retry_after(self, response: Any) -> float | None:
        try:
            return super().get_retry_after(response)
        except Exception:  # noqa: BLE001 - parsing the header may raise anything
            return None

    def is_retry(self, settings: Any, response: Any) -> bool:
        wait = self.get_retry_after(response) or 0
        return wait <= LONGEST_WAIT_SECONDS and super().is_retry(settings, response)


def _read_scopes(scopes: Any) -> tuple[tuple[str, ...], str]:
    """Return the scopes and the route for exchanging their tokens."""
    listed = [scopes] if isinstance(scopes, str) else scopes
    if not isinstance(listed, (list, tuple, set, frozenset)):
        msg = f"scopes must be a str or a list of str, not {type(scopes).__name__}"
        raise TypeError(msg)
    wrong = [type(scope).__name__ for scope in listed if not isinstance(scope, str)]
    if wrong:
        msg = f"scopes must be a str or a list of str; it contains a {wrong[0]}"
        raise TypeError(msg)
    for prefix, route in _ROUTES.items():
        pattern = re.compile(re.escape(prefix) + r"\S+")
        if listed and all(map(pattern.fullmatch, listed)):
            return tuple(listed), route
    msg = f"scopes must be a scope or a list of scopes, all under one of {', '.join(_ROUTES)}"
    raise ValueError(msg)


def _read_answer(content: bytes) -> RedactedAccessToken | str:
    """Return the token in a response, or what is wrong with the response.

    No exception leaves this function, because those of parsers refer to the text that holds the
    token.
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


def _read_refusal(content: bytes, secret: str) -> tuple[str, ODataV4Format | None]:
    """Return what a refusal says, without any token in it, and the service's error if it is one.

    The response may also come from a proxy.
    """
    text = content[:_LONGEST_BODY].decode("utf-8", "replace")
    if "\0" in text:  # in another encoding, a token would not be found
        return "", None
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), ensure_ascii=False)  # escapes might hide a token
    text = _redact(text, secret)
    try:
        details = ODataV4Format(json.loads(text))
        return str(details), details
    except Exception:  # noqa: BLE001 - azure-core fails in many ways on other JSON
        excerpt = " ".join(_MARKUP.sub(" ", text).split())
        if len(excerpt) > _LONGEST_EXCERPT:
            excerpt = f"{excerpt[:_LONGEST_EXCERPT]}..."
        return excerpt, None


def _redact(text: str, secret: str) -> str:
    """Return a text without any part of this token, and without anything that looks like a JWT."""
    hidden = [False] * len(text)
    for match in _JWT.finditer(text):
        hidden[match.start() : match.end()] = [True] * len(match[0])
    size = min(len(secret), _SHOWN_IN_A_ROW) or len(text) + 1
    for start in range(len(text) - size + 1):
        if text[start : start + size] in secret:
            hidden[start : start + size] = [True] * size
    runs = groupby(zip(text, hidden, strict=True), itemgetter(1))
    return "".join(
        "***" if is_hidden else "".join(letter for letter, _ in run) for is_hidden, run in runs
    )


def _error(
    kind: type[HttpResponseError],
    message: str,
    response: Any,
    secret: str,
    details: ODataV4Format | None = None,
) -> HttpResponseError:
    """Return an error about a response, with only those parts of the response that may be kept."""
    error = made(kind, message)
    error.error = details
    error.status_code = response.status_code
    error.reason = _redact(response.reason or "", secret)
    kept = {
        name: _redact(value, secret)
        for name, value in response.headers.items()
        if name.lower() in _KEPT_HEADERS
    }
    # The transport's own response refers to its request, and so to the Entra token.
    stand_in: Any = SimpleNamespace(
        status_code=error.status_code, reason=error.reason, headers=case_insensitive_dict(kept)
    )
    error.response = stand_in
    return error
