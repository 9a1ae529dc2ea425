"""The Entra form of the credential: what is asked, what is sent, and how the response is used.

One table drives the synchronous and the asynchronous credential alike.
"""

import asyncio
import logging
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import aiohttp
import azure.core.pipeline.policies as core_policies
import pytest
import requests
from azure.communication.common import aio
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import SansIOHTTPPolicy

from fake_transport import WAYS, Answer, Way
from local_service import Answer as Scripted
from local_service import LocalService
from scaffolding import (
    Clock,
    InlineWorkers,
    call_together,
    install,
    make_token,
    on_clock,
    run_async,
    source_of,
    state_of,
    threadless,
    turn_until,
)

ENDPOINT = "https://contoso.communication.azure.com"
ENTRA_URL = f"{ENDPOINT}/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview"
TEAMS_URL = f"{ENDPOINT}/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30"
CLIENTS = "https://communication.azure.com/clients/"
TEAMS = "https://auth.msft.communication.azure.com/"
TEAMS_US = "https://auth.msft.communication.azure.us/"
HOUR = 3600

answers_claims_challenges = pytest.mark.skipif(
    "get_challenge_parameter" not in vars(core_policies._utils),
    reason="this release of azure-core does not answer claims challenges",
)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock()


class EntraUser:
    """An Entra credential that keeps its token until a test lets it roll over.

    ``asked`` has the scopes and the options of each call.
    """

    def __init__(self, clock: Clock, life: float = HOUR) -> None:
        self.clock = clock
        self.asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []
        self.fault: Exception | None = None
        self.roll(life)

    def roll(self, life: float = HOUR) -> None:
        self.expires_on = int(self.clock.wall() + life)
        self.token = make_token(self.expires_on, iss="entra")

    def get_token_info(self, *scopes: str, options: dict[str, Any]) -> AccessTokenInfo:
        self.asked.append((scopes, dict(options)))
        if self.fault is not None:
            raise self.fault
        return AccessTokenInfo(self.token, self.expires_on)


class OldEntraUser(EntraUser):
    """One that only has ``get_token``."""

    def __getattribute__(self, name: str) -> Any:
        if name == "get_token_info":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.asked.append((scopes, options))
        return AccessToken(self.token, self.expires_on)


def exchanged(clock: Clock, life: float = HOUR) -> Answer:
    """Return the answer of a successful exchange."""
    expires_on = clock.wall() + life
    moment = datetime.fromtimestamp(expires_on, timezone.utc)
    token = {"token": make_token(expires_on), "expiresOn": moment.isoformat()}
    return Answer(200, {"identity": {"id": "8:acs:x"}, "accessToken": token})


class Scene:
    """A credential, the Entra user behind it, and the service in front of it."""

    def __init__(
        self, way: Way, clock: Clock, *script: Any, user: EntraUser | None = None, **options: Any
    ) -> None:
        self.way, self.clock = way, clock
        self.user = EntraUser(clock) if user is None else user
        self.transport = way.Transport(*script, default=lambda _: exchanged(clock))
        self.credential = on_clock(way.Credential, clock)(
            **{
                "resource_endpoint": ENDPOINT,
                "token_credential": way.twin(self.user),
                "transport": self.transport,
                **options,
            }
        )

    @property
    def sent(self) -> list[Any]:
        return self.transport.sent  # type: ignore[no-any-return]

    def get_token(self, **options: Any) -> AccessToken:
        return self.way.call(self.credential.get_token, **options)  # type: ignore[no-any-return]

    def error(self, **options: Any) -> Exception:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at it
            self.get_token(**options)
        return caught.value


# --- What is asked and sent


@pytest.mark.parametrize(
    ("scopes", "asked", "url"),
    [
        (None, (CLIENTS + ".default",), ENTRA_URL),
        (CLIENTS + "VoIP", (CLIENTS + "VoIP",), ENTRA_URL),
        ([CLIENTS + "VoIP", CLIENTS + "Chat"], (CLIENTS + "VoIP", CLIENTS + "Chat"), ENTRA_URL),
        ((TEAMS + ".default",), (TEAMS + ".default",), TEAMS_URL),
        (
            [TEAMS + "TeamsExtension.ManageCalls"],
            (TEAMS + "TeamsExtension.ManageCalls",),
            TEAMS_URL,
        ),
        (TEAMS_US + ".default", (TEAMS_US + ".default",), TEAMS_URL),
    ],
)
def test_the_scopes_choose_the_route(
    way: Way, clock: Clock, scopes: Any, asked: tuple[str, ...], url: str
) -> None:
    """Both routes and their api-versions, for scopes of the public and of the US cloud."""
    scene = Scene(way, clock, scopes=scopes)
    scene.get_token()
    assert scene.user.asked == [(asked, {})]
    [sent] = scene.sent
    assert (sent.method, sent.url, sent.content) == ("POST", url, "{}")


def test_the_request_is_that_of_an_azure_client(way: Way, clock: Clock) -> None:
    """It carries the Entra token, JSON, a request id and our user agent."""
    scene = Scene(way, clock)
    scene.get_token()
    headers = scene.sent[0].headers
    assert headers["authorization"] == f"Bearer {scene.user.token}"
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "application/json"
    assert headers["x-ms-client-request-id"]
    assert headers["user-agent"].startswith("azsdk-python-communication-common/1.0.0b2 Python/")


def test_the_token_is_the_one_of_the_answer(way: Way, clock: Clock) -> None:
    """With its expiry, and without a ``repr`` that shows it."""
    answer = exchanged(clock)
    token = Scene(way, clock, answer).get_token()
    assert token.token == answer.body["accessToken"]["token"]
    assert token.expires_on == clock.wall() + HOUR
    assert token.token not in repr(token)


@pytest.mark.parametrize("endpoint", [ENDPOINT, ENDPOINT + "/"])
def test_a_slash_behind_the_endpoint_makes_no_difference(
    way: Way, clock: Clock, endpoint: str
) -> None:
    """There is one slash before the path."""
    scene = Scene(way, clock, resource_endpoint=endpoint)
    scene.get_token()
    assert scene.sent[0].url == ENTRA_URL


def test_the_usual_options_of_a_client_work(way: Way, clock: Clock) -> None:
    """Headers, user agent, policies before and after the retries, and hooks."""
    calls = []

    class Note(SansIOHTTPPolicy[Any, Any]):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_request(self, request: Any) -> None:
            calls.append(self.name)

    scene = Scene(
        way,
        clock,
        Answer(503),
        user_agent="contoso",
        headers={"x-contoso": "1"},
        per_call_policies=[Note("call")],
        per_retry_policies=Note("retry"),
        raw_request_hook=lambda _: calls.append("hook"),
    )
    scene.get_token()
    assert calls == ["call", "retry", "hook", "retry", "hook"]
    headers = scene.sent[0].headers
    assert headers["x-contoso"] == "1"
    assert headers["user-agent"].startswith("contoso azsdk-python-communication-common/")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, (10, 10)), ({"connection_timeout": 3, "read_timeout": 4}, (3, 4))],
)
def test_timeouts_are_ten_seconds_unless_given(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    """azure-core's own would be 300 seconds each, in both pipelines."""
    seen = []

    def request(self: Any, method: str, url: str, *, timeout: Any, **kwargs: Any) -> Any:
        if isinstance(timeout, aiohttp.ClientTimeout):
            timeout = (timeout.sock_connect, timeout.sock_read)
        seen.append(timeout)
        raise ValueError("enough")

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setattr(aiohttp.ClientSession, "request", request)
    for way in WAYS.values():
        scene = Scene(way, Clock(), transport=None, **options)
        assert str(scene.error()) == "enough"
    assert seen == [expected, expected]


def test_a_transport_of_the_callers_stays_open(way: Way, clock: Clock) -> None:
    """It serves every exchange, and closing the credential does not close it."""
    scene = Scene(way, clock)
    scene.get_token()
    scene.get_token(claims="once more")
    scene.way.call(scene.credential.close)
    assert len(scene.sent) == 2
    assert scene.transport.closed == 0
    assert isinstance(scene.error(), RuntimeError)
    assert len(scene.user.asked) == 2


def test_a_transport_of_its_own_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each exchange, even a failed one, so the credential keeps none open."""
    events = []

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        events.append("send")
        raise ValueError("enough")

    close, async_close = requests.Session.close, aiohttp.ClientSession.close

    def note(self: requests.Session) -> None:
        events.append("close")
        close(self)

    async def async_note(self: aiohttp.ClientSession) -> None:
        events.append("close")
        await async_close(self)

    monkeypatch.setattr(requests.Session, "request", request)
    monkeypatch.setattr(requests.Session, "close", note)
    monkeypatch.setattr(aiohttp.ClientSession, "_request", request)
    monkeypatch.setattr(aiohttp.ClientSession, "close", async_note)
    for way in WAYS.values():
        scene = Scene(way, Clock(), transport=None)
        for _ in range(2):
            assert str(scene.error()) == "enough"
        assert events == ["send", "close"] * 2
        events.clear()


# --- What is refused at construction


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"resource_endpoint": "http://contoso.com"}, ValueError, "resource_endpoint must be"),
        ({"resource_endpoint": b"https://contoso.com"}, TypeError, "resource_endpoint .* bytes"),
        ({"token_credential": object()}, TypeError, "token_credential must be .* not object"),
        ({"scopes": []}, ValueError, "all under one of"),
        ({"scopes": ""}, ValueError, "all under one of"),
        ({"scopes": CLIENTS}, ValueError, "all under one of"),
        ({"scopes": [CLIENTS + "VoIP", TEAMS + "x"]}, ValueError, "all under one of"),
        ({"scopes": [TEAMS + "x", TEAMS_US + "x"]}, ValueError, "all under one of"),
        ({"scopes": [CLIENTS + "VoIP", "Chat"]}, ValueError, "all under one of"),
        ({"scopes": f"{CLIENTS}VoIP {CLIENTS}Chat"}, ValueError, "a list of scopes"),
        ({"scopes": f"{CLIENTS}VoIP\n"}, ValueError, "all under one of"),
        ({"scopes": "http://communication.azure.com/clients/VoIP"}, ValueError, "all under one"),
        ({"scopes": b"x"}, TypeError, "scopes must be a str or a list of str, not bytes"),
        ({"scopes": 1}, TypeError, "scopes must be a str or a list of str, not int"),
        ({"scopes": [None]}, TypeError, "scopes must be .* contains a NoneType"),
        ({"policies": []}, TypeError, "policies cannot be replaced: use per_call_policies"),
        ({"pipeline": object()}, TypeError, "pipeline cannot be replaced"),
    ],
)
def test_bad_arguments_are_refused_before_any_request(
    way: Way, clock: Clock, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The message names the argument; nobody has been asked for a token."""
    user = EntraUser(clock)
    with pytest.raises(error, match=message):
        Scene(way, clock, user=user, **change)
    assert user.asked == []


def test_the_async_class_accepts_a_synchronous_credential(clock: Clock) -> None:
    """As azure-core's async policies do."""
    user = EntraUser(clock)
    way = WAYS["aio"]
    scene = Scene(way, clock, token_credential=user)
    assert scene.get_token().expires_on == clock.wall() + HOUR


def test_constructing_does_nothing_but_check() -> None:
    """No token, no transport, and neither of the libraries behind transports."""
    script = """
import sys
from azure.communication.common import CommunicationTokenCredential, aio
for kind in (CommunicationTokenCredential, aio.CommunicationTokenCredential):
    class User:
        def get_token(self, *scopes, **kwargs):
            raise AssertionError
    kind(resource_endpoint="https://contoso.com", token_credential=User())
print(sorted({"requests", "aiohttp", "jwt"} & {*sys.modules}))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_preparing_needs_no_transport_that_is_not_installed() -> None:
    """It neither fails nor sends; the exchange says what is missing."""
    script = """
import asyncio, sys
sys.modules.update(dict.fromkeys(["requests", "aiohttp"]))  # cannot be imported any more
from azure.communication.common._sync._entra import EntraExchange
from azure.communication.common.aio import _entra
class User:
    def get_token(self, *scopes, **kwargs):
        raise AssertionError
for kind in (EntraExchange, _entra.EntraExchange):
    kind(resource_endpoint="https://contoso.com", token_credential=User()).prepare()
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.stderr) == ("", "")


# --- When it is exchanged again


def test_it_is_cached_and_exchanged_again_two_minutes_before_expiry(way: Way, clock: Clock) -> None:
    """The Entra token is renewed meanwhile, as azure-identity does five minutes early."""
    scene = Scene(way, clock)
    first = scene.get_token()
    clock.advance(HOUR - 121)
    assert scene.get_token() == first
    assert len(scene.user.asked) == 1
    scene.user.roll()
    clock.advance(2)
    second = scene.get_token()
    assert second.token != first.token
    assert [sent.token for sent in scene.sent][-1] == scene.user.token
    assert len(scene.sent) == 2


def test_an_unchanged_entra_token_that_lives_longer_is_exchanged_again(
    way: Way, clock: Clock
) -> None:
    """By more than a minute, that is: then the new token does live longer."""
    scene = Scene(way, clock, exchanged(clock, HOUR - 61))
    first = scene.get_token()
    clock.advance(HOUR - 61 - 119)
    assert scene.get_token().token != first.token
    assert len(scene.sent) == 2


def test_an_unchanged_entra_token_that_lives_no_longer_is_not_exchanged(
    way: Way, clock: Clock
) -> None:
    """The token could not outlive it. Entra is asked again later, and then it is."""
    scene = Scene(way, clock, exchanged(clock, HOUR - 60))
    first = scene.get_token()
    clock.advance(HOUR - 60 - 119)
    assert scene.get_token() == first
    assert scene.get_token() == first
    assert (len(scene.user.asked), len(scene.sent)) == (2, 1)
    scene.user.roll()
    clock.advance(60)
    assert scene.get_token().token != first.token
    assert (len(scene.user.asked), len(scene.sent)) == (3, 2)


def test_an_expired_token_is_replaced_with_the_same_entra_token(way: Way, clock: Clock) -> None:
    """There is nothing to lose, even if the new one cannot live for long."""
    scene = Scene(way, clock, exchanged(clock, HOUR - 30))
    first = scene.get_token()
    clock.advance(HOUR - 29)
    assert scene.get_token().token != first.token
    assert [sent.token for sent in scene.sent] == [scene.user.token] * 2


def test_a_changed_entra_token_is_exchanged_whatever_its_expiry(way: Way, clock: Clock) -> None:
    """Consent may have changed."""
    scene = Scene(way, clock)
    scene.get_token()
    clock.advance(HOUR - 119)
    scene.user.roll(119)
    scene.get_token()
    assert len(scene.sent) == 2


def test_a_refused_token_is_replaced_with_the_same_entra_token(way: Way, clock: Clock) -> None:
    """It was revoked at the resource; Entra does not know about that."""
    scene = Scene(way, clock)
    first = scene.get_token()
    scene.credential.invalidate_token(first.token)
    assert scene.get_token().token != first.token
    assert [sent.token for sent in scene.sent] == [scene.user.token] * 2


def test_a_failed_exchange_does_not_count_as_one(way: Way, clock: Clock) -> None:
    """The same Entra token is sent again at the next call."""
    scene = Scene(way, clock, Answer(400))
    assert isinstance(scene.error(), HttpResponseError)
    assert scene.get_token().expires_on == clock.wall() + HOUR
    assert [sent.token for sent in scene.sent] == [scene.user.token] * 2


@pytest.mark.parametrize("kind", [EntraUser, OldEntraUser])
def test_claims_force_an_exchange_and_go_to_entra_with_the_rest(
    way: Way, clock: Clock, kind: type[EntraUser]
) -> None:
    """Through either of azure-core's protocols, and although the Entra token is the same."""
    scene = Scene(way, clock, user=kind(clock))
    first = scene.get_token()
    options = {"claims": "{}", "tenant_id": "contoso", "enable_cae": True}
    second = scene.get_token(**options)
    assert second.token != first.token
    assert [asked for _, asked in scene.user.asked] == [{}, options]
    assert len(scene.sent) == 2


@answers_claims_challenges
def test_a_claims_challenge_of_the_exchange_is_answered(way: Way, clock: Clock) -> None:
    """With an Entra token for those claims, for the tenant of the call."""
    challenge = 'Bearer error="insufficient_claims", claims="eyJhIjoxfQ"'
    scene = Scene(way, clock)
    tokens = [scene.user.token]

    def refuse(_: Any) -> Answer:
        scene.user.roll()
        tokens.append(scene.user.token)
        return Answer(401, headers={"WWW-Authenticate": challenge})

    scene.transport.script.append(refuse)
    assert scene.get_token(tenant_id="contoso").expires_on == clock.wall() + HOUR
    assert [asked for _, asked in scene.user.asked] == [
        {"tenant_id": "contoso"},
        {"tenant_id": "contoso", "claims": '{"a":1}'},
    ]
    assert [sent.token for sent in scene.sent] == tokens


def test_errors_of_the_entra_credential_come_unchanged(way: Way, clock: Clock) -> None:
    """Nothing is sent."""
    scene = Scene(way, clock)
    scene.user.fault = ClientAuthenticationError("sign in first")
    assert scene.error() is scene.user.fault
    assert scene.sent == []


# --- Concurrency


def test_a_hundred_coroutines_cause_one_exchange(clock: Clock) -> None:
    """They all get its token, also on the loop that ran when the credential was made."""

    async def main() -> tuple[Scene, set[str]]:
        scene = Scene(WAYS["aio"], clock)
        calls = (scene.credential.get_token() for _ in range(100))
        return scene, {token.token for token in await asyncio.gather(*calls)}

    scene, tokens = run_async(main())
    assert len(tokens) == 1
    assert len(scene.sent) == 1


def test_twenty_threads_cause_one_exchange(clock: Clock) -> None:
    """They all get its token."""
    scene = Scene(WAYS["sync"], clock)
    calls = call_together(20, scene.get_token)
    assert len({call.value().token for call in calls}) == 1
    assert len(scene.sent) == 1


def test_the_synchronous_credential_works_beside_a_running_loop(clock: Clock) -> None:
    """It does not care."""
    scene = Scene(WAYS["sync"], clock)

    async def main() -> AccessToken:
        return scene.get_token()

    assert run_async(main()).expires_on == clock.wall() + HOUR


def test_a_proactive_credential_warms_up_by_itself(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The exchange takes place before anybody asks for the token."""
    scheduler = install(monkeypatch, threadless(clock, InlineWorkers()))
    scene = Scene(WAYS["sync"], clock, proactive_refresh=True)
    assert scene.sent == []
    scheduler.run_due()
    assert len(scene.sent) == 1
    scene.get_token()
    assert len(scene.sent) == 1


def test_a_proactive_async_credential_warms_up_by_itself(clock: Clock) -> None:
    """On the loop that runs when it is made."""

    async def main() -> None:
        scene = Scene(WAYS["aio"], clock, proactive_refresh=True)
        await turn_until(lambda: state_of(scene.credential).token is not None)
        assert len(scene.sent) == 1
        await scene.credential.close()

    run_async(main())


# --- Retries


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("seconds", [7, 15])
def test_retry_after_is_honoured(way: Way, clock: Clock, status: int, seconds: int) -> None:
    """One request is followed by another after the time that the service asked for."""
    scene = Scene(way, clock, Answer(status, headers={"Retry-After": str(seconds)}))
    assert scene.get_token().expires_on == clock.wall() + HOUR
    assert scene.transport.slept == [seconds]
    assert len(scene.user.asked) == 1


@pytest.mark.parametrize(
    "fault",
    [
        *[Answer(status) for status in (408, 429, 500, 502, 503, 504)],
        Answer(429, headers={"Retry-After": "soon"}),
        ServiceRequestError("no connection"),
        ServiceResponseError("cut off"),
    ],
    ids=repr,
)
def test_passing_faults_are_retried_three_times(way: Way, clock: Clock, fault: Any) -> None:
    """azure-core alone would repeat a POST after few of them."""
    scene = Scene(way, clock, fault, fault, fault)
    assert scene.get_token().expires_on == clock.wall() + HOUR
    assert len(scene.sent) == 4

    scene = Scene(way, clock, fault, fault, fault, fault)
    assert isinstance(scene.error(), AzureError)
    assert len(scene.sent) == 4
    assert sum(scene.transport.slept) < 10


def test_faults_of_all_kinds_count_together(way: Way, clock: Clock) -> None:
    """azure-core alone would count failed connections, cut answers and statuses each for itself."""
    faults = [Answer(503), ServiceRequestError("no"), ServiceResponseError("cut off"), Answer(429)]
    scene = Scene(way, clock, *faults)
    error = scene.error()
    assert isinstance(error, HttpResponseError)
    assert error.status_code == 429
    assert len(scene.sent) == 4


@pytest.mark.parametrize("after", ["16", "1e9", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_long_wait_is_left_to_the_next_call(way: Way, clock: Clock, after: str) -> None:
    """No caller is kept for longer than a refresh may take."""
    scene = Scene(way, clock, Answer(429, headers={"Retry-After": after}))
    error = scene.error()
    assert isinstance(error, HttpResponseError)
    assert error.status_code == 429
    assert scene.transport.slept == []


def test_until_the_service_said_nobody_tries_again(way: Way, clock: Clock) -> None:
    """The credential holds back, and repeats the error."""
    scene = Scene(way, clock, Answer(429, headers={"Retry-After": "40"}))
    scene.error()
    clock.advance(39)
    error = scene.error()
    assert isinstance(error, HttpResponseError)
    assert error.status_code == 429
    assert len(scene.sent) == 1
    clock.advance(2)
    scene.get_token()
    assert len(scene.sent) == 2


def test_retries_can_be_turned_off(way: Way, clock: Clock) -> None:
    """By azure-core's own option."""
    scene = Scene(way, clock, Answer(503), retry_total=0)
    assert isinstance(scene.error(), HttpResponseError)
    assert len(scene.sent) == 1


# --- Refusals and answers that cannot be read


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, HttpResponseError),
        (401, ClientAuthenticationError),
        (403, ClientAuthenticationError),
        (404, HttpResponseError),
        (409, HttpResponseError),
        (500, HttpResponseError),
    ],
)
def test_refusals_have_the_code_and_the_message_of_the_service(
    way: Way, clock: Clock, status: int, kind: type[Exception]
) -> None:
    """401 and 403 are about the user, the others are not."""
    body = {"error": {"code": "NoSuchUser", "message": "The user is not enabled."}}
    scene = Scene(way, clock, Answer(status, body), retry_total=0)
    error = scene.error()
    assert type(error) is kind
    assert isinstance(error, HttpResponseError)
    assert error.status_code == status
    assert error.error is not None
    assert (error.error.code, error.error.message) == ("NoSuchUser", "The user is not enabled.")
    assert "(NoSuchUser) The user is not enabled." in str(error)
    scene.get_token()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (b" \r\n", ""),
        (b"\xff\xfen\0o\0", ""),  # UTF-16, in which a token would not be found
        (b"no", ": no"),
        (b"\xff\xfe", ": \ufffd\ufffd"),
        (b"[]", ": []"),
        (b'{"error": 1}', ': {"error": 1}'),
        ({"error": "Unauthorized"}, ': {"error": "Unauthorized"}'),
        ({"error": {}}, ': {"error": {}}'),
        ({"Message": "caf\u00e9"}, ': {"Message": "caf\u00e9"}'),
        ("[" * 100_000, ": " + "[" * 300 + "..."),
        (b"no\n  way " * 100, ": " + ("no way " * 100)[:300] + "..."),
        (
            b"<!DOCTYPE html><html><head><title>403 Forbidden</title><style>a {b: c}</style>"
            b"<script>if (a) b()</script></head><body>\n <h1>Blocked by the proxy</h1></html>",
            ": 403 Forbidden Blocked by the proxy",
        ),
        (b"<" * 100_000, ": " + "<" * 300 + "..."),
        (b"<style>" * 2_000 + b"x", ": x"),
    ],
    ids=range(15),
)
def test_refusals_in_another_form_say_what_was_said(
    way: Way, clock: Clock, body: Any, said: str
) -> None:
    """A proxy answers what it likes; its text is cut short, and without markup."""
    error = Scene(way, clock, Answer(403, body)).error()
    assert type(error) is ClientAuthenticationError
    assert str(error) == f"Entra token exchange failed with status 403{said[:305]}"


@pytest.mark.parametrize("status", [201, 204, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["https://evil.example/", "/other"])
def test_no_redirect_is_followed(way: Way, clock: Clock, status: int, to: str) -> None:
    """Nor does any success other than 200 count as one."""
    scene = Scene(way, clock, Answer(status, b"token", {"Location": to}))
    error = scene.error()
    assert type(error) is HttpResponseError
    assert str(error) == f"Entra token exchange failed with status {status}"
    assert error.status_code == status
    assert len(scene.sent) == 1


SECRET = "eyJhbGciOiJub25lIn0.c2VjcmV0.c2VjcmV0"
EXPIRES_ON = "2033-05-18T03:33:20Z"


def answer_of(**access_token: Any) -> dict[str, Any]:
    return {"accessToken": access_token}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "it is not JSON"),
        (SECRET, "it is not JSON"),
        (f"<html>{SECRET}</html>", "it is not JSON"),
        (f'{{"accessToken": {{"token": "{SECRET}"', "it is not JSON"),
        (b'"\xff' + SECRET.encode(), "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ([SECRET], "there is no accessToken with token and expiresOn"),
        (SECRET.join('""'), "there is no accessToken"),
        (b"null", "there is no accessToken"),
        ({}, "there is no accessToken"),
        ({"accessToken": SECRET}, "there is no accessToken"),
        ({"accessToken": None}, "there is no accessToken"),
        (answer_of(token=SECRET), "there is no accessToken with token and expiresOn"),
        (answer_of(expiresOn=EXPIRES_ON), "there is no accessToken with token and expiresOn"),
        (answer_of(token=None, expiresOn=EXPIRES_ON), "its token must be"),
        (answer_of(token="", expiresOn=EXPIRES_ON), "its token must be"),
        (answer_of(token=[SECRET], expiresOn=EXPIRES_ON), "its token must be"),
        (answer_of(token=SECRET + "\n", expiresOn=EXPIRES_ON), "its token must be"),
        (answer_of(token=SECRET + "\u2603", expiresOn=EXPIRES_ON), "its token must be"),
        (answer_of(token=SECRET, expiresOn=None), "its expiresOn must be a time"),
        (answer_of(token=SECRET, expiresOn=2_000_000_000), "its expiresOn must be a time"),
        (answer_of(token=SECRET, expiresOn=SECRET), "its expiresOn must be a time"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_clear_error(
    way: Way, clock: Clock, body: Any, problem: str
) -> None:
    """It says what is wrong, shows no token, and does not affect the next call."""
    scene = Scene(way, clock, Answer(200, body))
    error = scene.error()
    assert type(error) is HttpResponseError
    assert f"Entra token exchange returned a malformed response: {problem}" in str(error)
    assert error.status_code == 200
    assert SECRET not in everything_about(error)
    assert scene.get_token().expires_on == clock.wall() + HOUR


def test_a_token_that_has_expired_is_a_clear_error(way: Way, clock: Clock) -> None:
    """The clocks differ, most likely."""
    scene = Scene(way, clock, exchanged(clock, -1))
    error = scene.error()
    assert isinstance(error, ValueError)
    assert "check the clock" in str(error)
    scene.get_token()


def everything_about(error: BaseException) -> str:
    """Return the text of an error, of those behind it, and of all that they hold."""
    texts = ["".join(traceback.format_exception(error))]
    behind: BaseException | None = error
    while behind is not None:
        texts += [repr(behind), str(vars(behind))]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(texts)


# --- Times


@pytest.mark.parametrize(
    "text",
    [
        "2033-05-18T03:33:20Z",
        "2033-05-18T03:33:20z",
        "2033-05-18t03:33:20Z",
        "2033-05-18 03:33:20Z",
        "2033-05-18T03:33:20",
        "2033-05-18T03:33:20+00:00",
        "2033-05-18T03:33:20-00:00",
        "2033-05-18T03:33:20+0000",
        "2033-05-18T03:33:20+00",
        "2033-05-18T03:33:20.9Z",
        "2033-05-18T03:33:20,9Z",
        "2033-05-18T03:33:20.123Z",
        "2033-05-18T03:33:20.123456+00:00",
        "2033-05-18T03:33:20.1234567Z",
        "2033-05-18T03:33:20.9999999+00:00",
        "2033-05-18T03:33:20.123456789Z",
        "2033-05-18T05:33:20+02:00",
        "2033-05-18T09:03:20.5+0530",
        "2033-05-17T20:33:20-07",
    ],
)
def test_every_form_of_a_time_is_read(way: Way, clock: Clock, text: str) -> None:
    """Two billion seconds since 1970, rounded down."""
    scene = Scene(way, clock, Answer(200, answer_of(token=SECRET, expiresOn=text)))
    assert scene.get_token().expires_on == 2_000_000_000


def test_the_last_moment_of_all_is_read(way: Way, clock: Clock) -> None:
    """It is .NET's value for no end."""
    body = answer_of(token=SECRET, expiresOn="9999-12-31T23:59:59.9999999+00:00")
    assert Scene(way, clock, Answer(200, body)).get_token().expires_on == 253_402_300_799


def test_a_time_without_seconds_is_read(way: Way, clock: Clock) -> None:
    """ISO 8601 allows that."""
    body = answer_of(token=SECRET, expiresOn="2033-05-18T03:33Z")
    assert Scene(way, clock, Answer(200, body)).get_token().expires_on == 1_999_999_980


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2033-05-18",
        "03:33:20Z",
        "2033-05-18T03:33:20Zulu",
        "2033-05-18T03:33:20.Z",
        "2033-05-18T03:33:20 Z",
        "2033-05-18T03:33:20+00:00\n",
        "2033-13-18T03:33:20Z",
        "2033-02-29T03:33:20Z",
        "2033-05-18T24:00:01Z",
        "2033-05-18T03:33:20+24:00",
        "2033-05-18T03:33:20+0:00",
        "\u0662033-05-18T03:33:20Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59.9999999-14:00",
        "Wed, 18 May 2033 03:33:20 GMT",
        "2000000000",
    ],
)
def test_what_is_no_time_is_refused(way: Way, clock: Clock, text: str) -> None:
    """Including .NET's value for an unset time."""
    scene = Scene(way, clock, Answer(200, answer_of(token=SECRET, expiresOn=text)))
    assert "its expiresOn must be a time in the form of ISO 8601" in str(scene.error())


# --- On a wire


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    with LocalService() as running:
        yield running


class ServiceUser:
    """An Entra credential whose tokens the local service knows."""

    def __init__(self, service: LocalService) -> None:
        self.service = service
        self.tokens: list[str] = []

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.tokens.append(self.service.entra_token(scopes))
        return AccessToken(self.tokens[-1], 4_102_444_800)


@pytest.mark.parametrize("scope", [CLIENTS + ".default", TEAMS + ".default", TEAMS_US + ".default"])
def test_the_service_takes_what_is_sent_and_what_comes_of_it(
    way: Way, service: LocalService, scope: str
) -> None:
    """Over TLS, with the default transports, through a few faults, for chat where it is allowed."""
    route = "teamsExtension" if "auth.msft" in scope else "entra"
    service.script(
        f"POST /access/{route}/:exchangeAccessToken",
        Scripted(503),
        Scripted(200, {"accessToken": {}}),
    )
    credential = way.Credential(
        resource_endpoint=service.endpoint,
        token_credential=way.twin(ServiceUser(service)),
        scopes=scope,
        **service.client_options(),
    )
    with pytest.raises(HttpResponseError, match="malformed response: there is no accessToken"):
        way.call(credential.get_token)
    token = way.call(credential.get_token)
    listing = requests.get(
        f"{service.endpoint}/chat/threads?api-version=2024-03-07",
        headers={"Authorization": f"Bearer {token.token}"},
        verify=service.ca_path,
        timeout=30,
    )
    assert listing.status_code == (403 if route == "teamsExtension" else 200)


@pytest.mark.parametrize("name", list(WAYS))
def test_what_is_prepared_imports_nothing_while_it_exchanges(
    service: LocalService, name: str
) -> None:
    """Whatever the outcome: an import on a background thread would hang a child that is forked."""
    service.script(
        "POST /access/entra/:exchangeAccessToken",
        Scripted(503),
        Scripted(200, {"accessToken": {"token": SECRET, "expiresOn": EXPIRES_ON}}),
        Scripted(403),
        Scripted(403, "<html>"),
        Scripted(200, "no JSON"),
    )
    script = f"""
import asyncio, sys
from azure.communication.common.{"_sync" if name == "sync" else name}._entra import EntraExchange
from azure.core.credentials import AccessToken
class User:
    def get_token(self, *scopes, **kwargs):
        return AccessToken("x", 4_102_444_800)
def exchange(endpoint={service.endpoint!r}, **options):
    made = EntraExchange(resource_endpoint=endpoint, token_credential=User(), **options)
    try:
        outcome = made({{}}, None)
        return outcome if {name!r} == "sync" else asyncio.run(outcome)
    except Exception as error:
        return error
EntraExchange(resource_endpoint={service.endpoint!r}, token_credential=User()).prepare()
loaded = {{*sys.modules}}
for options in [{{"connection_verify": {service.ca_path!r}}}] * 4 + [
    {{"retry_total": 0}},
    {{"retry_total": 0, "endpoint": "https://127.0.0.1:1"}},
    {{"retry_total": 0, "endpoint": "https://contoso.invalid"}},
]:
    outcome = exchange(**options)
    print(type(outcome).__name__, *({{*sys.modules}} - loaded))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines() == [
        "RedactedAccessToken",
        "ClientAuthenticationError",
        "ClientAuthenticationError",
        "HttpResponseError",
        "ServiceRequestError",
        "ServiceRequestError",
        "ServiceRequestError",
    ], run.stderr


def test_the_pipeline_has_the_policies_of_a_generated_client(way: Way, clock: Clock) -> None:
    """In their order, tracing among them; none logs bodies, follows redirects or reads JSON."""
    credential = way.Credential(
        resource_endpoint=ENDPOINT, token_credential=way.twin(EntraUser(clock))
    )
    policies = source_of(credential)._policies("retry", "authentication")
    names = [type(policy).__name__ for policy in policies]
    assert names == [
        "RequestIdPolicy",
        "HeadersPolicy",
        "UserAgentPolicy",
        "ProxyPolicy",
        "str",
        "str",
        "CustomHookPolicy",
        "DistributedTracingPolicy",
        "_HttpLoggingPolicy",
    ]


def test_nothing_is_logged_that_should_not_be(
    way: Way, service: LocalService, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG, with ``logging_enable``, where azure-core would log headers and bodies in full."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="azure.core")  # an application may have set it
    user = ServiceUser(service)
    credential = way.Credential(
        resource_endpoint=service.endpoint,
        token_credential=way.twin(user),
        logging_enable=True,
        **service.client_options(),
    )
    token = way.call(credential.get_token)
    assert "/access/entra/:exchangeAccessToken" in caplog.text
    assert "'Authorization': 'REDACTED'" in caplog.text
    assert token.token not in caplog.text
    assert user.tokens[0] not in caplog.text


def test_one_credential_serves_many_loops(service: LocalService) -> None:
    """Every exchange has a pipeline of its own, so none is bound to a loop that is gone."""
    credential = aio.CommunicationTokenCredential(
        resource_endpoint=service.endpoint,
        token_credential=WAYS["aio"].twin(ServiceUser(service)),
        **service.client_options(),
    )
    tokens = [asyncio.run(credential.get_token(claims=str(turn))) for turn in range(3)]
    assert len({token.token for token in tokens}) == 3
