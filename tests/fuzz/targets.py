"""What the parsers of the package promise for any input, as functions of bytes.

Each function raises ``AssertionError`` where a promise is broken, and what the parser raises where
it raises anything but the errors that it documents. ``python tests/fuzz`` calls them with inputs
that a coverage-guided fuzzer makes of the files in ``corpus``, and the tests with those files.
"""

import base64
import json
import pickle
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from azure.communication.common import (
    CommunicationTokenCredential,
    deserialize_identifier,
    get_authentication_policy,
    identifier_from_raw_id,
    parse_connection_string,
    serialize_identifier,
)
from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import HttpTransport
from azure.core.utils import case_insensitive_dict

SECRET = base64.b64encode(b"a canary that no message shows...").decode()
LAST_SECOND = 253_402_300_799  # of the year 9999


def text_of(data: bytes) -> str:
    """Return the text that is fuzzed: any, lone surrogates included."""
    return data.decode("utf-8", "surrogateescape")


def refused(call: Callable[[], object], *secrets: str) -> bool:
    """Return whether a call raises one of the two errors that parsers may, and shows no secret."""
    try:
        call()
    except (TypeError, ValueError) as error:
        raised = error
    else:
        return False
    assert type(raised) in (TypeError, ValueError), repr(raised)
    assert_hidden(raised, secrets)
    return True


def pieces(text: str) -> set[str]:
    """Return all that is 16 characters in a row."""
    return {text[start : start + 16] for start in range(len(text) - 15)}


def assert_hidden(error: BaseException, secrets: Iterable[str], known: Iterable[str] = ()) -> None:
    """Check that neither an error nor what it refers to shows 16 characters in a row of a
    secret, but what is known anyway.
    """
    is_known: set[str] = set().union(*map(pieces, known))
    texts = []
    behind: BaseException | None = error
    while behind is not None:
        texts += [str(behind), repr(behind.args), str(vars(behind))]
        behind = behind.__cause__ or behind.__context__
    for secret in secrets:
        parts = pieces(secret) - is_known
        for text in texts:
            shown = pieces(text) & parts
            assert not shown, shown


def connection_string(data: bytes) -> None:
    """A connection string is read the same when written again, and never shown."""
    text = text_of(data)
    for each in (text, f"{text}accesskey={SECRET}", f"endpoint=https://x;accesskey={SECRET}{text}"):
        if not refused(lambda each=each: parse_connection_string(each), SECRET):  # type: ignore[misc]
            parsed = parse_connection_string(each)
            again = f"endpoint={parsed.endpoint};accesskey={parsed.access_key}"
            assert parse_connection_string(again) == parsed
            assert base64.b64decode(parsed.access_key, validate=True)
            get_authentication_policy(parsed.endpoint, parsed.access_key)


def endpoint(data: bytes) -> None:
    """An endpoint is https, and a password in one is never shown."""
    text = text_of(data)
    for each in (
        text,
        f"https://{text}",
        f"https://{text}:{SECRET}@x",
        f"https://x/{SECRET}{text}",
    ):
        if not refused(lambda each=each: get_authentication_policy(each, SECRET), SECRET):  # type: ignore[misc]
            assert SECRET not in each
            assert each.lower().startswith("https://")
            assert "@" not in each


def token(data: bytes) -> None:
    """A token is kept as it is, with an expiry that is a time, or refused without being shown."""
    text = text_of(data)
    header, _, claims = data.partition(b"\n")
    segments = (base64.urlsafe_b64encode(each).decode() for each in (header, claims))
    for each in (text, ".".join((*segments, SECRET.rstrip("=")))):
        for lifetime in (None, 30):
            make: Any = lambda: CommunicationTokenCredential(  # noqa: E731
                each,  # noqa: B023 - called at once
                undecodable_token_lifetime=lifetime,  # noqa: B023
            )
            if refused(make, each, SECRET):
                continue
            with make() as credential:
                read = credential.get_token()
                assert read.token == each
                assert type(read.expires_on) is int
                assert 0 <= read.expires_on <= LAST_SECOND
                assert_hidden(ValueError(repr(read)), [each])


def raw_id(data: bytes) -> None:
    """Every text is a raw id, and survives each way of writing an identifier down."""
    text = text_of(data)
    identifier: Any = identifier_from_raw_id(text)
    assert identifier.raw_id == text
    cls = type(identifier)
    for again in (
        eval(repr(identifier), {cls.__name__: cls}),
        pickle.loads(pickle.dumps(identifier)),
        deserialize_identifier(serialize_identifier(identifier)),
    ):
        assert type(again) is cls
        assert (again.raw_id, again.properties) == (text, identifier.properties)


def wire(data: bytes) -> None:
    """JSON is an identifier that is written as it was read, or a ValueError."""
    try:
        value = json.loads(text_of(data))
    except (ValueError, RecursionError):
        return
    if not refused(lambda: deserialize_identifier(value)):
        identifier = deserialize_identifier(value)
        written = serialize_identifier(identifier)
        again = deserialize_identifier(written)
        assert type(again) is type(identifier)
        assert again.raw_id == identifier.raw_id
        assert serialize_identifier(again) | {"rawId": ""} == written | {"rawId": ""} or (
            "phoneNumber" in written  # one without a raw id says nothing about anonymity
        )


class Transport(HttpTransport[Any, Any]):
    """Answers with one answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.answer = (status, headers, body)

    def send(self, request: Any, **kwargs: Any) -> Any:
        status, headers, body = self.answer
        return SimpleNamespace(
            request=request,
            status_code=status,
            reason=headers.get("Reason", "OK"),
            headers=case_insensitive_dict(headers),
            content=body,
            text=lambda: text_of(body),
            read=lambda: body,
            close=lambda: None,
            content_type="",
        )

    def sleep(self, duration: float) -> None:
        assert 0 <= duration <= 15

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None: ...


class User:
    """An Entra credential."""

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        return AccessToken(SECRET, LAST_SECOND)


def exchange(data: bytes) -> None:
    """An answer to the exchange is a token, or an error that shows neither token.

    The data are a status, headers and, behind an empty line, a body. In both, ``$`` is the Entra
    token.
    """
    head, _, body = data.replace(b"$", SECRET.encode()).partition(b"\n\n")
    first, *lines = text_of(head).split("\n")
    status = int(first) if first.isascii() and first.isdecimal() and len(first) == 3 else 200
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    credential = CommunicationTokenCredential(
        resource_endpoint="https://contoso.communication.azure.com",
        token_credential=User(),  # type: ignore[arg-type]
        transport=Transport(status, headers, body),
    )
    error: Exception | None = None
    try:
        read = credential.get_token()
    except (AzureError, ValueError) as raised:
        error = raised
    credential.close()
    if error is None:
        assert status == 200
        assert read.token in text_of(body) or "\\" in text_of(body)
        assert 0 < read.expires_on <= LAST_SECOND
    elif isinstance(error, AzureError):
        response: Any = error.response  # type: ignore[attr-defined]
        assert_hidden(error, [SECRET])
        # A header that is kept, such as Retry-After, is no secret, even if the body repeats it.
        assert_hidden(error, [text_of(body) if status == 200 else ""], headers.values())
        assert_hidden(ValueError(str(dict(response.headers))), [SECRET])
        assert len(str(error)) < 100_000
    else:
        assert (status, "expired" in str(error)) == (200, True)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (connection_string, endpoint, token, raw_id, wire, exchange)
}
for _target in TARGETS.values():  # loads what is imported on first use, for the fuzzer to see it
    _target(b"")
