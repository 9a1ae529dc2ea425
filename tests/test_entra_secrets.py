"""What is left of the Entra token once an exchange has failed: nothing, anywhere.

The service is a raw HTTPS server that misbehaves in one way or another; both transports are real.
"""

import asyncio
import gc
import logging
import pickle
import socket
import socketserver
import ssl
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.core.pipeline.policies as core_policies
import pytest
import trustme
from azure.core.credentials import AccessTokenInfo
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from fake_transport import WAYS, Answer, Way
from scaffolding import make_token, run_async, turn_until

ENDPOINT = "https://contoso.communication.azure.com"
CHALLENGE = 'Bearer error="insufficient_claims", claims="eyJhIjoxfQ"'

answers_claims_challenges = pytest.mark.skipif(
    "get_challenge_parameter" not in vars(core_policies._utils),
    reason="this release of azure-core does not answer claims challenges",
)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


class EntraUser:
    """An Entra credential that keeps no token: what a test finds, the exchange has left.

    The canary is built again for each call, from numbers that tests know.
    """

    def __init__(self, *faults: Exception | None) -> None:
        self.faults = list(faults)

    def get_token_info(self, *scopes: str, options: Any) -> AccessTokenInfo:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return AccessTokenInfo(canary(), 4_102_444_800)


def canary() -> str:
    return "canary." + ".".join(str(number**9) for number in range(90, 99)) + ".canary"


PARTS = {canary()[start : start + 16] for start in range(len(canary()) - 15)}


def shows_the_canary(text: str) -> bool:
    return any(text[start : start + 16] in PARTS for start in range(len(text) - 15))


def reachable(start: object) -> Iterator[object]:
    """Yield all that an object refers to, directly or not, as the collector sees it.

    Of frames, only those of tests, of asyncio and of the package may be there, as they stand above
    the exchange in a traceback or below the Entra credential. The exchange has one, its entrance.
    """
    seen, waiting = {id(PARTS)}, [start]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, (type, types.ModuleType, types.FunctionType)):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, types.FrameType):
            path, function = Path(each.f_code.co_filename), each.f_code.co_name
            if path.name in ("_entra.py", "_exchange.py", "_token.py"):
                assert function == "__call__", f"the frame of {function} in {path} is kept"
                waiting += [value for name, value in each.f_locals.items() if name != "self"]
            else:
                known = {"common", "tests", "asyncio"} & {*path.parts}
                assert known, f"a frame of {path} is kept"
        elif isinstance(each, types.TracebackType):
            waiting += [each.tb_frame, each.tb_next]
        else:
            waiting += gc.get_referents(each)


def assert_clean(error: BaseException) -> None:
    """Check that an error neither shows nor refers to the canary, now or after a pickle."""
    found = list(reachable(error))
    for each in found:
        if isinstance(each, (bytes, bytearray)):
            each = each.decode("latin-1")
        assert not (isinstance(each, str) and shows_the_canary(each)), each
    assert not shows_the_canary(f"{error} {error!r} {vars(error)}")
    assert b"canary" not in pickle.dumps(error)


# --- On a wire


class Service(socketserver.ThreadingTCPServer):
    """Reads one request from each connection, and answers with bytes."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 50

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.tls)
        self.ca_file = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        super().__init__(("127.0.0.1", 0), Connection)
        self.endpoint = f"https://127.0.0.1:{self.server_address[1]}"
        self.answer: bytes | None = b""
        self.received: list[bytes] = []
        self.open: list[object] = []


class Connection(socketserver.BaseRequestHandler):
    server: Service

    def handle(self) -> None:
        self.server.open.append(self)
        try:
            self.answer()
        except OSError:  # the client has gone
            pass
        finally:
            self.server.open.remove(self)

    def answer(self) -> None:
        with self.server.tls.wrap_socket(self.request, server_side=True) as connection:
            received = b""
            while not received.endswith(b"{}"):
                more = connection.recv(65_536)
                if not more:
                    return
                received += more
            self.server.received.append(received)
            if self.server.answer is not None:
                connection.sendall(self.server.answer)
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):  # until the client closes it
                pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("ca")) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def answer(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


ECHO = answer(
    f"403 {canary()}",
    f"X-Echo: Bearer {canary()}",
    f"x-ms-request-id: {canary()}",
    f"WWW-Authenticate: Bearer {canary()}",
    "Retry-After: 7",
    body=f"Bearer {canary()}",
)
WIRE = {
    "untrusted certificate": (b"", {"connection_verify": True}, ServiceRequestError),
    "no connection": (b"", {"resource_endpoint": "https://127.0.0.1:1"}, ServiceRequestError),
    "no such host": (b"", {"resource_endpoint": "https://contoso.invalid"}, ServiceRequestError),
    "no answer": (None, {"read_timeout": 0.05}, AzureError),
    "closed": (b"", {}, AzureError),
    "garbage": (b"garbage\r\n\r\n", {}, AzureError),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", {}, AzureError),
    "bad encoding": (
        answer("200 OK", "Content-Encoding: gzip", body="no gzip"),
        {},
        Exception,  # azure-core lets what zlib raises out
    ),
    "echo": (ECHO, {}, ClientAuthenticationError),
    "redirect": (answer("302 Found", "Location: https://127.0.0.1:1/"), {}, HttpResponseError),
    "malformed": (answer("200 OK", body=canary()), {}, HttpResponseError),
}


def call(way: Way, server: Service, credential: Any) -> None:
    if way is WAYS["sync"]:
        credential.get_token()
        return

    async def main() -> None:
        try:
            await credential.get_token()
        finally:  # a loop that ends before aiohttp has closed its connections warns of them
            await turn_until(lambda: not server.open)

    run_async(main())


# Python 3.10 warns so of TLS connections that the service has closed.
@pytest.mark.filterwarnings("ignore:unclosed transport <asyncio.sslproto:ResourceWarning")
@pytest.mark.parametrize("case", WIRE)
def test_no_failure_on_the_wire_leads_to_the_entra_token(
    way: Way, server: Service, case: str
) -> None:
    """Not by the error's attributes, its causes, the frames of its traceback, or a pickle of it."""
    server.answer, options, kind = WIRE[case]
    credential = way.Credential(
        **{
            "resource_endpoint": server.endpoint,
            "token_credential": way.twin(EntraUser()),
            "connection_verify": server.ca_file,
            "retry_total": 0,
            **options,
        }
    )
    with pytest.raises(kind) as caught:
        call(way, server, credential)
    assert_clean(caught.value)
    if "endpoint" not in str(options) and "verify" not in str(options):
        assert canary().encode() in server.received[-1]
    gc.collect()  # and lets no such warning come later


def test_an_untrusted_certificate_is_named(way: Way, server: Service) -> None:
    """What helps is in the text, although the transport's own error is gone."""
    credential = way.Credential(
        resource_endpoint=server.endpoint, token_credential=way.twin(EntraUser()), retry_total=0
    )
    with pytest.raises(ServiceRequestError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        call(way, server, credential)
    assert caught.value.inner_exception is None


# --- In the pipeline


def made(way: Way, *script: Any, user: EntraUser | None = None, **options: Any) -> Any:
    return way.Credential(
        **{
            "resource_endpoint": ENDPOINT,
            "token_credential": way.twin(EntraUser() if user is None else user),
            "transport": way.Transport(*script),
            "retry_total": 0,
            **options,
        }
    )


def failure(way: Way, credential: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the test looks at it
        way.call(credential.get_token)
    return caught.value


class TransportError(Exception):
    """Refers to a request in each way that errors of transports do."""

    def __init__(self, request: Any) -> None:
        super().__init__("cut off")
        self.request = self.response = request
        self.history = [request]
        self.__notes__ = [str(request)]
        self.__cause__ = ValueError(request)


def raiser(make: Callable[[Any], BaseException]) -> Callable[[Any], Any]:
    def raise_it(request: Any) -> None:
        error = make(request)
        try:
            raise TransportError(request)
        except TransportError:
            raise error  # noqa: B904 - its context is the point

    return raise_it


def test_an_error_of_the_transport_leads_nowhere(way: Way) -> None:
    """Its type and its message stay."""
    make = lambda request: ServiceResponseError("cut off", error=TransportError(request))  # noqa: E731
    error = failure(way, made(way, raiser(make)))
    assert type(error) is ServiceResponseError
    assert str(error) == "cut off"
    assert_clean(error)


def test_an_error_of_a_policy_keeps_its_type_and_its_plain_values(way: Way) -> None:
    """Whatever else it holds might refer to the request."""

    class PolicyError(Exception):
        pass

    def make(request: Any) -> Exception:
        error = PolicyError("refused", 7)
        error.code, error.request = "NoGo", request  # type: ignore[attr-defined]
        return error

    error = failure(way, made(way, raiser(make)))
    assert type(error) is PolicyError
    assert error.args == ("refused", 7)
    assert vars(error)["code"] == "NoGo"
    assert not list(error_chain(error))
    for each in reachable(error):
        assert not (isinstance(each, str) and shows_the_canary(each))


def test_a_short_token_is_not_shown_either(way: Way) -> None:
    """It need not be as long as those of Entra are."""
    user = EntraUser()
    user.get_token_info = lambda *_, **__: AccessTokenInfo("s3cret", 4_102_444_800)  # type: ignore[method-assign]
    error = failure(way, made(way, Answer(400, "no token: s3cret"), user=user))
    assert str(error) == "Entra token exchange failed with status 400: no token: ***"


@dataclass(frozen=True)
class FrozenError(Exception):
    """An error whose fields cannot be set."""

    request: Any

    def __str__(self) -> str:
        return "frozen"


def test_an_error_whose_class_allows_no_change_is_cleared_as_well(way: Way) -> None:
    """What it leads to is gone all the same."""
    error = failure(way, made(way, raiser(FrozenError)))
    assert type(error) is FrozenError
    assert_clean(error)


def error_chain(error: BaseException) -> Iterator[BaseException | None]:
    for each in (error.__cause__, error.__context__, vars(error).get("inner_exception")):
        if each is not None:
            yield each


def test_an_error_that_quotes_the_token_is_cleared_of_it(way: Way) -> None:
    """In its arguments and its attributes; what else it says stays."""

    def make(request: Any) -> Exception:
        error = ValueError(f"Invalid value: {request.headers['authorization']!r}", 7)
        error.value = request.headers["authorization"]  # type: ignore[attr-defined]
        return error

    error = failure(way, made(way, raiser(make)))
    assert type(error) is ValueError
    assert error.args == ("Invalid value: 'Bearer ***'", 7)
    assert vars(error) == {"value": "Bearer ***"}
    assert_clean(error)


class Holder:
    """Has a text, and refers to a request."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def __str__(self) -> str:
        return "cut off"


def test_what_an_error_is_about_becomes_its_text(way: Way) -> None:
    """Its type and its message stay."""
    error = failure(way, made(way, raiser(lambda request: ValueError(Holder(request)))))
    assert type(error) is ValueError
    assert error.args == ("cut off",)
    assert_clean(error)


def test_an_error_whose_text_needs_what_is_gone_is_replaced(way: Way) -> None:
    """By one with the same text."""

    class HostError(Exception):
        def __init__(self, request: Any) -> None:
            super().__init__("no")
            self.request = request

        def __str__(self) -> str:
            return f"cannot connect to {self.request.url[:20]} {self.request.headers}"

    error = failure(way, made(way, raiser(HostError)))
    assert type(error) is AzureError
    text = "Entra token exchange failed: HostError: cannot connect to https://contoso.comm {"
    assert str(error).startswith(text)
    assert "'Bearer ***'" in str(error)
    assert_clean(error)


def unencodable(request: Any) -> Exception:
    """Return what a transport raises that encodes all headers together."""
    return UnicodeEncodeError("utf-8", str(request.headers), 2, 3, "surrogates")


def no_attribute(request: Any) -> Exception:
    """Return what a mistake in a policy raises."""
    return AttributeError("no", obj=request, name="urk")


def no_connection(request: Any) -> Exception:
    """Return what a custom transport may raise."""
    return ConnectionResetError(104, "reset", request.headers["authorization"])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (unencodable, "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        (no_attribute, "AttributeError: no"),
        (no_connection, "ConnectionResetError: [Errno 104] reset: 'Bearer ***'"),
    ],
)
def test_an_error_of_python_with_fields_of_its_own_is_replaced(
    way: Way, make: Callable[[Any], Exception], text: str
) -> None:
    """What they hold can be neither known nor cleared."""
    error = failure(way, made(way, raiser(make)))
    assert type(error) is AzureError
    assert str(error).startswith(f"Entra token exchange failed: {text}")
    assert_clean(error)


def test_an_error_without_a_text_is_kept(way: Way) -> None:
    """A mistake in its class is shown to its author."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise TypeError("mute")

    error = failure(way, made(way, raiser(MuteError)))
    assert type(error) is MuteError
    assert not any(isinstance(each, str) and shows_the_canary(each) for each in reachable(error))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupt_stays_what_it_is(way: Way, kind: type[BaseException]) -> None:
    """Without the frames that it came through."""
    if kind is not asyncio.CancelledError or way is WAYS["sync"]:
        make = lambda request: kind(request.headers["authorization"])  # noqa: E731
        error = failure(way, made(way, raiser(make)))
        assert type(error) is kind
        assert_clean(error)


def test_an_interrupt_is_never_replaced() -> None:
    """Not even if its text is gone: something waits for it, and for nothing else."""

    class Stop(BaseException):
        def __init__(self, request: Any) -> None:
            super().__init__()
            self.request = request

        def __str__(self) -> str:
            return str(self.request.url)

    error = failure(WAYS["sync"], made(WAYS["sync"], raiser(Stop)))
    assert type(error) is Stop
    assert vars(error) == {"request": None}


def test_a_note_can_be_added(way: Way) -> None:
    """Those that it had are gone."""
    error = failure(way, made(way, raiser(TransportError)))
    assert type(error) is TransportError
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("status", [200, 401])
def test_what_the_caller_handles_meanwhile_is_not_kept(way: Way, status: int) -> None:
    """azure-core's errors refer to it, with its traceback."""
    try:
        raise TransportError(canary())
    except TransportError:
        error = failure(way, made(way, Answer(status)))
    assert isinstance(error, HttpResponseError)
    assert (error.exc_type, error.exc_value, error.exc_traceback) == (None, None, None)
    assert error.exc_msg == error.message


def test_where_it_failed_is_in_the_log(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is gone with what its frames held; its lines are in the log."""
    caplog.set_level(logging.DEBUG, logger="azure.communication.common")
    failure(way, made(way, raiser(lambda _: ValueError("no"))))
    (record,) = (each for each in caplog.records if "exchange failed at" in each.getMessage())
    assert record.levelno == logging.DEBUG
    assert "in raise_it" in record.getMessage()
    assert not shows_the_canary(caplog.text)


# --- The Entra credential


def test_an_error_of_the_entra_credential_is_left_as_it_is(way: Way) -> None:
    """With its cause and the frames that are its own."""
    cause = OSError("no cache")
    fault = ClientAuthenticationError("sign in first")
    fault.__cause__ = cause
    error = failure(way, made(way, user=EntraUser(fault)))
    assert error is fault
    assert error.__cause__ is cause
    assert_frames(error, "get_token_info")


def assert_frames(error: BaseException, last: str) -> None:
    traceback = error.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    assert traceback.tb_frame.f_code.co_name == last
    assert traceback.tb_frame.f_code.co_filename == __file__


@answers_claims_challenges
@pytest.mark.parametrize("fault", [ClientAuthenticationError, ServiceRequestError, ValueError])
def test_claims_that_the_entra_credential_refuses_are_its_error(
    way: Way, fault: type[Exception]
) -> None:
    """Not azure-core's, which refers to the response with the challenge, and so on."""
    refusal, cause = fault("no"), OSError("no cache")
    refusal.__cause__ = cause
    challenge = Answer(401, headers={"WWW-Authenticate": CHALLENGE})
    error = failure(way, made(way, challenge, user=EntraUser(None, refusal), retry_total=3))
    assert error is refusal
    assert error.__cause__ is cause
    assert_frames(error, "get_token_info")
    for each in reachable(error):
        assert not (isinstance(each, str) and shows_the_canary(each))


@pytest.mark.parametrize("challenge", ["/w==", "a", "\u00e9", "%%%%"])
def test_a_challenge_that_cannot_be_read_is_a_refusal(way: Way, challenge: str) -> None:
    """Like any other 401."""
    header = f'Bearer error="insufficient_claims", claims="{challenge}"'
    error = failure(way, made(way, Answer(401, "no", {"WWW-Authenticate": header})))
    assert type(error) is ClientAuthenticationError
    assert str(error) == "Entra token exchange failed with status 401: no"


class Returns:
    """An Entra credential that returns what it is told to."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)

    def get_token_info(self, *scopes: str, options: Any) -> Any:
        return self.results.pop(0)


UNFIT = [
    (AccessTokenInfo(canary() + "\n", 4_102_444_800), ValueError, "must be printable ASCII"),
    (AccessTokenInfo(canary() + "\u017e", 4_102_444_800), ValueError, "must be printable ASCII"),
    (AccessTokenInfo("", 4_102_444_800), ValueError, "must be printable ASCII and not empty"),
    (AccessTokenInfo(None, 4_102_444_800), TypeError, "must be a str, not NoneType"),  # type: ignore[arg-type]
    (AccessTokenInfo(canary().encode(), 4_102_444_800), TypeError, "must be a str, not bytes"),  # type: ignore[arg-type]
    (None, TypeError, "must be a str, not NoneType"),
    (canary(), TypeError, "must be a str, not NoneType"),
]


@pytest.mark.parametrize(("result", "kind", "problem"), UNFIT, ids=range(len(UNFIT)))
@pytest.mark.parametrize("for_claims", [False, pytest.param(True, marks=answers_claims_challenges)])
def test_what_is_no_header_text_is_refused_before_it_is_sent(
    way: Way, result: Any, kind: type[Exception], problem: str, for_claims: bool
) -> None:
    """A transport would quote it in an error; this one names what returned it."""
    results = [AccessTokenInfo("fit", 4_102_444_800), result] if for_claims else [result]
    challenge = Answer(401, headers={"WWW-Authenticate": CHALLENGE})
    credential = made(way, challenge, user=Returns(*results))  # type: ignore[arg-type]
    error = failure(way, credential)
    assert type(error) is kind
    assert str(error).startswith("The token that token_credential returned " + problem)
    assert_clean(error)


# --- What a refusal said


TOKEN = make_token(4_102_444_800, name="x" * 40, iss="https://sts.windows.net/contoso/")
HEADER, CLAIMS, SIGNATURE = TOKEN.split(".")


class TokenUser:
    """An Entra credential with a token that looks like one."""

    def get_token_info(self, *scopes: str, options: Any) -> AccessTokenInfo:
        return AccessTokenInfo(TOKEN, 4_102_444_800)


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"Authorization: Bearer {TOKEN}", ": Authorization: Bearer ***"),
        (f"<p>Bearer</p>{TOKEN}<p>is no good</p>", ": Bearer *** is no good"),
        (f"cut: {TOKEN[5:]}", ": cut: ***"),
        (f"cut: {TOKEN[:60]}", ": cut: ***"),
        (f"claims: {CLAIMS[20:]}, please", ": claims: ***, please"),
        (f"claims: {CLAIMS[20:36]}, please", ": claims: ***, please"),
        (f"claims: {CLAIMS[20:35]}, please", f": claims: {CLAIMS[20:35]}, please"),
        (f'{{"error": "{escaped(TOKEN)}"}}', ': {"error": "***"}'),
        (f'{{"got": ["{TOKEN}", "{TOKEN}"]}}', ': {"got": ["***", "***"]}'),
        (f"another: {make_token(5)}.", ": another: ***"),
        (f"encrypted: {HEADER}.{CLAIMS}.{CLAIMS}.x.y, so", ": encrypted: ***, so"),
    ],
    ids=range(11),
)
def test_the_text_of_a_refusal_is_shown_without_the_token(way: Way, body: str, said: str) -> None:
    """Whole or in part, escaped or not, and so is any other JWT."""
    error = failure(way, made(way, Answer(403, body), user=TokenUser()))  # type: ignore[arg-type]
    assert str(error) == f"Entra token exchange failed with status 403{said}"
    assert_no_part_of_the_token(error)


def assert_no_part_of_the_token(error: BaseException) -> None:
    parts = {TOKEN[start : start + 16] for start in range(len(TOKEN) - 15)}
    for each in reachable(error):
        if isinstance(each, str):
            assert not any(each[start : start + 16] in parts for start in range(len(each) - 15))


def test_the_service_s_own_error_is_shown_without_the_token(way: Way) -> None:
    """In each of its members."""
    said = f"No: {escaped(TOKEN)}!"
    body = (
        f'{{"error": {{"code": "{said}", "message": "{said}", "target": "{said}", '
        f'"details": [{{"code": "{said}"}}], "innererror": {{"{said}": "{said}"}}}}}}'
    )
    error = failure(way, made(way, Answer(401, body), user=TokenUser()))  # type: ignore[arg-type]
    assert isinstance(error, HttpResponseError)
    assert error.error is not None
    assert (error.error.code, error.error.message) == ("No: ***!", "No: ***!")
    assert error.error.details[0].code == "No: ***!"
    assert error.error.innererror == {"No: ***!": "No: ***!"}
    assert str(error).startswith("Entra token exchange failed with status 401: (No: ***!) No: ***!")
    assert_no_part_of_the_token(error)


@pytest.mark.parametrize("status", [200, 302, 401, 429])
def test_of_the_headers_those_stay_that_help(way: Way, status: int) -> None:
    """How long to wait and the ids of the request, in any case; and they are cleared of tokens."""
    headers = {
        "RETRY-AFTER": "7",
        "retry-after-ms": "7000",
        "X-MS-Request-Id": "one",
        "x-ms-client-request-id": f"Bearer {TOKEN}",
        "Request-Id": "two",
        "MS-CV": SIGNATURE + SIGNATURE,
        "WWW-Authenticate": f"Bearer {TOKEN}",
        "Server": "nginx",
        "Set-Cookie": TOKEN,
    }
    error = failure(way, made(way, Answer(status, "", headers), user=TokenUser()))  # type: ignore[arg-type]
    assert isinstance(error, HttpResponseError)
    response: Any = error.response
    assert dict(response.headers) == {
        "RETRY-AFTER": "7",
        "retry-after-ms": "7000",
        "X-MS-Request-Id": "one",
        "x-ms-client-request-id": "Bearer ***",
        "Request-Id": "two",
        "MS-CV": SIGNATURE + SIGNATURE,
    }
    assert response.headers["retry-AFTER"] == "7"
    assert (response.status_code, response.reason) == (status, f"Reason {status}")
    assert (error.status_code, error.reason) == (status, f"Reason {status}")
    twin = pickle.loads(pickle.dumps(error))
    assert twin.response.headers["Retry-After"] == "7"


def test_an_answer_s_header_that_repeats_the_token_is_not_logged(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """azure-core logs a challenge, among others; a header that repeats nothing is still logged."""
    caplog.set_level(logging.DEBUG, logger="azure.core")
    headers = {
        "WWW-Authenticate": f"Bearer realm={TOKEN[9:]}",
        "x-ms-request-id": CLAIMS[:16],
        "Server": "nginx",
        "Date": make_token(5),
    }
    script = [Answer(503, "", headers), Answer(401, "", {"WWW-Authenticate": "Bearer x"})]
    failure(way, made(way, *script, user=TokenUser(), retry_total=1, retry_backoff_factor=0))  # type: ignore[arg-type]
    assert "'Server': 'nginx'" in caplog.text
    for name in ("WWW-Authenticate", "x-ms-request-id", "Date", "Authorization"):
        assert f"'{name}': 'REDACTED'" in caplog.text
    assert "eyJ" not in caplog.text
    assert CLAIMS[:16] not in caplog.text


def test_a_challenge_is_logged_as_ever(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """It helps to find out what the service wants."""
    caplog.set_level(logging.DEBUG, logger="azure.core")
    failure(way, made(way, Answer(401, "", {"WWW-Authenticate": "Bearer realm=x"})))
    assert "'WWW-Authenticate': 'Bearer realm=x'" in caplog.text


@pytest.mark.parametrize("place", ["per_call_policies", "per_retry_policies"])
@pytest.mark.parametrize("to", ["https://evil.example/", "http://contoso.communication.azure.com/"])
def test_no_redirect_of_a_user_s_policy_carries_the_token_away(
    way: Way, place: str, to: str
) -> None:
    """The policies of the user may follow redirects; the token stays with the resource."""
    transport = way.Transport(Answer(307, "", {"Location": to}))
    error = failure(way, made(way, transport=transport, **{place: [way.RedirectPolicy()]}))
    assert type(error) is ClientAuthenticationError
    assert "may not receive the credential" in str(error) or "plain http" in str(error)
    assert len(transport.sent) == 1
    assert_clean(error)
