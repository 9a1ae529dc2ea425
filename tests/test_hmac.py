"""Access-key signing: the known answers, and what the policy refuses and leaves alone."""

import asyncio
import copy
import io
import json
import pickle
import subprocess
import sys
import unittest.mock
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from azure.communication.common import HMACCredentialsPolicy
from azure.core import PipelineClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline import AsyncPipeline, Pipeline, PipelineContext, PipelineRequest
from azure.core.pipeline.policies import (
    AsyncRedirectPolicy,
    AsyncRetryPolicy,
    RedirectPolicy,
    RetryPolicy,
    SansIOHTTPPolicy,
)
from azure.core.pipeline.transport import (
    AioHttpTransport,
    AsyncHttpTransport,
    HttpTransport,
    RequestsTransport,
)
from azure.core.pipeline.transport import HttpRequest as LegacyHttpRequest
from azure.core.rest import HttpRequest

ENDPOINT = "https://contoso.communication.azure.com"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER_KEY = "YW5vdGhlciBzZWNyZXQgb2YgNDggYnl0ZXMgZm9yIGFjY2VzcyBrZXlzLi4uLi4u"
NOW = 1795489445  # 2026-11-24T03:04:05Z
EMPTY_HASH = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
SIGNED = {"host", "x-ms-date", "x-ms-content-sha256", "authorization"}
ADDED = SIGNED | {"x-ms-return-client-request-id"}
CASES = json.loads((Path(__file__).parent / "conformance" / "hmac.json").read_text("utf-8"))[
    "cases"
]


class FakeResponse:
    def __init__(self, status_code: int, headers: Mapping[str, str]) -> None:
        self.status_code = status_code
        self.headers = headers


class FakeTransport(HttpTransport[Any, Any]):
    """Answers from a list, then with 200, and records the URL and the headers that came."""

    def __init__(self, *answers: FakeResponse) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, dict[str, str]]] = []

    def send(self, request: Any, **kwargs: Any) -> FakeResponse:
        assert "enforce_https" not in kwargs, "transports do not know it"
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.sent.append((request.url, headers))
        return self.answers.pop(0) if self.answers else FakeResponse(200, {})

    def sleep(self, duration: float) -> None: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...


class AsyncFakeTransport(AsyncHttpTransport[Any, Any]):
    """The same for an ``AsyncPipeline``."""

    def __init__(self, *answers: FakeResponse) -> None:
        self.fake = FakeTransport(*answers)
        self.sent = self.fake.sent

    async def send(self, request: Any, **kwargs: Any) -> FakeResponse:
        return self.fake.send(request, **kwargs)

    async def sleep(self, duration: float) -> None: ...
    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def __aexit__(self, *args: object) -> None: ...


def policy(
    endpoint: str = ENDPOINT, key: str | AzureKeyCredential = KEY, now: int = NOW
) -> HMACCredentialsPolicy:
    return HMACCredentialsPolicy(endpoint, key, now=lambda: now)


def sign(http_request: Any, signer: Any = None, transport: Any = None, **options: Any) -> Any:
    """The headers that the policy signs the request with."""
    request: Any = PipelineRequest(http_request, PipelineContext(transport, **options))
    (signer or policy()).on_request(request)
    assert "enforce_https" not in request.context.options
    return http_request.headers


@pytest.mark.parametrize("kind", [HttpRequest, LegacyHttpRequest], ids=["rest", "legacy"])
@pytest.mark.parametrize("endpoint", ["{}", "{}/", "bare"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(CASES.index(case)))
def test_the_known_answers_are_met(case: dict[str, Any], endpoint: str, kind: Any) -> None:
    """Every case of conformance/hmac.json, for each spelling of the endpoint."""
    origin = "/".join(case["url"].split("/")[:3])
    endpoint = origin.removeprefix("https://") if endpoint == "bare" else endpoint.format(origin)
    body = {"content": case["body"]} if kind is HttpRequest else {"data": case["body"]}
    headers = sign(kind(case["method"], case["url"], **body), policy(endpoint, case["key"]))
    assert {name: headers[name] for name in SIGNED} == case["headers"]


def test_a_fake_transport_of_either_kind_gets_the_known_answer() -> None:
    """One class serves both pipelines."""
    case = CASES[6]
    assert "%3A" in case["url"]
    transport, async_transport = FakeTransport(), AsyncFakeTransport()
    request = HttpRequest(case["method"], case["url"])

    async def run() -> None:
        async with AsyncPipeline(async_transport, [policy(key=case["key"])]) as pipeline:
            await pipeline.run(copy.deepcopy(request))

    with Pipeline(transport, [policy(key=case["key"])]) as pipeline:
        pipeline.run(copy.deepcopy(request))
    asyncio.run(run())
    for url, headers in transport.sent + async_transport.sent:
        assert url == case["url"]
        assert headers["authorization"] == case["headers"]["authorization"]


def signature(url: str, transport: Any = None) -> str:
    authorization: str = sign(HttpRequest("GET", url), transport=transport)["Authorization"]
    return authorization


@pytest.mark.parametrize(
    ("tail", "sent", "sent_by_aiohttp"),
    [
        ("", "/", "/"),
        ("?", "/", "/"),
        ("?a=1", "/?a=1", "/?a=1"),
        ("/a?", "/a", "/a"),
        ("/a#f", "/a", "/a"),
        ("/a b?x=1 2", "/a%20b?x=1%202", "/a%20b?x=1+2"),
        ("/a+b?x=1+2", "/a+b?x=1+2", "/a+b?x=1+2"),
        ("/%2f%2B?x=%3d%26", "/%2F%2B?x=%3D%26", "/%2F%2B?x=%3D%26"),
        ("/8%3Aacs%40?x=%2F%3A", "/8%3Aacs%40?x=%2F%3A", "/8:acs@?x=/:"),
        ("/~%7E%41", "/~~A", "/~~A"),
        ("/\u017e?\u260e", "/%C5%BE?%E2%98%8E", "/%C5%BE?%E2%98%8E"),
        ("/a/../b/./c", "/b/c", "/b/c"),
        ("/a//b/", "/a//b/", "/a//b/"),
        ("/:@;,'?:@;,[]'", "/:@;,'?:@;,%5B%5D'", "/:@;,'?:@;,%5B%5D'"),
        ("/100%", "/100%25", "/100%25"),
    ],
)
def test_the_url_is_signed_as_the_transport_sends_it(
    tail: str, sent: str, sent_by_aiohttp: str
) -> None:
    """A URL has the signature of the one that is sent; only aiohttp decodes some escapes."""

    class MyTransport(AioHttpTransport):  # type: ignore[misc]
        pass

    class Wrapper(AsyncFakeTransport):
        def __init__(self, transport: object) -> None:
            super().__init__()
            self._transport = transport

    # "as sent" is signed without any library: aiohttp's forms are plain text already.
    assert signature(ENDPOINT + tail) == signature(ENDPOINT + sent)
    assert signature(ENDPOINT + tail, RequestsTransport()) == signature(ENDPOINT + sent)
    assert signature(ENDPOINT + tail, AioHttpTransport()) == signature(ENDPOINT + sent_by_aiohttp)
    assert signature(ENDPOINT + tail, MyTransport()) == signature(ENDPOINT + sent_by_aiohttp)
    wrapped = Wrapper(Wrapper(AioHttpTransport()))
    assert signature(ENDPOINT + tail, wrapped) == signature(ENDPOINT + sent_by_aiohttp)
    assert signature(ENDPOINT + tail, Wrapper(RequestsTransport())) == signature(ENDPOINT + sent)
    assert signature(ENDPOINT + tail, unittest.mock.Mock()) == signature(ENDPOINT + sent)


@pytest.mark.parametrize(
    ("endpoint", "url", "host"),
    [
        (ENDPOINT, f"{ENDPOINT}:443/a", "contoso.communication.azure.com"),
        (f"{ENDPOINT}:443", f"{ENDPOINT}/a", "contoso.communication.azure.com"),
        ("HTTPS://Contoso.Example", "https://contoso.example/a", "contoso.example"),
        ("https://contoso.example", "HTTPS://CONTOSO.EXAMPLE/a", "contoso.example"),
        ("Contoso.Example:8443/", "https://contoso.example:8443/a", "contoso.example:8443"),
        ("https://[::1]:8443", "https://[::1]:8443/a", "[::1]:8443"),
    ],
)
def test_the_host_is_signed_as_it_is_sent(endpoint: str, url: str, host: str) -> None:
    """In lower case, without the default port, and whatever Host header there was."""
    request = HttpRequest("GET", url, headers={"Host": "evil.example"})
    headers = sign(request, policy(endpoint))
    assert headers["host"] == host
    assert (
        headers["authorization"]
        == (sign(HttpRequest("get", f"https://{host}/a"), policy(host))["authorization"])
    )


@pytest.mark.parametrize(
    ("body", "content_hash"),
    [
        ({}, EMPTY_HASH),
        ({"content": ""}, EMPTY_HASH),
        ({"content": b""}, EMPTY_HASH),
        ({"data": {"a": ""}}, EMPTY_HASH),
        ({"content": "abc"}, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
        ({"content": b"abc"}, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
        ({"content": bytearray(b"abc")}, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
        ({"content": memoryview(b"abc")}, "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
        ({"content": b"\xff"}, "qBAK5qoZQNC2Y7sxzUZhQuu9vVGHExuS2TgYmHgy64k="),
        ({"content": "\u00e9"}, "SplVfkAzw1Od4utlRyAXytX5VX96BiWgnxw/biumnEw="),
        ({"json": {"a": "\u00e9"}}, "G7BEoJfyhcXpsnvUkjCkjqOipooHKDsh9qRgCfN2UBQ="),
        (
            {"data": {"a": "\u00e9 b", "c": [1, "&"]}},
            "zGmDkBMbz7VlvkSOHY1HbvIqCqlyTfr9GLx5cxB6Y2E=",
        ),
    ],
)
def test_the_hash_is_that_of_the_body_as_it_is_sent(
    body: dict[str, Any], content_hash: str
) -> None:
    """Text in UTF-8, JSON, bytes of any kind, and forms; no body is an empty one."""
    request = HttpRequest("POST", f"{ENDPOINT}/a", **body)
    assert sign(request)["x-ms-content-sha256"] == content_hash


def chunks() -> Iterator[bytes]:
    yield b"abc"


async def async_chunks() -> AsyncIterator[bytes]:
    yield b"abc"


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest("POST", f"{ENDPOINT}/a", content=chunks()),
        HttpRequest("POST", f"{ENDPOINT}/a", content=async_chunks()),
        HttpRequest("POST", f"{ENDPOINT}/a", content=io.BytesIO(b"abc")),
        HttpRequest("POST", f"{ENDPOINT}/a", content=io.StringIO("abc")),  # type: ignore[arg-type]
        HttpRequest("POST", f"{ENDPOINT}/a", content=[b"abc"]),
        HttpRequest("POST", f"{ENDPOINT}/a", files={"f": b"abc"}),
        HttpRequest("POST", f"{ENDPOINT}/a", files={"f": b"abc"}, data={"a": "b"}),
        LegacyHttpRequest("POST", f"{ENDPOINT}/a", files={"f": b"abc"}),
        LegacyHttpRequest("POST", f"{ENDPOINT}/a", files={"f": b"abc"}, data={"a": "b"}),
        LegacyHttpRequest("POST", f"{ENDPOINT}/a", data=chunks()),  # type: ignore[arg-type]
    ],
)
def test_a_body_that_cannot_be_signed_is_refused_untouched(request_: Any) -> None:
    """The error says what to do, nothing is read from the body, and nothing is sent."""
    transport = FakeTransport()
    with (
        Pipeline(transport, [RetryPolicy(), policy()]) as pipeline,
        pytest.raises(TypeError, match="Read it into bytes first"),
    ):
        pipeline.run(request_)
    assert transport.sent == []
    assert not set(map(str.lower, request_.headers)) & ADDED
    if isinstance(request_.data, Iterator):
        assert "".join(str(part) for part in request_.data) in ("abc", "b'abc'")


@pytest.mark.parametrize("kind", [HttpRequest, LegacyHttpRequest], ids=["rest", "legacy"])
@pytest.mark.parametrize("body", [None, "abc", "", b"\xff", {"a": "b"}, bytearray(b"abc")])
def test_the_request_keeps_its_url_method_and_body(kind: Any, body: Any) -> None:
    """Only the headers of the signature are new, and one that asks for the request's id."""
    before = copy.deepcopy(body)
    request = kind("post", f"{ENDPOINT}/a b/%2f?x=\u017e", data=body)
    data = request.data
    headers = dict(request.headers)
    sign(request)
    assert request.url == f"{ENDPOINT}/a b/%2f?x=\u017e"
    assert request.method == "post"
    assert request.data is data
    assert request.data == before
    assert {k: v for k, v in request.headers.items() if k.lower() not in ADDED} == headers
    assert request.headers["x-ms-return-client-request-id"] == "true"


def test_a_content_length_in_characters_is_corrected() -> None:
    """azure-core counts the characters of a text, and aiohttp would send that many bytes of it."""
    request = HttpRequest("POST", f"{ENDPOINT}/a", content="\u017elu\u0165 \u260e")
    assert request.headers["Content-Length"] == "6"
    assert sign(request)["Content-Length"] == "10"
    request = HttpRequest("POST", f"{ENDPOINT}/a", content="\u017e")
    del request.headers["Content-Length"]
    assert "Content-Length" not in sign(request)


def test_a_request_can_be_sent_again() -> None:
    """Headers of an earlier signature do not get into the next one."""
    transport = FakeTransport()
    request = HttpRequest("POST", f"{ENDPOINT}/a", json={"a": "b"})
    client: Any = PipelineClient(ENDPOINT, transport=transport, policies=[policy()])
    with client:
        client.send_request(request)
        client.send_request(request)
    assert len(transport.sent) == 2
    assert transport.sent[0] == transport.sent[1]


def clock() -> Any:
    """One second later at each look."""
    times = iter(range(NOW, NOW + 100))
    return lambda: next(times)


def test_each_try_is_signed_afresh() -> None:
    """After the retry policy, each attempt has its own date and a signature that fits it."""
    request = HttpRequest("POST", f"{ENDPOINT}/a", json={"a": "b"})
    busy = FakeResponse(503, {"Retry-After": "0"})
    transport, async_transport = FakeTransport(busy, busy), AsyncFakeTransport(busy, busy)
    with Pipeline(
        transport, [RetryPolicy(), HMACCredentialsPolicy(ENDPOINT, KEY, now=clock())]
    ) as pipeline:
        pipeline.run(copy.deepcopy(request))

    async def run() -> None:
        signer = HMACCredentialsPolicy(ENDPOINT, KEY, now=clock())
        async with AsyncPipeline(async_transport, [AsyncRetryPolicy(), signer]) as async_pipeline:
            await async_pipeline.run(copy.deepcopy(request))

    asyncio.run(run())
    assert async_transport.sent == transport.sent
    assert [headers["x-ms-date"] for _, headers in transport.sent] == [
        "Tue, 24 Nov 2026 03:04:05 GMT",
        "Tue, 24 Nov 2026 03:04:06 GMT",
        "Tue, 24 Nov 2026 03:04:07 GMT",
    ]
    for second, (_, headers) in enumerate(transport.sent):
        expected = sign(copy.deepcopy(request), policy(now=NOW + second))["Authorization"]
        assert headers["authorization"] == expected
    assert len({headers["authorization"] for _, headers in transport.sent}) == 3


def test_a_rotated_key_counts_at_once() -> None:
    """Even between two attempts of one request."""
    credential = AzureKeyCredential(KEY)

    class Rotate(SansIOHTTPPolicy[Any, Any]):
        def on_response(self, request: Any, response: Any) -> None:
            credential.update(OTHER_KEY)

    transport = FakeTransport(FakeResponse(503, {"Retry-After": "0"}))
    with Pipeline(transport, [RetryPolicy(), Rotate(), policy(key=credential)]) as pipeline:
        pipeline.run(HttpRequest("GET", f"{ENDPOINT}/a"))
    expected = [
        sign(HttpRequest("GET", f"{ENDPOINT}/a"), policy(key=key))["Authorization"]
        for key in (KEY, OTHER_KEY)
    ]
    assert [headers["authorization"] for _, headers in transport.sent] == expected
    assert expected[0] != expected[1]


def test_a_key_rotated_to_what_is_no_key_is_refused_without_being_quoted() -> None:
    """The rotation itself is azure-core's, so the next request tells."""
    credential = AzureKeyCredential(KEY)
    signer = policy(key=credential)
    credential.update("secret of mine")
    with pytest.raises(ValueError, match="access_key is not a base64 access key") as caught:
        sign(HttpRequest("GET", f"{ENDPOINT}/a"), signer)
    assert "secret" not in str(caught.value)
    credential.update(OTHER_KEY)
    assert "Authorization" in sign(HttpRequest("GET", f"{ENDPOINT}/a"), signer)


def test_the_systems_clock_is_the_default() -> None:
    """The date is now's, in HTTP's form, whatever the locale."""
    headers = sign(HttpRequest("GET", f"{ENDPOINT}/a"), HMACCredentialsPolicy(ENDPOINT, KEY))
    assert headers["x-ms-date"].endswith(" GMT")
    assert headers["x-ms-date"] != "Tue, 24 Nov 2026 03:04:05 GMT"


FOREIGN = [
    "https://evil.example/a",
    "https://contoso.communication.azure.com.evil.example/a",
    "https://contoso.communication.azure.comevil/a",
    "https://contoso.communication.azure.com:8443/a",
    "https://contoso.communication.azure.com:443:1/a",
    "https://contoso.communication.azure.com:8443:443/a",
    "https://contoso.communication.azure.com:443:443/a",
    "https://contoso.communication.azure.com:/a",
    "https://contoso.communication.azure.com:443x/a",
    "https://contoso.communication.azure.com./a",
    "https://contoso.communication.azure.com@evil.example/a",
    "https://contoso.communication.azure.com:443@evil.example/a",
    "https://contoso.communication.azure.com\\@evil.example/a",
    "https://contoso.communication.azure.com\\.evil.example/a",
    "https://contoso.communication.azure.com\t.evil.example/a",
    "https://contoso.communication.azure.com;.evil.example/a",
    "https://contoso.communication.azure.com%2eevil.example/a",
    "https://me@contoso.communication.azure.com/a",
    "https://evil.example/https://contoso.communication.azure.com/a",
    "https://evil.example?https://contoso.communication.azure.com/a",
    "https:contoso.communication.azure.com/a",
    "https:///contoso.communication.azure.com/a",
    " https://contoso.communication.azure.com/a",
    "ftp://contoso.communication.azure.com/a",
    "//contoso.communication.azure.com/a",
    "/a",
    "",
    "http://contoso.communication.azure.com/a",
    "HTTP://contoso.communication.azure.com/a",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_no_signature_is_made_for_another_host_or_plain_http(url: str) -> None:
    """The request does not leave, is not retried, and carries no header of the signature."""
    transport = FakeTransport()
    request = HttpRequest("GET", url)
    with (
        Pipeline(transport, [RetryPolicy(), policy()]) as pipeline,
        pytest.raises(
            ClientAuthenticationError, match=r"goes to a host that may not|over plain http"
        ),
    ):
        pipeline.run(request, enforce_https=False)
    assert transport.sent == []
    assert dict(request.headers) == {}


def test_a_host_that_only_lower_case_makes_the_endpoints_is_another_host() -> None:
    """The Kelvin sign becomes a k in lower case; what a resolver makes of it is not known here."""
    with pytest.raises(ClientAuthenticationError, match="goes to a host that may not"):
        sign(HttpRequest("GET", "https://\u212aontoso.example/a"), policy("kontoso.example"))


def test_a_client_does_not_sign_an_absolute_url_of_another_host() -> None:
    """``send_request`` takes absolute URLs, which its base URL does not bind."""
    transport = FakeTransport()
    client: Any = PipelineClient(ENDPOINT, transport=transport, policies=[policy()])
    with client, pytest.raises(ClientAuthenticationError, match="goes to a host that may not"):
        client.send_request(HttpRequest("GET", "https://evil.example/a"))
    assert transport.sent == []


@pytest.mark.parametrize("location", FOREIGN[:4] + FOREIGN[-2:])
def test_no_redirect_carries_a_signature_to_another_host(location: str) -> None:
    """The first request is sent, but not the one that it was redirected to."""
    moved = FakeResponse(307, {"location": location})
    transport, async_transport = FakeTransport(moved), AsyncFakeTransport(moved)
    with (
        Pipeline(transport, [RedirectPolicy(), RetryPolicy(), policy()]) as pipeline,
        pytest.raises(ClientAuthenticationError),
    ):
        pipeline.run(HttpRequest("GET", f"{ENDPOINT}/a"))

    async def run() -> None:
        policies: list[Any] = [AsyncRedirectPolicy(), AsyncRetryPolicy(), policy()]
        async with AsyncPipeline(async_transport, policies) as async_pipeline:
            await async_pipeline.run(HttpRequest("GET", f"{ENDPOINT}/a"))

    with pytest.raises(ClientAuthenticationError):
        asyncio.run(run())
    assert [url for url, _ in transport.sent + async_transport.sent] == [f"{ENDPOINT}/a"] * 2


@pytest.mark.parametrize("location", ["/b", f"{ENDPOINT}/b", f"{ENDPOINT}:443/b"])
def test_a_redirect_on_the_same_host_is_signed_for_its_own_url(location: str) -> None:
    """The signature of the first URL would not fit the second."""
    transport = FakeTransport(FakeResponse(307, {"location": location}))
    with Pipeline(transport, [RedirectPolicy(), RetryPolicy(), policy()]) as pipeline:
        pipeline.run(HttpRequest("GET", f"{ENDPOINT}/a"))
    assert [headers["authorization"] for _, headers in transport.sent] == [
        signature(f"{ENDPOINT}/a"),
        signature(f"{ENDPOINT}/b"),
    ]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests do not depend on the machine's proxy settings."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:80", "127.1.2.3:1", "[::1]:8080"])
def test_plain_http_to_a_loopback_address_takes_an_explicit_option(host: str) -> None:
    """azure-core's ``enforce_https=False`` allows it, for each attempt of the request."""
    transport = FakeTransport(FakeResponse(503, {"Retry-After": "0"}))
    with Pipeline(transport, [RetryPolicy(), policy(host)]) as pipeline:
        for options in ({}, {"enforce_https": True}):
            with pytest.raises(ClientAuthenticationError, match="over plain http"):
                pipeline.run(HttpRequest("GET", f"http://{host}/a"), **options)
        assert transport.sent == []
        pipeline.run(HttpRequest("GET", f"http://{host}/a"), enforce_https=False)
    assert [headers["host"] for _, headers in transport.sent] == [host, host]


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1/a"),
        ("[::1]", "http://[::1]/a"),
        ("[::1]:443", "http://[::1]:80/a"),
        ("[::1]:8080", "http://[::1]/a"),
        ("localhost:8080", "http://localhost:8081/a"),
    ],
)
def test_plain_http_goes_to_the_endpoints_own_port(endpoint: str, url: str) -> None:
    """A default port is another one for each scheme."""
    with pytest.raises(ClientAuthenticationError, match="goes to a host that may not"):
        sign(HttpRequest("GET", url), policy(endpoint), enforce_https=False)


@pytest.mark.parametrize(
    ("environment", "options", "says"),
    [
        ({"HTTP_PROXY": "http://proxy.example"}, {}, "through a proxy"),
        ({"http_proxy": "http://proxy.example"}, {}, "through a proxy"),
        ({"ALL_PROXY": "http://proxy.example"}, {}, "through a proxy"),
        ({"HTTP_PROXY": "http://proxy.example", "NO_PROXY": "example.com"}, {}, "through a proxy"),
        ({}, {"proxies": {"http": "http://proxy.example"}}, "through a proxy"),
        ({}, {"proxies": {"http://127.0.0.1": "http://proxy.example"}}, "through a proxy"),
        ({}, {"proxy": "http://proxy.example"}, "through a proxy"),
        ({"HTTP_PROXY": "http://proxy.example", "NO_PROXY": "127.0.0.1"}, {}, None),
        ({"HTTPS_PROXY": "http://proxy.example"}, {"proxies": {"https": "x", "http": None}}, None),
    ],
)
def test_plain_http_does_not_go_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: dict[str, Any],
    says: str | None,
) -> None:
    """It would see the credential; over https it sees nothing."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    signer = policy("127.0.0.1:8080")
    sign(HttpRequest("GET", "https://127.0.0.1:8080/a"), signer, **options)
    request = HttpRequest("GET", "http://127.0.0.1:8080/a")
    if says is None:
        assert "Authorization" in sign(request, signer, enforce_https=False, **options)
    else:
        with pytest.raises(ClientAuthenticationError, match=says):
            sign(request, signer, enforce_https=False, **options)


def test_plain_http_to_an_ipv6_address_may_bypass_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``NO_PROXY`` has such addresses without brackets."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("NO_PROXY", "::1")
    request = HttpRequest("GET", "http://[::1]:8080/a")
    assert "Authorization" in sign(request, policy("[::1]:8080"), enforce_https=False)


STORAGE = [".asm.skype.com", "one.example.com"]


@pytest.mark.parametrize("host", ["us.asm.skype.com", "A.b.ASM.skype.com:443", "one.example.com"])
def test_further_hosts_are_signed_for_as_the_resource(host: str) -> None:
    """Its host is sent along, and the Host header is the transport's, whatever it was before."""
    signer = HMACCredentialsPolicy(ENDPOINT, KEY, additional_hosts=STORAGE, now=lambda: NOW)
    for url in (f"https://{host}/v1/a?b=c", f"HTTPS://{host}/v1/a?b=c"):
        request = HttpRequest("GET", url, headers={"Host": "contoso.communication.azure.com"})
        headers = sign(request, signer)
        assert headers["x-ms-host"] == "contoso.communication.azure.com"
        assert "Host" not in headers
        assert headers["Authorization"] == signature(f"{ENDPOINT}/v1/a?b=c")
        assert signature(f"{ENDPOINT}/v1/a?b=c").endswith(
            "=OT4BdJcnVl5pyICtI0JlRuAALSzPg63yWHMfCwJGkAA="
        )


LOOK_ALIKES = [
    "https://asm.skype.com/a",
    "https://.asm.skype.com/a",
    "https://evilasm.skype.com/a",
    "https://us-asm.skype.com/a",
    "https://us.asm.skype.com.evil.example/a",
    "https://us.asm.skype.com./a",
    "https://us.asm.skype.com@evil.example/a",
    "https://evil.example@us.asm.skype.com/a",
    "https://evil.example\\.asm.skype.com/a",
    "https://evil.example/.asm.skype.com",
    "https://evil.example#.asm.skype.com",
    "https://evil.example?.asm.skype.com",
    "https://us..asm.skype.com/a",
    "https://us.asm.skype.com:8443/a",
    "https://us.asm.skype.com:80/a",
    "https://us.asm.skype.com:443:443/a",
    "https://us.asm.skype.com:/a",
    "https://us%2easm.skype.com/a",
    "https://us.asm.s\u212aype.com/a",
    "https://us.a\u017fm.skype.com/a",
    "https://us\u3002asm.skype.com/a",
    "https://b\u00fccher.asm.skype.com/a",
    "https://us.asm.skype.com\t/a",
    "http://us.asm.skype.com/a",
    "http://us.asm.skype.com:443/a",
    "//us.asm.skype.com/a",
    "https://a.one.example.com/a",
    "https://two.example.com/a",
    "https://127.0.0.1/a",
    *FOREIGN,
]


@pytest.mark.parametrize("url", LOOK_ALIKES)
def test_what_only_looks_like_a_further_host_is_refused(url: str) -> None:
    """Plain http is only for loopback addresses."""
    signer = HMACCredentialsPolicy(ENDPOINT, KEY, additional_hosts=STORAGE)
    request = HttpRequest("GET", url)
    with pytest.raises(
        ClientAuthenticationError, match=r"goes to a host that may not|over plain http"
    ):
        sign(request, signer, enforce_https=False)
    assert dict(request.headers) == {}


@pytest.mark.parametrize("number", [0, 1])
def test_a_redirect_between_the_hosts_is_signed_for_each(number: int) -> None:
    """The headers of the one do not get to the other."""
    urls = [f"{ENDPOINT}/a", "https://us.asm.skype.com/b"]
    first, second = urls[number], urls[1 - number]
    transport = FakeTransport(FakeResponse(307, {"location": second}))
    signer = HMACCredentialsPolicy(ENDPOINT, KEY, additional_hosts=STORAGE)
    with Pipeline(transport, [RedirectPolicy(), RetryPolicy(), signer]) as pipeline:
        pipeline.run(HttpRequest("GET", first))
    assert [url for url, _ in transport.sent] == [first, second]
    for url, headers in transport.sent:
        is_own = url.startswith(ENDPOINT)
        assert headers.get("host") == ("contoso.communication.azure.com" if is_own else None)
        assert headers.get("x-ms-host") == (None if is_own else "contoso.communication.azure.com")


def test_without_further_hosts_a_header_of_the_callers_stays() -> None:
    """They may have their own reasons."""
    host = "contoso.communication.azure.com"
    request = HttpRequest("GET", f"{ENDPOINT}/a", headers={"x-ms-host": host})
    assert sign(request)["x-ms-host"] == host
    request = HttpRequest("GET", f"{ENDPOINT}/a", headers={"x-ms-host": "h"})
    signer = HMACCredentialsPolicy(ENDPOINT, KEY, additional_hosts=STORAGE)
    assert sign(request, signer)["x-ms-host"] == "h"


@pytest.mark.parametrize("hosts", [[".com"], ["a.example.com", "https://b.example.com"]])
def test_further_hosts_are_checked_at_construction(hosts: list[str]) -> None:
    """A mistake shows before a request is made."""
    with pytest.raises(ValueError, match=r"additional_hosts\[\d\] must be a host name with a dot"):
        HMACCredentialsPolicy(ENDPOINT, KEY, additional_hosts=hosts)


def legacy_form(data: Any) -> LegacyHttpRequest:
    request = LegacyHttpRequest("POST", f"{ENDPOINT}/a")
    request.data = data
    return request


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest("POST", f"{ENDPOINT}/a", data={"a": ["x", None]}),
        HttpRequest("POST", f"{ENDPOINT}/a", data={"a": b"x"}),
        HttpRequest("POST", f"{ENDPOINT}/a", data={"a": ["x", b"y"]}),
        legacy_form({"a": None}),
        legacy_form({"a": bytearray(b"x")}),
        legacy_form({"a": [["x"]]}),
        legacy_form({"a": {"b": "c"}}),
        legacy_form({1: "x"}),
        legacy_form({b"a": "x"}),
        legacy_form({"a": io.BytesIO(b"x")}),
    ],
)
def test_a_form_that_transports_send_differently_is_refused(request_: Any) -> None:
    """Signed, it would be an unexplained 401 with one of them."""
    with pytest.raises(TypeError, match=r"str, int, float or lists of them") as caught:
        sign(request_)
    assert len(str(caught.value)) < 200


def test_a_form_may_have_tuples() -> None:
    """They are sent as lists are."""
    hashes = [
        sign(legacy_form({"a": values}))["x-ms-content-sha256"]
        for values in (["x", "y"], ("x", "y"))
    ]
    assert hashes == ["9TY4rOPusKjy9NfiQBWczfQjVqzZTA/UZmN3s6IvGVY="] * 2


def test_a_url_that_is_too_long_is_refused() -> None:
    """Quoting a megabyte takes the libraries more than a second."""
    longest = f"{ENDPOINT}/{'a' * 32_768}"[:32_768]
    assert "Authorization" in sign(HttpRequest("GET", longest))
    for url in (longest + "a", ENDPOINT + "/" + "\u00e9" * 1_000_000):
        with pytest.raises(ValueError, match=r"The URL has \d+ characters, too many"):
            sign(HttpRequest("GET", url))


@pytest.mark.parametrize("host", ["127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1"])
def test_plain_http_to_any_other_address_is_refused_all_the_same(host: str) -> None:
    """The option is for tests on this machine alone."""
    with pytest.raises(ClientAuthenticationError, match="over plain http"):
        sign(HttpRequest("GET", f"http://{host}/a"), policy(host), enforce_https=False)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ((None, KEY), TypeError, "endpoint must be a str, not NoneType"),
        ((b"h", KEY), TypeError, "endpoint must be a str, not bytes: decode it"),
        ((KEY, ENDPOINT), ValueError, "endpoint looks like an access key"),
        ((f"endpoint=x;accesskey={KEY}", KEY), ValueError, "endpoint is a connection string"),
        ((f"endpoint=h;accesskey={KEY}", KEY), ValueError, "endpoint is a connection string"),
        ((ENDPOINT, ENDPOINT), ValueError, "access_key is an endpoint, not an access key"),
        ((ENDPOINT, f"endpoint=x;accesskey={KEY}"), ValueError, "access_key is a connection str"),
        (("http://contoso.example", KEY), ValueError, "endpoint must be https://<host>"),
        (("", KEY), ValueError, "endpoint must be https://<host>"),
        ((f"{ENDPOINT}/path", KEY), ValueError, "endpoint must be https://<host>"),
        ((ENDPOINT, None), TypeError, "access_key must be a str or an AzureKeyCredential, not"),
        ((ENDPOINT, b"AAEC"), TypeError, "access_key must be a str or an AzureKeyCredential, not"),
        ((ENDPOINT, ""), ValueError, "access_key is not a base64 access key"),
        ((ENDPOINT, KEY[:-1]), ValueError, "access_key is not a base64 access key"),
        ((ENDPOINT, AzureKeyCredential(KEY[:-1])), ValueError, "access_key is not a base64"),
    ],
)
def test_bad_arguments_are_refused_at_construction(
    arguments: tuple[Any, Any], kind: type[Exception], says: str
) -> None:
    """The error names the argument and holds no part of the key."""
    with pytest.raises(kind, match=says) as caught:
        HMACCredentialsPolicy(*arguments)
    assert KEY[:8] not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert caught.value.__context__ is None


def test_the_policy_does_not_show_or_hand_out_its_key() -> None:
    """Neither its repr nor a pickle or copy."""
    signer = policy()
    sign(HttpRequest("GET", f"{ENDPOINT}/a"), signer)
    assert KEY not in repr(signer)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds an access key"):
            leave(signer)


def test_signing_a_plain_url_imports_neither_requests_nor_aiohttp() -> None:
    """They are loaded by the transports that use them, or for a URL that only they can tell of."""
    code = (
        "import sys\n"
        "from azure.core.pipeline import PipelineContext, PipelineRequest\n"
        "from azure.core.rest import HttpRequest\n"
        "from azure.communication.common import HMACCredentialsPolicy\n"
        f"request = HttpRequest('GET', '{ENDPOINT}/8%3Aacs?x=%2F')\n"
        f"policy = HMACCredentialsPolicy('{ENDPOINT}', '{KEY}')\n"
        "policy.on_request(PipelineRequest(request, PipelineContext(None)))\n"
        "print('Authorization' in request.headers)\n"
        "print({'requests', 'aiohttp', 'yarl'} & set(sys.modules))\n"
    )
    root = str(Path(sys.modules[HMACCredentialsPolicy.__module__].__file__ or "").parents[3])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout == "True\nset()\n"
