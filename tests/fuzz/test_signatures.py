"""Random requests, signed and verified from the bytes that arrive.

The service is a raw socket, and the signature is computed over the request line, the headers and
the body as they were received. Each of the transports sends its share of the requests:
``requests``, ``aiohttp``, and one that wraps aiohttp's.

    python tests/fuzz/test_signatures.py --requests 20000 --seed 1

sends more than the test does, and the same again.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import random
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from azure.communication.common import HMACCredentialsPolicy
from azure.core.exceptions import AzureError
from azure.core.pipeline import AsyncPipeline, Pipeline
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport, RequestsTransport
from azure.core.pipeline.transport import HttpRequest as LegacyHttpRequest
from azure.core.rest import HttpRequest

KEY = base64.b64encode(b"the key of the resource").decode()
SIGNED = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
IN_CI = 2_000


class Service(socketserver.ThreadingTCPServer):
    """Answers 200 to a request that is signed as it arrived, and 401 to any other."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.received = 0


class Connection(socketserver.StreamRequestHandler):
    server: Service
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while request_line := self.rfile.readline():
            assert request_line.endswith(b" HTTP/1.1\r\n")
            method, target = request_line.removesuffix(b" HTTP/1.1\r\n").split(b" ")
            headers = {}
            while line := self.rfile.readline().rstrip(b"\r\n"):
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            fits = self.judge(method, target, headers, self.read_body(headers))
            self.server.received += 1
            self.wfile.write(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % (200 if fits else 401))

    def read_body(self, headers: dict[bytes, bytes]) -> bytes:
        if b"transfer-encoding" not in headers:
            return self.rfile.read(int(headers.get(b"content-length", b"0")))
        body = b""  # requests sends a form without values in chunks
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def judge(self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes) -> bool:
        content_hash = base64.b64encode(hashlib.sha256(body).digest())
        signed = b";".join([headers[b"x-ms-date"], headers[b"host"], content_hash])
        digest = hmac.digest(base64.b64decode(KEY), b"\n".join([method, target, signed]), "sha256")
        return (
            headers[b"host"] == self.server.host.encode()
            and headers[b"x-ms-content-sha256"] == content_hash
            and headers[b"authorization"] == SIGNED.encode() + base64.b64encode(digest)
        )


class Wrapped(AsyncHttpTransport[Any, Any]):
    """A transport that hands requests on to another one."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def send(self, request: Any, **options: Any) -> Any:
        return await self._transport.send(request, **options)

    async def open(self) -> None:
        await self._transport.open()

    async def close(self) -> None:
        await self._transport.close()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


PIECES = [
    *["a", "Z9", "-", "_", "~", ".", "..", "/", "//", "/.", "/../", ":", "@", "8:acs:"],
    *["!$&'()*+,;=", "%3A", "%3a", "%2F", "%2f", "%20", "%2B", "%7E", "%41", "%25", "%2525"],
    *["%C3%A9", "%E2%98%83", "%", "%z", "%4", "%FF", "%00", "%2e", "%2E%2E"],
    *[" ", "+", "\u00e9", "\u2603", "\U0001d11e", "\u0130", "\t", "\x7f", "\xa0"],
    *["[", "]", "|", "^", "`", "{", "}", '"', "<", ">", "\\", "'", "=", "&", "?", "#f"],
]
QUERIES = [*PIECES, "x=1", "&y=", "api-version=2025-03-15", "t=2026-11-24T03:04:05Z"]
TEXTS = ["", "text", "žluť ☎", '{"m": "☎"}', "a\r\nb", "\x00", "x" * 5000]
VALUES: list[Any] = ["", "x", "é b&=+", 1, 2.5, True, ["x", "y="], [], ["é", 3]]
METHODS = ["GET", "POST", "put", "PATCH", "DELETE", "Head", "OPTIONS"]


def random_request(dice: random.Random, host: str) -> Any:
    """Make a request of either kind, with a path, a query and a body of any."""

    def join(pieces: list[str]) -> str:
        return "".join(dice.choices(pieces, k=dice.randrange(8)))

    url = f"http://{host}" + dice.choice(["", "/", "/" + join(PIECES)])
    if dice.random() < 0.6:
        url += "?" + join(QUERIES)
    method = dice.choice(METHODS)
    kind: Any = dice.choice([HttpRequest, LegacyHttpRequest])
    content: Any = dice.choice([dice.choice(TEXTS), dice.randbytes(dice.randrange(50))])
    form = {dice.choice(["a", "é", "b c"]): dice.choice(VALUES) for _ in range(dice.randrange(3))}
    choice = dice.randrange(4) if method not in ("GET", "Head") else 0
    if choice == 0:
        return kind(method, url)
    if choice == 1:
        return kind(method, url, **{"content" if kind is HttpRequest else "data": content})
    if choice == 2:
        return kind(method, url, data=form)
    if kind is HttpRequest:
        return HttpRequest(method, url, json={"m": dice.choice(TEXTS), "n": form})
    request = LegacyHttpRequest(method, url)
    request.set_json_body({"m": dice.choice(TEXTS)})
    return request


class Outcome(NamedTuple):
    """How many requests were sent by each transport, which did not fit, and which did not leave."""

    sent: dict[str, int]
    mismatches: list[str]
    refused: list[str]


def send_all(count: int, seed: int) -> Outcome:
    """Send random requests through each transport, and return what the service says of them."""
    dice = random.Random(seed)
    outcome = Outcome({}, [], [])
    asynchronous: dict[str, Callable[[], Any]] = {
        "aiohttp": AioHttpTransport,
        "wrapped aiohttp": lambda: Wrapped(AioHttpTransport()),
    }
    shares = [len(range(number, count, 3)) for number in range(3)]
    with running_service() as service:
        policy = HMACCredentialsPolicy(service.host, KEY)

        def note(transport: str, request: Any, status: int | Exception) -> None:
            shown = f"{transport} {request.method} {request.url!r} {request.data!r}: {status!r}"
            if isinstance(status, Exception):
                outcome.refused.append(shown)
            else:
                outcome.sent[transport] = outcome.sent.get(transport, 0) + 1
                if status != 200:
                    outcome.mismatches.append(shown)

        with Pipeline(RequestsTransport(), [policy]) as pipeline:
            for _ in range(shares[0]):
                request = random_request(dice, service.host)
                try:
                    response = pipeline.run(request, enforce_https=False)
                    status: int | Exception = response.http_response.status_code
                except (AzureError, ValueError) as error:
                    status = error
                note("requests", request, status)

        async def send_asynchronously() -> None:
            for share, (name, make) in zip(shares[1:], asynchronous.items(), strict=True):
                async with AsyncPipeline(make(), [policy]) as line:
                    for _ in range(share):
                        request = random_request(dice, service.host)
                        try:
                            response = await line.run(request, enforce_https=False)
                            status: int | Exception = response.http_response.status_code
                        except (AzureError, ValueError) as error:
                            status = error
                        note(name, request, status)

        asyncio.run(send_asynchronously())
        assert service.received == sum(outcome.sent.values())
    return outcome


@contextmanager
def running_service() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, args=[0.01])
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join(20)


def test_random_requests_are_signed_as_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """By every transport; only a few are such that a transport sends nothing."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    outcome = send_all(int(os.environ.get("SIGNED_REQUESTS", IN_CI)), seed=random.randrange(2**32))
    assert outcome.mismatches == []
    assert set(outcome.sent) == {"requests", "aiohttp", "wrapped aiohttp"}
    assert len(outcome.refused) < 0.1 * sum(outcome.sent.values()), outcome.refused[:10]


def main() -> int:
    """Send as many as asked for, and return how many did not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=IN_CI, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    outcome = send_all(options.requests, options.seed)
    print(
        f"seed {options.seed}: sent {outcome.sent}, refused before they left {len(outcome.refused)}"
    )
    print(f"signatures that did not fit: {len(outcome.mismatches)}", *outcome.mismatches, sep="\n")
    return len(outcome.mismatches) > 0


if __name__ == "__main__":
    sys.exit(main())
