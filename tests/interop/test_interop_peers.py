"""Where the peers differ, and what is right here: the design's table, row by row.

What the incumbent Python package does is shown beside it where that is cheap. A change of its
behaviour would fail such a test, and is a reason to revise the table.
"""

import asyncio
import base64
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.communication.callautomation import CommunicationUserIdentifier as PeerIdentifier
from azure.communication.callautomation._shared import policy as peer_policy
from azure.communication.callautomation._shared import user_credential as peer
from azure.communication.callautomation._shared import user_credential_async as async_peer
from azure.communication.common import (
    CommunicationIdentifier,
    CommunicationUserIdentifier,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsUserIdentifier,
    PhoneNumberIdentifier,
    TeamsExtensionUserIdentifier,
    UnknownIdentifier,
    aio,
    identifier_from_raw_id,
    parse_client_arguments,
    parse_connection_string,
)
from azure.core.credentials import AccessToken, AccessTokenInfo
from azure.core.rest import HttpRequest

from fake_transport import WAYS, Answer, AsyncTwin, Way
from local_service import LocalService
from scaffolding import (
    Clock,
    InlineWorkers,
    Issuer,
    clock_loop,
    install,
    let_pass,
    make_token,
    on_clock,
    run_async,
    threadless,
)

# The incumbent calls what Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

# The incumbent's, from its private folder, of which there are copies in its siblings.
PeerCredential: Any = peer.CommunicationTokenCredential
AsyncPeerCredential: Any = async_peer.CommunicationTokenCredential
PeerSigningPolicy: Any = peer_policy.HMACCredentialsPolicy

HOUR = 3600
REMEDY = "pass the bare JWT"


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    with LocalService(echo=True) as running:
        yield running


def encode(value: Any) -> str:
    """Return a segment of a JWT, its JSON in UTF-8."""
    text = json.dumps(value, ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


# --- Payload with `-`, `_` or non-ASCII


@pytest.mark.parametrize(
    ("claims", "character"), [({"a": "~~~>"}, "-"), ({"a": "????"}, "_"), ({"name": "Zoë ☎"}, "")]
)
def test_payload_with_dash_underscore_or_non_ascii(
    way: Way, claims: dict[str, str], character: str
) -> None:
    """Row: payload with ``-``, ``_`` or non-ASCII. It is read; the incumbent refuses it."""
    expiry = int(time.time()) + HOUR
    payload = encode({**claims, "exp": expiry})
    assert character in payload
    token = f"{encode({'alg': 'RS256'})}.{payload}.c2ln"
    assert way.call(way.Credential(token).get_token).expires_on == expiry
    with pytest.raises(ValueError, match="not formatted correctly"):
        PeerCredential(token)


# --- `Bearer eyJ…`, a quoted token, the whole response body


@pytest.mark.parametrize(
    "wrap",
    [
        lambda token: f"Bearer {token}",
        lambda token: f'"{token}"',
        lambda token: json.dumps({"token": token, "expiresOn": "2033-05-18T03:33:20Z"}),
    ],
    ids=["Bearer", "quoted", "response"],
)
def test_a_token_in_a_wrapping(way: Way, wrap: Callable[[str], str]) -> None:
    """Row: ``Bearer eyJ…``, a quoted token, the whole response body. Refused with the remedy.

    The incumbent takes it for a token, and the service refuses that later.
    """
    token = make_token(time.time() + HOUR)
    with pytest.raises(ValueError, match=REMEDY) as caught:
        way.Credential(wrap(token))
    assert token not in str(caught.value)
    assert PeerCredential(wrap(token)).get_token().token == wrap(token)


def test_a_refresher_that_returns_the_whole_response(way: Way) -> None:
    """Row: the whole response body, from a refresher. Refused with the remedy, too."""
    body = json.dumps({"token": make_token(time.time() + HOUR)})
    with pytest.raises(ValueError, match=REMEDY):
        way.call(way.Credential(token_refresher=lambda: body).get_token)


# --- Encrypted (JWE) token


def test_an_encrypted_token(way: Way, clock: Clock) -> None:
    """Row: encrypted (JWE) token. It lives for 600 seconds; the incumbent refuses it."""
    token = f"{encode({'alg': 'dir', 'enc': 'A256GCM'})}..aXY.Y2lwaGVydGV4dA.dGFn"
    credential = on_clock(way.Credential, clock)(token)
    assert way.call(credential.get_token).expires_on == clock.wall() + 600
    with pytest.raises(ValueError, match="not formatted correctly"):
        PeerCredential(token)


# --- Refresher fails while the token is valid


def test_a_refresher_that_fails_while_the_token_is_valid(
    way: Way, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Row: refresher fails while the token is valid. Swallowed until expiry, logged, spaced."""
    issuer = Issuer(*[ConnectionError("down")] * 10, wall=clock.wall)
    first = make_token(clock.wall() + 100)
    credential = on_clock(way.Credential, clock)(first, token_refresher=issuer)
    clock.advance(60)
    tokens = {way.call(credential.get_token).token for _ in range(20)}
    assert tokens == {first}
    assert issuer.calls == 1
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    clock.advance(20)  # half of the life that was left
    assert way.call(credential.get_token).token == first
    assert issuer.calls == 2
    clock.advance(20)
    with pytest.raises(ConnectionError, match="down"):
        way.call(credential.get_token)


def test_the_incumbent_raises_while_the_token_is_valid() -> None:
    """Row: refresher fails while the token is valid. It raises, for each of the callers."""
    issuer = Issuer(*[ConnectionError("down")] * 10)
    credential = PeerCredential(make_token(time.time() + 100), token_refresher=issuer)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            credential.get_token()
    assert issuer.calls == 3


# --- One failed proactive try


def test_one_failed_proactive_try(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Row: one failed proactive try. The next try is scheduled, at half of the life left."""
    scheduler = install(monkeypatch, threadless(clock, InlineWorkers()))
    issuer = Issuer(ConnectionError("down"), wall=clock.wall)
    credential = on_clock(WAYS["sync"].Credential, clock)(
        make_token(clock.wall() + HOUR), token_refresher=issuer, proactive_refresh=True
    )
    let_pass(HOUR - 595, clock, scheduler)
    assert issuer.calls == 1
    let_pass(300, clock, scheduler)
    assert issuer.calls == 2
    assert credential.get_token().expires_on > clock.wall() + HOUR - 60


def test_one_failed_proactive_try_on_a_loop(clock: Clock) -> None:
    """Row: one failed proactive try. The same with a timer of the loop."""
    issuer = Issuer(ConnectionError("down"), wall=clock.wall)

    async def main() -> tuple[int, int]:
        credential = on_clock(aio.CommunicationTokenCredential, clock)(
            make_token(clock.wall() + HOUR), token_refresher=issuer.issue, proactive_refresh=True
        )
        await asyncio.sleep(HOUR - 595)
        before = issuer.calls
        await asyncio.sleep(300)
        await credential.close()
        return before, issuer.calls

    with clock_loop(clock) as loop:
        assert loop.run_until_complete(main()) == (1, 2)


# --- get_token_info, claims, revoked token


def test_get_token_info(way: Way) -> None:
    """Row: ``get_token_info``. It tells when to ask again; the incumbent has none."""
    expiry = int(time.time()) + HOUR
    credential = way.Credential(make_token(expiry), token_refresher=Issuer())
    info = way.call(credential.get_token_info)
    assert isinstance(info, AccessTokenInfo)
    assert (info.expires_on, info.refresh_on) == (expiry, expiry - 120)
    assert not hasattr(PeerCredential, "get_token_info")


def test_claims(way: Way) -> None:
    """Row: claims. They force a new token; the incumbent ignores them."""
    issuer = Issuer()
    first = make_token(time.time() + HOUR)
    credential = way.Credential(first, token_refresher=issuer)
    assert way.call(credential.get_token, claims="{}").token != first
    assert issuer.calls == 1
    peer = PeerCredential(first, token_refresher=issuer)
    assert peer.get_token(claims="{}").token == first
    assert issuer.calls == 1


def test_a_revoked_token(way: Way) -> None:
    """Row: revoked token. A client with our policy replaces it; the incumbent's goes on."""
    for kind, statuses in ((way.Credential, [200, 200]), (None, [200, 401])):
        first = make_token(time.time() + HOUR)
        credential = kind(first, token_refresher=Issuer()) if kind else peer_of(way)(first)
        refused: set[str] = set()

        def answer(sent: Any, refused: set[str] = refused) -> Answer:
            return Answer(401 if sent.token in refused else 200)

        transport = way.Transport(default=answer)
        policy = way.get_policy("https://contoso.com", credential)
        client = way.Client("https://contoso.com", policies=[policy], transport=transport)
        outcomes = []
        for _ in range(2):
            response = way.call(client.send_request, HttpRequest("GET", "https://contoso.com/"))
            outcomes.append(response.status_code)
            refused.add(first)
        assert outcomes == statuses


def peer_of(way: Way) -> Any:
    return PeerCredential if way is WAYS["sync"] else AsyncPeerCredential


# --- Async Entra inside a running loop


class EntraUser:
    """An Entra credential whose tokens the local service knows."""

    def __init__(self, service: LocalService) -> None:
        self.service = service

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(self.service.entra_token(scopes), 4_102_444_800)


def test_async_entra_inside_a_running_loop(service: LocalService) -> None:
    """Row: async Entra inside a running loop. It works."""

    entra: Any = AsyncTwin(EntraUser(service))

    async def main() -> AccessToken:
        async with aio.CommunicationTokenCredential(
            resource_endpoint=service.endpoint,
            token_credential=entra,
            **service.client_options(),
        ) as credential:
            return await credential.get_token()

    assert run_async(main()).expires_on > time.time() + HOUR - 60


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_the_incumbents_async_entra_raises_inside_a_running_loop(service: LocalService) -> None:
    """Row: async Entra inside a running loop. Its constructor runs the loop, which runs already."""

    entra: Any = AsyncTwin(EntraUser(service))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            AsyncPeerCredential(
                resource_endpoint=service.endpoint,
                token_credential=entra,
            )

    run_async(main())
    gc.collect()  # of the coroutine that it leaves behind, while the filter holds


# --- Endpoint with a trailing slash, or an empty path, under HMAC


@pytest.mark.parametrize(("slash", "path"), [("/", "/a?b=c"), ("", ""), ("/", ""), ("", "?b=c")])
def test_a_trailing_slash_or_an_empty_path_under_hmac(
    way: Way, service: LocalService, slash: str, path: str
) -> None:
    """Row: endpoint with a trailing slash, or an empty path, under HMAC. The signature is right.

    The service recomputes it over what arrived.
    """
    policy = way.get_policy(service.endpoint + slash, service.access_key)
    assert status(way, service, policy, path) == 200


@pytest.mark.parametrize(("slash", "path"), [("/", "/a?b=c"), ("", "")])
def test_the_incumbents_signature_is_wrong(service: LocalService, slash: str, path: str) -> None:
    """Row: endpoint with a trailing slash, or an empty path, under HMAC. Refused by the service."""
    policy = PeerSigningPolicy(service.endpoint + slash, service.access_key)
    assert status(WAYS["sync"], service, policy, path) == 401


def status(way: Way, service: LocalService, policy: Any, path: str) -> int:
    """Send a request with the transport that azure-core takes by default; return the status."""
    request = HttpRequest("GET", service.endpoint + path)

    async def send() -> Any:
        async with WAYS["aio"].Client(
            service.endpoint, policies=[policy], **service.client_options()
        ) as client:
            return await client.send_request(request)

    if way is WAYS["aio"]:
        return run_async(send()).status_code  # type: ignore[no-any-return]
    with way.Client(service.endpoint, policies=[policy], **service.client_options()) as client:
        return client.send_request(request).status_code  # type: ignore[no-any-return]


# --- Connection string in an error


@pytest.mark.parametrize("parse", [parse_connection_string, parse_client_arguments])
@pytest.mark.parametrize(
    "text",
    [
        "endpoint=https://contoso.com/;accesskey=QUJD{}",
        "endpoint=contoso.com;accesskey=QUJD",
        "accesskey=QUJD",
        "QUJD",
        "endpoint=https://contoso.com/;accesskey=QUJD;accesskey=QUJD",
    ],
)
def test_a_connection_string_in_an_error(parse: Callable[[str], object], text: str) -> None:
    """Row: connection string in an error. No part of it, least of all the key."""
    with pytest.raises(ValueError, match="connection_string") as caught:
        parse(text)
    assert "QUJD" not in str(caught.value)
    assert "contoso.com/;" not in str(caught.value)
    assert caught.value.__context__ is None


# --- Identifiers in a set


def test_identifiers_in_a_set() -> None:
    """Row: identifiers in a set. They can be; the incumbent's cannot."""
    identifiers: list[CommunicationIdentifier] = [
        CommunicationUserIdentifier("8:acs:a_b"),
        PhoneNumberIdentifier("+14255550123"),
        MicrosoftTeamsUserIdentifier("a"),
        MicrosoftTeamsAppIdentifier("b"),
        TeamsExtensionUserIdentifier(user_id="a", tenant_id="b", resource_id="c"),
        UnknownIdentifier("d"),
    ]
    twins = [identifier_from_raw_id(each.raw_id) for each in identifiers]
    assert len({*identifiers, *twins}) == 6
    with pytest.raises(TypeError, match="unhashable"):
        hash(PeerIdentifier("8:acs:a_b"))


# --- Mistyped keyword


def test_a_mistyped_keyword(way: Way) -> None:
    """Row: mistyped keyword. A ``TypeError`` that names it; the incumbent ignores it."""
    token = make_token(time.time() + HOUR)
    with pytest.raises(TypeError, match="'token_refreshr' is no argument of the credential"):
        way.Credential(token, token_refreshr=Issuer())
    assert PeerCredential(token, token_refreshr=Issuer()).get_token().token == token


def test_a_mistyped_keyword_of_the_refresh(way: Way) -> None:
    """Row: mistyped keyword. One that would have switched proactive refresh on, for example."""
    with pytest.raises(TypeError, match="'proactive_refreshing' is no argument"):
        way.Credential(token_refresher=Issuer(), proactive_refreshing=True)
