"""Signatures against a service that computes them over the bytes that it received.

The service is a raw HTTPS server: a library's would tidy the request line first. It answers 200 if
the signature fits, and 401 if not.
"""

import asyncio
import base64
import hashlib
import hmac
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from azure.communication.common import HMACCredentialsPolicy
from azure.core.credentials import AzureKeyCredential
from azure.core.pipeline import AsyncPipeline, Pipeline
from azure.core.pipeline.policies import AsyncRetryPolicy, RetryPolicy
from azure.core.pipeline.transport import (
    AioHttpTransport,
    AsyncioRequestsTransport,
    RequestsTransport,
)
from azure.core.pipeline.transport import HttpRequest as LegacyHttpRequest
from azure.core.rest import HttpRequest

from scaffolding import turn_until

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER_KEY = "YW5vdGhlciBzZWNyZXQgb2YgNDggYnl0ZXMgZm9yIGFjY2VzcyBrZXlzLi4uLi4u"
TRANSPORTS = ["requests", "asyncio-requests", "aiohttp"]


class Received(NamedTuple):
    status: int
    target: str
    headers: dict[str, str]
    body: bytes


class Service(socketserver.ThreadingTCPServer):
    """Reads one request from each connection and judges its signature."""

    allow_reuse_address = True
    request_queue_size = 50

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(self.tls)
        self.ca_file = str(directory / "ca.pem")
        authority.cert_pem.write_to_path(self.ca_file)
        super().__init__(("127.0.0.1", 0), Connection)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.open: set[Connection] = set()
        self.reset()

    def reset(self) -> None:
        self.key = KEY
        self.busy = 0  # how many requests to answer with 503 whatever their signature
        self.received: list[Received] = []

    def judge(self, request_line: bytes, headers: dict[str, str], body: bytes) -> int:
        method, target, _ = request_line.decode("ascii").split(" ")
        content_hash = base64.b64encode(hashlib.sha256(body).digest()).decode()
        to_sign = f"{method}\n{target}\n{headers['x-ms-date']};{headers['host']};{content_hash}"
        digest = hmac.digest(base64.b64decode(self.key), to_sign.encode("ascii"), "sha256")
        fits = (
            headers["host"] == self.host
            and headers["x-ms-content-sha256"] == content_hash
            and headers["authorization"]
            == "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
            + base64.b64encode(digest).decode()
        )
        status = 200 if fits else 401
        self.received.append(Received(status, target, headers, body))
        if self.busy:
            self.busy -= 1
            return 503
        return status


class Connection(socketserver.StreamRequestHandler):
    timeout = 20

    def setup(self) -> None:
        assert isinstance(self.server, Service)
        self.service = self.server
        self.service.open.add(self)
        self.request.settimeout(self.timeout)
        self.request = self.service.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def handle(self) -> None:
        request_line = self.rfile.readline().rstrip()
        headers = {}
        while line := self.rfile.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0")))
        status = self.service.judge(request_line, headers, body)
        self.wfile.write(
            f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )

    def finish(self) -> None:
        super().finish()
        self.request.close()
        self.service.open.discard(self)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        thread = threading.Thread(target=service.serve_forever, args=[0.01])
        thread.start()
        yield service
        service.shutdown()
        thread.join(20)


@pytest.fixture
def service(running: Service) -> Service:
    running.reset()
    return running


def send(
    transport: str,
    service: Service,
    *requests: Any,
    endpoint: str = "https://{}",
    key: str | AzureKeyCredential = KEY,
    after_each: Callable[[], None] = lambda: None,
) -> list[int]:
    """Send the requests one after another through a pipeline; the status of each answer."""
    policy = HMACCredentialsPolicy(endpoint.format(service.host), key)
    statuses = []

    async def run() -> None:
        kind = AioHttpTransport if transport == "aiohttp" else AsyncioRequestsTransport
        retry = AsyncRetryPolicy(retry_backoff_factor=0)
        async with AsyncPipeline(kind(connection_verify=service.ca_file), [retry, policy]) as line:
            for request in requests:
                statuses.append((await line.run(request)).http_response.status_code)
                after_each()
        # A loop that ends before aiohttp has closed its connections warns of them.
        await turn_until(lambda: not service.open)

    if transport != "requests":
        asyncio.run(run())
        return statuses
    retry = RetryPolicy(retry_backoff_factor=0)
    with Pipeline(RequestsTransport(connection_verify=service.ca_file), [retry, policy]) as line:
        for request in requests:
            statuses.append(line.run(request).http_response.status_code)
            after_each()
    return statuses


TAILS = [
    "",
    "/",
    "?",
    "/?",
    "?a=1",
    "/a?",
    "#f",
    "/a?b=c#f",
    "//",
    "//a",
    "//a//b/",
    "/a//b",
    "/a%2Fb",
    "/a%2fb",
    "/a%2Bb",
    "/a+b",
    "/a b",
    "/a%20b",
    "/8:acs:b@c",
    "/8%3Aacs%3Ab%40c",
    "/!$&'()*+,;=:@",
    "/%21%24%26%27%28%29%2A%2C%3B%3D",
    "/\u017elu\u0165",
    "/%C5%BE",
    "/%c5%be",
    "/a%7Eb~%41",
    '/[a]|"<>^`{}\\',
    "/a/../b",
    "/./a/.",
    "/..",
    "/a/%2E%2E/b",
    "/.well-known",
    "/100%",
    "/a%zz%41",
    "/a\tb",
    "/a?x=1+2",
    "/a?x=1 2",
    "/a?x=1%202%2B3",
    "/a?:@;,[]'",
    "/a?%3A%40%3B%2C%5B%5D%27",
    "/a?x=%3D%26&y=%3d",
    "/a?x=&y=",
    "/a?x&&",
    "/a?x=%7E~",
    "/a?x=/b/../c?d",
    "/a?x=%2F%3F",
    "/a?x=\u017e%20\u260e",
    "/a?x=%C5%BE",
    "/a?x=100%",
    "/a?x=%00%0A",
    '/a?x=!$()*"<>|\\^`{}',
    "/chat/threads/19%3Aa%40thread.v2?api-version=2025-03-15&startTime=2026-11-24T03%3A04%3A05Z",
]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_url_has_the_signature_of_what_is_sent(service: Service, transport: str) -> None:
    """However the transport spells it."""
    requests = [HttpRequest("GET", f"https://{service.host}{tail}") for tail in TAILS]
    statuses = send(transport, service, *requests)
    assert [tail for tail, status in zip(TAILS, statuses, strict=True) if status != 200] == []
    assert len(service.received) == len(TAILS)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({}, b""),
        ({"content": ""}, b""),
        ({"content": b""}, b""),
        ({"json": {"m": "\u017elu\u0165 \u260e"}}, b'{"m": "\\u017elu\\u0165 \\u260e"}'),
        ({"content": b"\xff\x00"}, b"\xff\x00"),
        ({"content": bytearray(b"\xff\x00")}, b"\xff\x00"),
        ({"content": "text"}, b"text"),
        ({"content": "\u017elu\u0165 \u260e"}, b"\xc5\xbelu\xc5\xa5 \xe2\x98\x8e"),
        ({"content": '{"m": "\u260e"}'}, b'{"m": "\xe2\x98\x8e"}'),
        (
            {"data": {"a": "\u017e b&", "c": 1, "d": ["x", "y="], "e": ""}},
            b"a=%C5%BE+b%26&c=1&d=x&d=y%3D",
        ),
    ],
)
def test_every_body_has_the_signature_of_what_is_sent(
    service: Service, transport: str, body: dict[str, Any], sent: bytes
) -> None:
    """It arrives whole, in the form that the caller gave it."""
    url = f"https://{service.host}/a?b=c"
    assert send(transport, service, HttpRequest("post", url, **body)) == [200]
    assert [received.body for received in service.received] == [sent]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_requests_of_the_older_kind_are_signed_too(service: Service, transport: str) -> None:
    """The siblings still make some of theirs with ``azure.core.pipeline.transport``."""
    url = f"https://{service.host}/a?b=c"
    requests = [LegacyHttpRequest("POST", url) for _ in range(4)]
    requests[0].set_text_body("\u260e")
    requests[1].set_bytes_body(b"\xff")
    requests[2].set_json_body({"m": "\u260e"})
    requests[3].data = {"m": "\u260e"}
    assert send(transport, service, *requests) == [200] * 4
    assert [received.body for received in service.received] == [
        b"\xe2\x98\x8e",
        b"\xff",
        b'{"m": "\\u260e"}',
        b"m=%E2%98%8E",
    ]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_every_method_is_signed(service: Service, transport: str, method: str) -> None:
    """The method is signed as it is sent."""
    assert send(transport, service, HttpRequest(method, f"https://{service.host}/a")) == [200]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("endpoint", ["https://{}", "https://{}/", "HTTPS://{}", "{}", "{}/"])
def test_every_spelling_of_the_endpoint_gives_the_host_that_is_sent(
    service: Service, transport: str, endpoint: str
) -> None:
    """With and without a trailing slash, with a port, or as a bare host."""
    request = HttpRequest("GET", f"https://{service.host}/a")
    assert send(transport, service, request, endpoint=endpoint) == [200]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_try_has_a_signature_of_its_own(service: Service, transport: str) -> None:
    """The retried request fits as the first one did."""
    service.busy = 2
    request = HttpRequest("POST", f"https://{service.host}/a b", content="\u260e")
    assert send(transport, service, request) == [200]
    assert [received.status for received in service.received] == [200, 200, 200]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rotated_key_is_the_one_that_counts(service: Service, transport: str) -> None:
    """The service refuses the old key, and takes the new one from the same policy."""
    service.key = OTHER_KEY
    credential = AzureKeyCredential(KEY)
    requests = [HttpRequest("GET", f"https://{service.host}/a") for _ in range(2)]

    def rotate() -> None:
        credential.update(OTHER_KEY)

    statuses = send(transport, service, *requests, key=credential, after_each=rotate)
    assert statuses == [401, 200]
