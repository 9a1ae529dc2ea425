"""Authentication in a pipeline: which policy, where the credential may go, and revoked tokens.

One table drives the synchronous and the asynchronous policy alike, each in a pipeline of its kind.
"""

import asyncio
import gc
import io
import logging
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import azure.communication.common
import azure.core.pipeline.policies as core_policies
import pytest
from azure.communication.common import HMACCredentialsPolicy, aio, get_authentication_policy
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.credentials import AccessToken, AccessTokenInfo, AzureKeyCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline import PipelineContext, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    BearerTokenCredentialPolicy,
    SansIOHTTPPolicy,
)
from azure.core.pipeline.transport import HttpRequest as LegacyHttpRequest
from azure.core.rest import HttpRequest

from fake_transport import WAYS, Answer, Sent, Way
from local_service import LocalService
from scaffolding import DEADLINE, Clock, Issuer, call_together, make_token, on_clock, run_async

ENDPOINT = "https://contoso.communication.azure.com"
URL = ENDPOINT + "/chat/threads?api-version=2024-03-07"
CLAIMS = {"WWW-Authenticate": 'Bearer error="insufficient_claims", claims="eyJhIjoxfQ"'}
PACKAGE = str(Path(str(azure.communication.common.__file__)).parent)
SCOPE = "https://communication.azure.com//.default"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

answers_claims_challenges = pytest.mark.skipif(
    "get_challenge_parameter" not in vars(core_policies._utils),
    reason="this release of azure-core does not answer claims challenges",
)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


class Service:
    """Refuses some tokens, or all; ``challenge`` is what its 401 says."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.refuses_all = False
        self.challenge = ""

    def __call__(self, sent: Sent) -> Answer:
        if self.refuses_all or sent.token in self.refused:
            return Answer(
                401, headers={"WWW-Authenticate": self.challenge} if self.challenge else {}
            )
        return Answer(200)


class Scene:
    """A client with our policy and one credential, and the service in front of it."""

    def __init__(self, way: Way, credential: Any, *script: Any, default: Any = None) -> None:
        self.way, self.credential = way, credential
        self.service = Service()
        self.transport = way.Transport(*script, default=default or self.service)
        self.client = self.new_client()

    def new_client(self) -> Any:
        policies = [
            self.way.RedirectPolicy(),
            self.way.RetryPolicy(),
            self.way.get_policy(ENDPOINT, self.credential),
        ]
        return self.way.Client(ENDPOINT, policies=policies, transport=self.transport)

    @property
    def tokens(self) -> list[str]:
        """The tokens that were sent, numbered by their first appearance."""
        tokens = [sent.token for sent in self.transport.sent]
        order = list(dict.fromkeys(tokens))
        return [f"T{order.index(token) + 1}" for token in tokens]

    def send(self, request: Any = None, *, client: Any = None, **options: Any) -> int:
        """Send a request, and return the status of the response."""
        request = HttpRequest("GET", URL) if request is None else request
        send = (client or self.client).send_request
        return self.way.call(send, request, **options).status_code  # type: ignore[no-any-return]

    def revoke(self) -> None:
        """Have the service refuse the token that was sent last."""
        self.service.refused.add(self.transport.sent[-1].token)


def refreshed(way: Way, issuer: Callable[[], Any], **options: Any) -> Any:
    """Return one of our credentials."""
    return way.Credential(token_refresher=issuer, **options)


class Foreign:
    """A credential of another package: it returns its tokens in turn, and the last one forever.

    ``asked`` has the scopes and options of each call.
    """

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.asked.append((scopes, options))
        return AccessToken(self._next(), int(time.time()) + 3600)

    def _next(self) -> str:
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]


class ForeignInfo(Foreign):
    """One that has ``get_token_info``, which azure-core prefers."""

    def get_token_info(self, *scopes: str, options: dict[str, Any]) -> AccessTokenInfo:
        self.asked.append((scopes, dict(options)))
        return AccessTokenInfo(self._next(), int(time.time()) + 3600)


# --- Which policy


@pytest.mark.parametrize("key", [KEY, AzureKeyCredential(KEY)], ids=["str", "AzureKeyCredential"])
def test_a_key_signs(way: Way, key: Any) -> None:
    """In both pipelines with the same class."""
    assert type(way.get_policy(ENDPOINT, key)) is HMACCredentialsPolicy
    scene = Scene(way, key, default=Answer(200))
    assert scene.send() == 200
    authorization = scene.transport.sent[0].headers["authorization"]
    assert authorization.startswith("HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&")


@pytest.mark.parametrize("kind", [Foreign, ForeignInfo])
def test_a_token_credential_bears(way: Way, kind: type[Foreign]) -> None:
    """Through either of azure-core's protocols, for the scope of the service."""
    credential = kind("one")
    scene = Scene(way, way.twin(credential))
    assert scene.send() == 200
    assert scene.transport.sent[0].headers["authorization"] == "Bearer one"
    assert credential.asked == [((SCOPE,), {})]


def test_the_policy_is_one_of_azure_cores_kind() -> None:
    """Whoever looks for the bearer policy in a pipeline finds it."""
    policy = get_authentication_policy(ENDPOINT, Foreign("one"))
    twin = aio.get_authentication_policy(ENDPOINT, WAYS["aio"].twin(Foreign("one")))
    assert isinstance(policy, BearerTokenCredentialPolicy)
    assert isinstance(twin, AsyncBearerTokenCredentialPolicy)


@pytest.mark.parametrize(
    ("endpoint", "credential", "error", "message"),
    [
        (
            ENDPOINT,
            None,
            TypeError,
            "credential must be a token credential or an access key .*: is",
        ),
        (
            ENDPOINT,
            5,
            TypeError,
            "credential must be a token credential or an access key .* not int",
        ),
        (ENDPOINT, b"k", TypeError, "credential must be a token .* not bytes: decode it"),
        (ENDPOINT, "not base64", ValueError, "credential is not a base64 access key"),
        (ENDPOINT, AzureKeyCredential("secret"), ValueError, "credential is not a base64 access"),
        (ENDPOINT, ENDPOINT, ValueError, "credential is an endpoint, not an access key"),
        (ENDPOINT.encode(), KEY, TypeError, "endpoint must be a str, not bytes: decode it"),
        ("http://contoso.com", Foreign("one"), ValueError, "endpoint must be https://"),
        (ENDPOINT + "/path", Foreign("one"), ValueError, "endpoint must be https://"),
        (None, KEY, TypeError, "endpoint must be a str, not NoneType"),
    ],
)
def test_other_arguments_are_refused(
    way: Way, endpoint: Any, credential: Any, error: type[Exception], message: str
) -> None:
    """The message names the argument, and does not show a key."""
    with pytest.raises(error, match=message) as caught:
        way.get_policy(endpoint, credential)
    message_ = str(caught.value)
    assert "not base64" not in message_
    assert "secret" not in message_
    assert KEY not in message_
    assert len(message_) < 200


# --- A token that is refused


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer error="invalid_token", error_description="revoked"']
)
def test_a_revoked_token_costs_one_refresh_and_one_replay(way: Way, challenge: str) -> None:
    """Whatever the 401 says; the caller does not notice, and later requests cost neither."""
    issuer = Issuer()
    scene = Scene(way, refreshed(way, issuer))
    scene.service.challenge = challenge
    assert scene.send() == 200
    scene.revoke()
    assert scene.send() == 200
    assert scene.send() == 200
    assert scene.tokens == ["T1", "T1", "T2", "T2"]
    assert issuer.calls == 2


def test_a_second_401_is_the_callers(way: Way) -> None:
    """One replay, and no more; not even of the retry policy."""
    issuer = Issuer()
    scene = Scene(way, refreshed(way, issuer), default=Answer(401, b"body"))
    assert scene.send() == 401
    assert scene.tokens == ["T1", "T2"]
    assert issuer.calls == 2


def test_a_static_token_is_not_sent_again(way: Way) -> None:
    """There is no other; every request returns its 401."""
    scene = Scene(way, way.Credential(make_token(time.time() + 3600)), default=Answer(401))
    assert scene.send() == 401
    assert scene.send() == 401
    assert scene.tokens == ["T1", "T1"]


def test_another_credential_is_asked_again(way: Way) -> None:
    """One without ``invalidate_token`` may still have another token."""
    credential = Foreign("one", "two")
    scene = Scene(way, way.twin(credential), Answer(401))
    assert scene.send() == 200
    assert [sent.token for sent in scene.transport.sent] == ["one", "two"]
    assert len(credential.asked) == 2


def test_another_credential_with_the_same_token_is_no_reason_to_send_again(way: Way) -> None:
    """Its cache knows nothing of the 401."""
    credential = Foreign("one")
    scene = Scene(way, way.twin(credential), Answer(401))
    assert scene.send() == 401
    assert len(credential.asked) == 2


def test_a_401_that_was_not_about_the_token_is_forgotten(way: Way) -> None:
    """Once the token is accepted, the policy continues with it and need not ask each time."""
    credential = Foreign("one")
    scene = Scene(way, way.twin(credential), Answer(401))
    statuses = [scene.send() for _ in range(4)]
    assert statuses == [401, 200, 200, 200]
    assert len(credential.asked) == 3  # at first, after the 401, and with the second request


def test_the_policy_asks_only_when_it_has_to(way: Way) -> None:
    """azure-core's cache stays in force: a credential may be slow."""
    credential = Foreign("one")
    scene = Scene(way, way.twin(credential))
    assert [scene.send() for _ in range(5)] == [200] * 5
    assert len(credential.asked) == 1


def test_a_401_for_an_older_token_changes_nothing(way: Way) -> None:
    """Others have replaced it since the request left, so there is no reason to refresh again."""
    issuer = Issuer()

    def refuse_late(sent: Sent) -> Answer:
        scene.credential.invalidate_token(sent.token)
        replaced.append(way.call(scene.credential.get_token).token)
        return Answer(401)

    replaced: list[str] = []
    if way is WAYS["aio"]:  # whose answer may be awaited, on the loop that runs

        async def refuse_late(sent: Sent) -> Answer:  # type: ignore[no-redef]
            scene.credential.invalidate_token(sent.token)
            replaced.append((await scene.credential.get_token()).token)
            return Answer(401)

    scene = Scene(way, refreshed(way, issuer), refuse_late)
    assert scene.send() == 200
    assert scene.tokens == ["T1", "T2"]
    assert scene.transport.sent[-1].token == replaced[0]
    assert issuer.calls == 2


def test_a_token_that_another_client_had_refused_is_not_sent_again(way: Way) -> None:
    """The credential is asked for each request, so the policies know at once."""
    issuer = Issuer()
    scene = Scene(way, refreshed(way, issuer))
    other = scene.new_client()
    assert [scene.send(client=other), scene.send()] == [200, 200]
    scene.revoke()
    assert [scene.send(), scene.send(client=other)] == [200, 200]
    assert scene.tokens == ["T1", "T1", "T1", "T2", "T2"]
    assert issuer.calls == 2


def test_nothing_is_sent_after_close(way: Way) -> None:
    """Closed is final at once, though the token would still be valid."""
    scene = Scene(way, refreshed(way, Issuer()))
    assert scene.send() == 200
    closed = scene.credential.close()
    if closed is not None:
        way.call(lambda: closed)
    with pytest.raises(RuntimeError, match="closed"):
        scene.send()
    assert len(scene.transport.sent) == 1


def reachable(root: object) -> list[str]:
    """Return the texts that the garbage collector finds behind an object."""
    seen: dict[int, Any] = {}
    todo: list[Any] = [root]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, (type, ModuleType, FunctionType)):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    return [one for one in seen.values() if isinstance(one, str)]


def test_the_policy_keeps_no_token_of_a_credential_that_keeps_it(way: Way) -> None:
    """After ``close``, no token can be reached from it."""
    scene = Scene(way, refreshed(way, Issuer()))
    policy = way.get_policy(ENDPOINT, scene.credential)
    client = way.Client(ENDPOINT, policies=[policy], transport=scene.transport)
    assert scene.send(client=client) == 200
    scene.revoke()
    assert scene.send(client=client) == 200
    tokens = {sent.token for sent in scene.transport.sent}
    policy.next = None  # the transport, which records them
    assert tokens & {*reachable(policy)}
    closed = scene.credential.close()
    if closed is not None:
        way.call(lambda: closed)
    assert not tokens & {*reachable(policy)}


def test_the_text_of_a_refused_token_is_not_kept(way: Way) -> None:
    """A hash does, of a foreign credential's too."""
    scene = Scene(way, way.twin(Foreign("first token", "second token")), Answer(401))
    policy = way.get_policy(ENDPOINT, scene.credential)
    client = way.Client(ENDPOINT, policies=[policy], transport=scene.transport)
    assert scene.send(client=client) == 200
    policy.next = None
    texts = reachable(policy)
    assert "second token" in texts  # the test looks where it should
    assert "first token" not in texts


def test_a_failed_refresh_gives_the_401_back(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """Why there is no other token is in the log; the refused one is not sent again."""
    first = make_token(time.time() + 3600)
    issuer = Issuer(first, RuntimeError("the issuer is down"))
    scene = Scene(way, refreshed(way, issuer), default=None)
    scene.send()
    scene.revoke()
    with caplog.at_level(logging.WARNING, "azure.communication.common"):
        assert scene.send() == 401
    assert "The service rejected the token, and there is no other." in caplog.text
    assert "the issuer is down" in caplog.text
    assert first not in caplog.text
    assert scene.send() == 200
    assert scene.tokens == ["T1", "T1", "T2"]
    assert issuer.calls == 3


def test_a_service_that_refuses_every_token_causes_no_storm(way: Way) -> None:
    """In a minute of a request each second, as few tokens are issued as the holds allow."""
    clock = Clock(wall=time.time())
    issuer = Issuer(wall=clock.wall)
    scene = Scene(way, on_clock(way.Credential, clock)(token_refresher=issuer))
    scene.service.refuses_all = True
    statuses, errors = [], []
    for _ in range(60):
        try:
            statuses.append(scene.send())
        except ClientAuthenticationError as error:
            errors.append(str(error))
        clock.advance(1)
    assert set(statuses) == {401}
    assert all("The service rejected" in error for error in errors)
    assert 4 <= issuer.calls <= 8
    assert len(scene.transport.sent) <= issuer.calls + 1


def test_twenty_concurrent_401s_cause_one_refresh() -> None:
    """The threads all sent the same token before any of them was refused."""
    issuer = Issuer()
    barrier = threading.Barrier(20)

    def refuse(sent: Sent) -> Answer:
        barrier.wait(DEADLINE)
        return Answer(401)

    way = WAYS["sync"]
    scene = Scene(way, refreshed(way, issuer), *[refuse] * 20)
    statuses = [call.value() for call in call_together(20, scene.send)]
    assert statuses == [200] * 20
    assert scene.tokens == ["T1"] * 20 + ["T2"] * 20
    assert issuer.calls == 2


def test_twenty_concurrent_401s_cause_one_refresh_in_a_loop() -> None:
    """The coroutines all sent the same token before any of them was refused."""
    issuer = Issuer()

    async def main() -> Scene:
        everyone = asyncio.Event()

        async def refuse(sent: Sent) -> Answer:
            if len(scene.transport.sent) == 20:
                everyone.set()
            await asyncio.wait_for(everyone.wait(), DEADLINE)
            return Answer(401)

        way = WAYS["aio"]
        scene = Scene(way, refreshed(way, issuer.issue), *[refuse] * 20)
        requests = (scene.client.send_request(HttpRequest("GET", URL)) for _ in range(20))
        responses = await asyncio.gather(*requests)
        assert [response.status_code for response in responses] == [200] * 20
        return scene

    scene = run_async(main())
    assert scene.tokens == ["T1"] * 20 + ["T2"] * 20
    assert issuer.calls == 2


def test_ten_policies_with_one_credential_cause_one_refresh() -> None:
    """The threads' own policies all met a 401 for the same token, and the new one stays."""
    issuer = Issuer()
    barrier = threading.Barrier(10)

    def refuse(sent: Sent) -> Answer:
        barrier.wait(DEADLINE)
        return Answer(401)

    way = WAYS["sync"]
    scene = Scene(way, refreshed(way, issuer), *[refuse] * 10)
    clients = [scene.new_client() for _ in range(10)]
    unused = iter(clients)
    calls = call_together(10, lambda: scene.send(client=next(unused)))
    assert [call.value() for call in calls] == [200] * 10
    assert [scene.send(client=client) for client in clients] == [200] * 10
    assert scene.tokens == ["T1"] * 10 + ["T2"] * 20
    assert issuer.calls == 2


def test_ten_policies_with_one_credential_cause_one_refresh_in_a_loop() -> None:
    """The coroutines' own policies all met a 401 for the same token, and the new one stays."""
    issuer = Issuer()

    async def main() -> Scene:
        everyone = asyncio.Event()

        async def refuse(sent: Sent) -> Answer:
            if len(scene.transport.sent) == 10:
                everyone.set()
            await asyncio.wait_for(everyone.wait(), DEADLINE)
            return Answer(401)

        way = WAYS["aio"]
        scene = Scene(way, refreshed(way, issuer.issue), *[refuse] * 10)
        clients = [scene.new_client() for _ in range(10)]
        for _ in range(2):
            requests = (client.send_request(HttpRequest("GET", URL)) for client in clients)
            responses = await asyncio.gather(*requests)
            assert [response.status_code for response in responses] == [200] * 10
        return scene

    scene = run_async(main())
    assert scene.tokens == ["T1"] * 10 + ["T2"] * 20
    assert issuer.calls == 2


class Watched:
    """A token that tells when somebody looks at its expiry, which is where threads may switch."""

    def __init__(self, token: str, look: Callable[[], None]) -> None:
        self.token = token
        self._look = look

    @property
    def expires_on(self) -> int:
        look, self._look = self._look, lambda: None
        look()
        return 4_102_444_800


def test_a_401_of_another_thread_comes_at_any_time() -> None:
    """Also between the check of the token that the policy keeps and its use.

    azure-core's own policy drops its token after a 401, and would then find none.
    """
    scene = Scene(WAYS["sync"], Foreign("unused"), Answer(200), Answer(401))
    statuses: list[int] = []

    def be_refused() -> None:
        statuses.append(scene.send(HttpRequest("POST", URL, content=iter([b"chunk"]))))

    token = Watched("one", be_refused)
    scene.credential.get_token = lambda *scopes, **options: token
    statuses.append(scene.send())
    statuses.append(scene.send())
    assert statuses == [200, 401, 200]
    assert scene.tokens == ["T1"] * 3


# --- What a foreign credential returns

UNSUITABLE = [
    ("secret\n", ValueError, "must be printable ASCII and not empty"),
    ("secret\r\nX-Header: 1", ValueError, "must be printable ASCII and not empty"),
    ("secret\x00", ValueError, "must be printable ASCII and not empty"),
    ("secr\u00e9t", ValueError, "must be printable ASCII and not empty"),
    ("\u2603 secret", ValueError, "must be printable ASCII and not empty"),
    ("", ValueError, "must be printable ASCII and not empty"),
    (b"secret", TypeError, "must be a str, not bytes: decode it"),
    (None, TypeError, "must be a str, not NoneType"),
    (["secret"], TypeError, "must be a str, not list"),
]


@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize("kind", [Foreign, ForeignInfo])
@pytest.mark.parametrize(("text", "error", "message"), UNSUITABLE)
def test_what_no_header_can_carry_is_not_sent(
    way: Way, text: Any, error: type[Exception], message: str, kind: type[Foreign], claims: bool
) -> None:
    """A transport would quote it; this error says what is wrong, and does not."""
    if claims and "get_challenge_parameter" not in vars(core_policies._utils):
        pytest.skip("this release of azure-core does not answer claims challenges")
    credential = kind(*(["good"] if claims else []), text)
    scene = Scene(way, way.twin(credential), Answer(401, headers=CLAIMS))
    request = HttpRequest("GET", URL)
    with pytest.raises(error, match=message) as caught:
        scene.send(request)
    assert "secr" not in "".join(traceback.format_exception(caught.value))
    for frame, _ in traceback.walk_tb(caught.value.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE):
            assert "secr" not in repr(frame.f_locals)
    assert len(scene.transport.sent) == claims
    assert request.headers.get("Authorization", "Bearer good") == "Bearer good"


@pytest.mark.parametrize("answer", [None, "secret", {"token": "secret"}, ("secret", 1)])
def test_what_is_no_token_is_not_sent(way: Way, answer: Any) -> None:
    """The error says what came, and what should have."""
    credential = Foreign("unused")
    credential.get_token = lambda *scopes, **options: answer  # type: ignore[method-assign]
    scene = Scene(way, way.twin(credential))
    kind = type(answer).__name__
    with pytest.raises(
        TypeError, match=f"The credential returned {kind}: an AccessToken"
    ) as caught:
        scene.send()
    assert "secret" not in str(caught.value)
    assert scene.transport.sent == []


def test_a_synchronous_credential_is_checked_in_an_async_pipeline_too() -> None:
    """It works there, if it blocks; its token is in no frame of the error."""
    scene = Scene(WAYS["aio"], Foreign("secret\n"))
    with pytest.raises(ValueError, match="must be printable ASCII") as caught:
        scene.send()
    for frame, _ in traceback.walk_tb(caught.value.__traceback__):
        if frame.f_code.co_filename.startswith(PACKAGE):
            assert "secret" not in repr(frame.f_locals)


def test_an_awaitable_that_nobody_awaits_is_closed() -> None:
    """A synchronous pipeline can be given an asynchronous function in disguise."""

    async def get_token() -> AccessToken:
        raise NotImplementedError

    credential = Foreign("unused")
    credential.get_token = lambda *scopes, **options: get_token()  # type: ignore[assignment,method-assign]
    scene = Scene(WAYS["sync"], credential)
    with pytest.raises(TypeError, match="The credential returned coroutine: an AccessToken"):
        scene.send()


# --- What can be sent again


def form() -> LegacyHttpRequest:
    request = LegacyHttpRequest("POST", URL)
    request.data = {"a": "b"}
    return request


@pytest.mark.parametrize(
    ("request_", "content"),
    [
        (HttpRequest("DELETE", URL), None),
        (HttpRequest("POST", URL, content="text"), "text"),
        (HttpRequest("POST", URL, content=b"\xff"), b"\xff"),
        (HttpRequest("POST", URL, json={"a": 1}), '{"a": 1}'),
        (HttpRequest("POST", URL, data={"a": "b"}), {"a": "b"}),
        (LegacyHttpRequest("GET", URL), None),
        (LegacyHttpRequest("POST", URL, data="text"), "text"),
        (form(), {"a": "b"}),
    ],
)
def test_bodies_that_can_be_read_again_are_sent_again(
    way: Way, request_: Any, content: Any
) -> None:
    """The second request is the first with another token."""
    scene = Scene(way, refreshed(way, Issuer()), Answer(401))
    assert scene.send(request_) == 200
    first, second = scene.transport.sent
    assert scene.tokens == ["T1", "T2"]
    assert (first.content or None) == (second.content or None) == content
    assert {**first.headers, "authorization": ""} == {**second.headers, "authorization": ""}


async def chunks() -> AsyncIterator[bytes]:
    yield b"chunk"


@pytest.mark.parametrize(
    "body",
    [
        lambda: {"content": iter([b"chunk"])},
        lambda: {"content": io.BytesIO(b"stream")},
        lambda: {"content": chunks()},
        lambda: {"files": {"file": io.BytesIO(b"file")}},
        lambda: {"files": {"file": io.BytesIO(b"file")}, "data": {"a": "b"}},
    ],
    ids=["generator", "stream", "async generator", "files", "files and form"],
)
@pytest.mark.parametrize("challenge", ["", 'Bearer error="insufficient_claims", claims="e30="'])
def test_bodies_that_are_gone_only_cost_the_token(
    way: Way, body: Callable[[], dict[str, Any]], challenge: str
) -> None:
    """The caller gets the 401, and the next request goes out with another token."""
    issuer = Issuer()
    scene = Scene(way, refreshed(way, issuer))
    scene.service.challenge = challenge
    assert scene.send() == 200
    scene.revoke()
    assert scene.send(HttpRequest("POST", URL, **body())) == 401
    assert issuer.calls == 1
    assert scene.send() == 200
    assert scene.tokens == ["T1", "T1", "T2"]
    assert issuer.calls == 2


def test_each_retry_may_replace_its_token(way: Way) -> None:
    """The policy comes after the retry policy, so a retry is authorized again."""
    scene = Scene(way, refreshed(way, Issuer()), Answer(503), Answer(401), Answer(503))
    assert scene.send() == 200
    assert scene.tokens == ["T1", "T1", "T2", "T2"]


# --- Claims


@answers_claims_challenges
@pytest.mark.parametrize("kind", [Foreign, ForeignInfo])
def test_a_claims_challenge_is_answered_as_azure_core_does(way: Way, kind: type[Foreign]) -> None:
    """The credential gets the claims, the request one more try."""
    credential = kind("one", "two")
    scene = Scene(way, way.twin(credential))
    scene.service.challenge = 'Bearer error="insufficient_claims", claims="eyJhIjoxfQ"'
    scene.service.refused.add("one")
    assert scene.send() == 200
    assert credential.asked == [((SCOPE,), {}), ((SCOPE,), {"claims": '{"a":1}'})]
    assert [sent.token for sent in scene.transport.sent] == ["one", "two"]


@answers_claims_challenges
def test_our_credential_answers_a_claims_challenge_with_a_new_token(way: Way) -> None:
    """Claims force one refresh."""
    issuer = Issuer()
    scene = Scene(way, refreshed(way, issuer))
    scene.service.challenge = 'Bearer error="insufficient_claims", claims="eyJhIjoxfQ"'
    scene.send()
    scene.revoke()
    assert scene.send() == 200
    assert scene.tokens == ["T1", "T1", "T2"]
    assert issuer.calls == 2


@answers_claims_challenges
def test_claims_that_cannot_be_had_are_the_callers_business(way: Way) -> None:
    """Someone may have to sign in again; the error refers to the 401, as azure-core's does."""
    issuer = Issuer(make_token(time.time() + 3600), PermissionError("sign in"))
    scene = Scene(way, refreshed(way, issuer))
    scene.service.challenge = 'Bearer error="insufficient_claims", claims="eyJhIjoxfQ"'
    scene.send()
    scene.revoke()
    with pytest.raises(PermissionError, match="sign in") as caught:
        scene.send()
    assert isinstance(caught.value.__cause__, HttpResponseError)
    assert caught.value.__cause__.status_code == 401


@answers_claims_challenges
def test_claims_are_asked_for_once_more_of_a_credential_that_keeps_its_token(way: Way) -> None:
    """What satisfied them is sent until the credential has another."""
    issuer = Issuer()
    scene = Scene(way, refreshed(way, issuer), Answer(401, headers=CLAIMS))
    assert [scene.send() for _ in range(3)] == [200] * 3
    assert scene.tokens == ["T1", "T2", "T2", "T2"]
    assert issuer.calls == 2


@pytest.mark.parametrize("claims", ["/w==", "a", "\u00e9", "====", "", "e30=\u00e9"])
@pytest.mark.parametrize("kind", [Foreign, ForeignInfo])
def test_claims_that_cannot_be_read_are_a_401_like_any_other(
    way: Way, claims: str, kind: type[Foreign]
) -> None:
    """The request is sent once more with another token, which no claims were asked for."""
    credential = kind("one", "two")
    scene = Scene(way, way.twin(credential))
    scene.service.challenge = f'Bearer error="insufficient_claims", claims="{claims}"'
    scene.service.refused.add("one")
    assert scene.send() == 200
    assert [sent.token for sent in scene.transport.sent] == ["one", "two"]
    assert credential.asked == [((SCOPE,), {}), ((SCOPE,), {})]


@answers_claims_challenges
def test_a_value_error_for_claims_is_the_credentials_own(way: Way) -> None:
    """It is not taken for a challenge that cannot be read."""
    issuer = Issuer(make_token(time.time() + 3600), "not a JWT")
    scene = Scene(way, refreshed(way, issuer), Answer(401, headers=CLAIMS))
    with pytest.raises(ValueError, match="is not a JWT"):
        scene.send()
    assert len(scene.transport.sent) == 1


# --- Where the credential may go


@pytest.mark.parametrize("answer", [Answer(401), Answer(401, headers=CLAIMS)])
@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "https://contoso.communication.azure.com:8443/",
        "http://contoso.communication.azure.com/",
        "https://contoso.communication.azure.com@evil.example/",
    ],
)
@pytest.mark.parametrize("kind", ["ours", "foreign"])
def test_a_401_from_elsewhere_gets_no_other_token(
    way: Way, kind: str, to: str, answer: Answer
) -> None:
    """A policy behind ours carries the first along, as redirects of older azure-cores do.

    What comes of it is the caller's.
    """

    class Rewrites(SansIOHTTPPolicy[Any, Any]):
        def on_request(self, request: Any) -> None:
            request.http_request.url = urls.pop(0)

    urls = [to, URL]
    issuer, foreign = Issuer(), Foreign("one", "two")
    credential = refreshed(way, issuer) if kind == "ours" else way.twin(foreign)
    transport = way.Transport(answer)
    policies = [way.get_policy(ENDPOINT, credential), Rewrites()]
    client = way.Client(ENDPOINT, policies=policies, transport=transport)
    response = way.call(client.send_request, HttpRequest("GET", URL))
    assert response.status_code == 401
    assert [sent.url for sent in transport.sent] == [to]
    assert issuer.calls + len(foreign.asked) == 1
    assert way.call(client.send_request, HttpRequest("GET", URL)).status_code == 200
    assert issuer.calls + len(foreign.asked) == 1  # nor was the first invalidated
    assert len({sent.token for sent in transport.sent}) == 1


def test_the_token_is_authorized_for_no_other_place_by_hand(way: Way) -> None:
    """``authorize_request`` and ``on_request`` are public, and every way leads past the check."""
    policy = way.get_policy(ENDPOINT, refreshed(way, Issuer()))
    request = PipelineRequest(HttpRequest("GET", "https://evil.example/"), PipelineContext(None))
    for function in (policy.on_request, policy.authorize_request):
        with pytest.raises(ClientAuthenticationError, match="goes to a host that may not receive"):
            way.call(function, request)
    challenge: Any = PipelineResponse(request.http_request, Answer(401, headers=CLAIMS), None)
    if "get_challenge_parameter" in vars(core_policies._utils):
        challenge.http_response = SimpleNamespace(headers=CLAIMS)
        with pytest.raises(ClientAuthenticationError, match="goes to a host that may not receive"):
            way.call(policy.on_challenge, request, challenge)
    assert "Authorization" not in request.http_request.headers


@answers_claims_challenges
def test_a_challenge_from_elsewhere_gets_no_entra_token(way: Way) -> None:
    """A custom hook may send an exchange elsewhere; claims are not answered there."""

    def rewrite(request: Any) -> None:
        request.http_request.url = "https://evil.example/"

    entra = Foreign("one", "two")
    transport = way.Transport(default=Answer(401, headers=CLAIMS))
    credential = way.Credential(
        resource_endpoint=ENDPOINT,
        token_credential=way.twin(entra),
        transport=transport,
        raw_request_hook=rewrite,
    )
    with pytest.raises(ClientAuthenticationError):
        way.call(credential.get_token)
    assert len(transport.sent) == 1


@pytest.mark.parametrize("credential", ["key", "token"])
def test_further_hosts_get_the_credential(way: Way, credential: str) -> None:
    """With the resource's host, which does not stay when a redirect leads back."""
    key = KEY if credential == "key" else refreshed(way, Issuer())
    policy = way.get_policy(ENDPOINT, key, additional_hosts=[".asm.skype.com"])
    back = Answer(302, headers={"Location": URL})
    transport = way.Transport(back, Answer(200))
    policies = [way.RedirectPolicy(), policy]
    client = way.Client(ENDPOINT, policies=policies, transport=transport)
    request = HttpRequest("GET", "https://us.asm.skype.com/a")
    assert way.call(client.send_request, request).status_code == 200
    first, second = transport.sent
    assert first.headers["x-ms-host"] == "contoso.communication.azure.com"
    assert "x-ms-host" not in second.headers
    assert all("authorization" in sent.headers for sent in transport.sent)


@pytest.mark.parametrize("credential", ["key", "token"])
@pytest.mark.parametrize("host", ["asm.skype.com", "us.asm.skype.com.", "us.asm.skype.com:8443"])
def test_no_other_host_than_the_further_ones_gets_it(way: Way, credential: str, host: str) -> None:
    """Nor one that looks like them."""
    key = KEY if credential == "key" else refreshed(way, Issuer())
    policy = way.get_policy(ENDPOINT, key, additional_hosts=[".asm.skype.com"])
    transport = way.Transport()
    client = way.Client(ENDPOINT, policies=[policy], transport=transport)
    with pytest.raises(ClientAuthenticationError, match="and additional_hosts: check its URL"):
        way.call(client.send_request, HttpRequest("GET", f"https://{host}/a"))
    assert transport.sent == []


@pytest.mark.parametrize("credential", ["key", "token"])
def test_further_hosts_are_checked_at_construction(way: Way, credential: str) -> None:
    """Whichever policy it is going to be."""
    key = KEY if credential == "key" else refreshed(way, Issuer())
    for hosts, error in (([".com"], ValueError), (".asm.skype.com", TypeError)):
        with pytest.raises(error, match="additional_hosts"):
            way.get_policy(ENDPOINT, key, additional_hosts=hosts)


@pytest.mark.parametrize("instead", [None, "Basic abc"])
def test_a_401_without_our_token_is_no_reason_to_refresh(way: Way, instead: str | None) -> None:
    """A later policy may have removed it, as azure-core's does after a redirect."""

    class Takes(SansIOHTTPPolicy[Any, Any]):
        def on_request(self, request: Any) -> None:
            del request.http_request.headers["Authorization"]
            if instead:
                request.http_request.headers["Authorization"] = instead

    issuer = Issuer()
    transport = way.Transport(default=Answer(401))
    policies = [way.get_policy(ENDPOINT, refreshed(way, issuer)), Takes()]
    client = way.Client(ENDPOINT, policies=policies, transport=transport)
    assert way.call(client.send_request, HttpRequest("GET", URL)).status_code == 401
    assert len(transport.sent) == 1
    assert issuer.calls == 1


@pytest.mark.parametrize("credential", ["key", "token"])
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/chat/threads",
        "https://contoso.communication.azure.com.evil.example/",
        "https://contoso.communication.azure.com@evil.example/",
        "https://contoso.communication.azure.com:secret@evil.example/",
        "https://evil.example\\@contoso.communication.azure.com/",
        "https://contoso.communication.azure.com:444/chat/threads",
        "https://contoso.communication.azure.com\\.evil.example/",
        "https://contoso.communication.azure.comevil.example/",
        "//contoso.communication.azure.com/chat/threads",
        "http://contoso.communication.azure.com/chat/threads",
        "HTTP://contoso.communication.azure.com/chat/threads",
        "http://evil.example/",
        "ftp://contoso.communication.azure.com/",
        "/chat/threads",
        "",
    ],
)
def test_the_credential_goes_to_its_endpoint_alone(way: Way, credential: str, url: str) -> None:
    """Any other URL is refused before the request leaves, and before a token is asked for."""
    issuer = Issuer()
    scene = Scene(way, KEY if credential == "key" else refreshed(way, issuer))
    with pytest.raises(ClientAuthenticationError):
        scene.send(HttpRequest("GET", url))
    assert scene.transport.sent == []
    assert issuer.calls == 0


@pytest.mark.parametrize("credential", ["key", "token"])
@pytest.mark.parametrize(
    "url",
    [
        "https://contoso.communication.azure.com",
        "https://contoso.communication.azure.com:443/chat",
        "https://CONTOSO.communication.azure.com/chat",
        "HTTPS://contoso.communication.azure.com/chat",
        "https://contoso.communication.azure.com?a=b",
    ],
)
def test_other_spellings_of_the_endpoint_are_the_endpoint(
    way: Way, credential: str, url: str
) -> None:
    """They mean the same host and port."""
    key = KEY if credential == "key" else refreshed(way, Issuer())
    scene = Scene(way, key, default=Answer(200))
    assert scene.send(HttpRequest("GET", url)) == 200


@pytest.mark.parametrize("credential", ["key", "token"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    "to", ["https://evil.example/", "http://contoso.communication.azure.com/", "//evil.example/"]
)
def test_no_redirect_carries_the_credential_away(
    way: Way, credential: str, status: int, to: str
) -> None:
    """The request ends there."""
    redirect = Answer(status, headers={"Location": to})
    scene = Scene(way, KEY if credential == "key" else refreshed(way, Issuer()), redirect)
    with pytest.raises(ClientAuthenticationError):
        scene.send()
    assert len(scene.transport.sent) == 1


def test_a_redirect_at_the_endpoint_is_followed(way: Way) -> None:
    """With the token, as it goes to where it belongs."""
    redirect = Answer(307, headers={"Location": ENDPOINT + "/elsewhere"})
    scene = Scene(way, refreshed(way, Issuer()), redirect)
    assert scene.send() == 200
    assert [sent.url for sent in scene.transport.sent] == [URL, ENDPOINT + "/elsewhere"]
    assert scene.tokens == ["T1", "T1"]


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:80", "[::1]:8080"])
def test_plain_http_to_this_machine_can_be_allowed(
    way: Way, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For tests, by azure-core's own option and by nothing else."""
    monkeypatch.setenv("NO_PROXY", "*")
    policies = [way.RetryPolicy(), way.get_policy(f"https://{host}", refreshed(way, Issuer()))]
    transport = way.Transport(Answer(503))
    client = way.Client(f"https://{host}", policies=policies, transport=transport)
    request = HttpRequest("GET", f"http://{host}/")
    response = way.call(client.send_request, request, enforce_https=False)
    assert response.status_code == 200
    assert len(transport.sent) == 2
    assert all("enforce_https" not in options for options in transport.options)
    with pytest.raises(AzureError):
        way.call(client.send_request, request)
    assert len(transport.sent) == 2


# --- On a wire


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    with LocalService() as running:
        yield running


def issue(service: LocalService, user: str | None = None) -> tuple[str, str]:
    """Create a user, unless one is given, and issue a token for them, with the access key."""
    policies = [get_authentication_policy(service.endpoint, service.access_key)]
    with PipelineClient[Any, Any](
        service.endpoint, policies=policies, **service.client_options()
    ) as client:
        path = "/identities" if user is None else f"/identities/{user}/:issueAccessToken"
        body = {"createTokenWithScopes" if user is None else "scopes": ["chat"]}
        request = HttpRequest("POST", f"{service.endpoint}{path}?api-version=2023-10-01", json=body)
        answer = client.send_request(request)
        answer.raise_for_status()
    token = answer.json().get("accessToken", answer.json())["token"]
    return user or answer.json()["identity"]["id"], token


def test_a_revoked_token_is_replaced_on_a_wire(service: LocalService) -> None:
    """With ``requests`` and a service that knows its tokens."""
    user, first = issue(service)
    before = service.issued[user]
    credential = WAYS["sync"].Credential(first, token_refresher=lambda: issue(service, user)[1])
    policies = [get_authentication_policy(service.endpoint, credential)]
    request = HttpRequest("GET", f"{service.endpoint}/chat/threads?api-version=2024-03-07")
    with PipelineClient[Any, Any](
        service.endpoint, policies=policies, **service.client_options()
    ) as client:
        assert client.send_request(request).status_code == 200
        service.revoke(user)
        assert client.send_request(request).status_code == 200
        assert client.send_request(request).status_code == 200
    assert service.issued[user] == before + 1


def test_a_revoked_token_is_replaced_on_a_wire_of_aiohttp(service: LocalService) -> None:
    """With ``aiohttp`` and a service that knows its tokens, for twenty requests at once."""
    user, first = issue(service)
    before = service.issued[user]

    async def refresh() -> str:
        return (await asyncio.to_thread(issue, service, user))[1]

    async def main() -> list[int]:
        credential = aio.CommunicationTokenCredential(first, token_refresher=refresh)
        policies = [aio.get_authentication_policy(service.endpoint, credential)]
        url = f"{service.endpoint}/chat/threads?api-version=2024-03-07"
        async with AsyncPipelineClient[Any, Any](
            service.endpoint, policies=policies, **service.client_options()
        ) as client:
            service.revoke(user)
            requests = (client.send_request(HttpRequest("GET", url)) for _ in range(20))
            return [response.status_code for response in await asyncio.gather(*requests)]

    assert run_async(main()) == [200] * 20
    assert service.issued[user] == before + 1
