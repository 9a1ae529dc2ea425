"""Where our package differs on purpose from the copies in the packages, shown on both.

The tables below are those of the migration guide, word by word; each row has a case that runs on a
copy and on ours.
"""

import asyncio
import inspect
import json
import re
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from azure.communication import callautomation, chat, common
from azure.communication.common import aio
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport
from azure.core.rest import HttpRequest

from fake_transport import Answer, FakeTransport
from interop import matrix
from interop.matrix import OTHERS, PACKAGES
from local_service import Answer as ServiceAnswer
from local_service import LocalService
from scaffolding import Clock, Issuer, make_token, on_clock

# Theirs read the clock in a way that Python 3.12 deprecates, and have deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:azure")

GUIDE = Path(__file__).parents[2] / "samples" / "migrate_from_shared" / "README.md"
HOUR = 3600
KEY = "a2V5"
ENDPOINT = "https://contoso.communication.azure.com"


def copy_in(models: Any) -> SimpleNamespace:
    """Return the names of a package's copy, the private ones included, under the names of ours."""
    private = {
        name: getattr(import_module(f"{models.__name__}._shared.{module}"), theirs)
        for name, module, theirs in (
            ("CommunicationTokenCredential", "user_credential", "CommunicationTokenCredential"),
            ("HMACCredentialsPolicy", "policy", "HMACCredentialsPolicy"),
            ("get_authentication_policy", "auth_policy_utils", "get_authentication_policy"),
            ("parse_connection_string", "utils", "parse_connection_str"),
            ("identifier_from_raw_id", "models", "identifier_from_raw_id"),
        )
    }
    return SimpleNamespace(**{**vars(models), **private})


CALLS, CHAT = copy_in(callautomation), copy_in(chat)


class Difference(NamedTuple):
    """A row of the guide's table, and a case with what it gives there and here.

    A case that raises gives the type of the exception.
    """

    matter: str
    theirs: str
    ours: str
    why: str
    case: Callable[[Any], object]
    gives: tuple[object, object]
    copy: Any = CALLS


def expiring(life: float) -> AccessToken:
    expires_on = int(time.time() + life)
    return AccessToken(make_token(expires_on), expires_on)


def segment(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def mistyped(package: Any) -> str:
    package.PhoneNumberIdentifier("+14255550123", raw_di="4:+14255550123")
    package.CommunicationTokenCredential(make_token(time.time() + HOUR), token_refreshr=Issuer())
    return "made"


def wrapped(package: Any) -> str:
    token = f"Bearer {make_token(time.time() + HOUR)}"
    return str(package.CommunicationTokenCredential(token).get_token().token[:6])


def url_safe(package: Any) -> int:
    token = f"e30.{segment({'exp': 4102444800, 'name': 'Zoë'})}.c2ln"
    return int(package.CommunicationTokenCredential(token).get_token().expires_on)


def encrypted(package: Any) -> bool:
    token = f"{segment({'alg': 'dir', 'enc': 'A256GCM'})}..aXY.Y2lwaGVydGV4dA.dGFn"
    life = package.CommunicationTokenCredential(token).get_token().expires_on - time.time()
    return bool(590 < life <= 601)


def failing(package: Any) -> int:
    refresher, clock = Issuer(*[ConnectionError("down")] * 3), Clock(time.time())
    cls = package.CommunicationTokenCredential
    cls = on_clock(cls, clock) if package is common else cls  # for ours, it is time at 30 seconds
    credential = cls(make_token(clock.wall() + 60), token_refresher=refresher)
    clock.advance(40)
    for _ in range(3):
        credential.get_token()
    return refresher.calls


def short_lived(package: Any) -> int:
    refresher = Issuer(*(expiring(60) for _ in range(3)))
    token = make_token(time.time() - 1)
    credential = package.CommunicationTokenCredential(token, token_refresher=refresher)
    for _ in range(3):
        credential.get_token()
    return refresher.calls


def text_from_refresher(package: Any) -> int:
    token = make_token(time.time() - 1)
    credential = package.CommunicationTokenCredential(token, token_refresher=Issuer())
    credential.get_token()
    return 1


def closed(package: Any) -> str:
    with package.CommunicationTokenCredential(make_token(time.time() + HOUR)) as credential:
        pass
    credential.get_token()
    return "the token"


def claims(package: Any) -> int:
    refresher = Issuer(expiring(HOUR))
    token = make_token(time.time() + HOUR)
    credential = package.CommunicationTokenCredential(token, token_refresher=refresher)
    credential.get_token(claims='{"access_token": {}}')
    return refresher.calls


def entra(package: Any) -> int:
    issuer = Issuer(ConnectionError("down"))
    credential = SimpleNamespace(get_token=lambda *scopes, **options: issuer())
    package.CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=credential)
    return issuer.calls


def shown(package: Any) -> bool:
    token = package.CommunicationTokenCredential(make_token(time.time() + HOUR)).get_token()
    return token.token in repr(token)


def returned(package: Any) -> tuple[bool, bool]:
    result = chat.ChatParticipant(identifier=chat.CommunicationUserIdentifier("8:acs:u")).identifier
    is_kind = result.kind is package.CommunicationIdentifierKind.COMMUNICATION_USER
    return isinstance(result, package.CommunicationUserIdentifier), is_kind


def hashed(package: Any) -> int:
    return len({package.PhoneNumberIdentifier("+1"), package.PhoneNumberIdentifier("+1")})


def changed(package: Any) -> object:
    identifier = package.PhoneNumberIdentifier("+1")
    identifier.raw_id = "4:+2"
    return identifier.raw_id


def no_text(package: Any) -> object:
    return package.PhoneNumberIdentifier(None).properties["value"]


def phone_properties(package: Any) -> list[str]:
    return list(package.PhoneNumberIdentifier("+1_a", raw_id="4:+1_a").properties)


def three_parts(package: Any) -> object:
    return package.identifier_from_raw_id("8:acs:r_t_u").kind


def bots(package: Any) -> object:
    return package.CommunicationIdentifierKind.MICROSOFT_BOT.value


def connection(package: Any) -> object:
    return package.parse_connection_string(f"endpoint={ENDPOINT}/;accesskey={KEY}")[0]


def decoding(package: Any) -> str:
    return str(type(package.HMACCredentialsPolicy(ENDPOINT, KEY, decode_url=True)).__name__)


def one_for_both(package: Any) -> str:
    policy = package.get_authentication_policy(ENDPOINT, KEY, is_async=True)
    return type(policy).__name__


def tried(case: Callable[[], object]) -> str:
    """Return the name of the exception that a case raises, or "accepted"."""
    try:
        case()
    except Exception as error:
        return type(error).__name__
    return "accepted"


def proactive(package: Any) -> bool:
    """Return whether a caller five minutes before the end runs the refresher."""
    callers: list[threading.Thread] = []

    def refresh() -> AccessToken:
        callers.append(threading.current_thread())
        return expiring(HOUR)

    credential = package.CommunicationTokenCredential(
        make_token(time.time() + 300), token_refresher=refresh, proactive_refresh=True
    )
    credential.get_token()
    credential.close()
    return threading.current_thread() in callers


def placeholder(package: Any) -> tuple[str, str]:
    policy = package.HMACCredentialsPolicy
    return tried(lambda: policy(ENDPOINT, "fake===")), tried(lambda: policy(ENDPOINT, "ZmFrZQ=="))


def endpoints(package: Any) -> list[str]:
    policy = package.HMACCredentialsPolicy
    texts = ("http://localhost:8080", f"{ENDPOINT}/path", "https://localhost:8080/")
    return [tried(lambda text=text: policy(text, KEY)) for text in texts]  # type: ignore[misc]


class Wrapped(AsyncHttpTransport[Any, Any]):
    """A transport that passes requests on to another one, as SDKs' clients do with theirs."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def send(self, request: Any, **options: Any) -> Any:
        return await self._transport.send(request, **options)

    async def open(self) -> None:
        await self._transport.open()

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> "Wrapped":
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def statuses(package: Any, suffix: str, slash: str = "") -> list[int]:
    """Sign a request for each transport; return what the service says of the signatures."""
    with LocalService(echo=True) as service:
        policy = package.HMACCredentialsPolicy(service.endpoint + slash, service.access_key)
        request = HttpRequest("GET", service.endpoint + suffix)
        options = service.client_options()

        async def send(transport: Any) -> int:
            async with AsyncPipelineClient(
                service.endpoint, policies=[policy], transport=transport
            ) as client:
                return int((await client.send_request(request)).status_code)

        async def send_by_aiohttp() -> list[int]:
            return [
                await send(AioHttpTransport(**options)),
                await send(Wrapped(AioHttpTransport(**options))),
            ]

        with PipelineClient(service.endpoint, policies=[policy], **options) as client:
            status = client.send_request(request).status_code
        return [status, *asyncio.run(send_by_aiohttp())]


def rewritten(package: Any) -> list[list[int]]:
    return [statuses(package, "/a%2Db"), statuses(package, "/8%3Aacs%3Ax")[1:]]


def slashed(package: Any) -> list[list[int]]:
    return [statuses(package, "/a", slash="/"), statuses(package, "")]


def revoked(package: Any) -> int:
    """Return how many requests there are if the service refuses the first."""
    token, refresher = make_token(time.time() + HOUR), Issuer()
    credential = common.CommunicationTokenCredential(token, token_refresher=refresher)
    policy, transport = (
        package.get_authentication_policy(ENDPOINT, credential),
        FakeTransport(Answer(401)),
    )
    client = PipelineClient(ENDPOINT, policies=[policy], transport=transport)
    client.send_request(HttpRequest("GET", ENDPOINT))
    return len(transport.sent)


def async_in_sync(package: Any) -> str:
    async def get_token(*scopes: str, **options: Any) -> AccessToken:
        return expiring(HOUR)

    credential = SimpleNamespace(get_token=get_token)
    return tried(lambda: package.get_authentication_policy(ENDPOINT, credential))


def failed_exchanges(package: Any) -> list[str]:
    """Return the exceptions for an Entra token that is refused, and for a malformed answer."""
    credential = SimpleNamespace(get_token=lambda *scopes, **options: AccessToken("t", 4102444800))
    with LocalService() as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", service.ca_path)
        arguments = {"resource_endpoint": service.endpoint, "token_credential": credential}
        make = package.CommunicationTokenCredential
        refused = tried(lambda: make(**arguments).get_token())
        service.script("POST /access/entra/:exchangeAccessToken", ServiceAnswer(200, {}))
        return [refused, tried(lambda: make(**arguments).get_token())]


def opened(package: Any) -> tuple[str, str]:
    class Named(package.CommunicationUserIdentifier):  # type: ignore[misc,name-defined]
        def __init__(self, id: str, name: str) -> None:
            super().__init__(id)
            self.name = name

    return (
        tried(lambda: vars(package.CommunicationUserIdentifier("8:acs:u"))),
        tried(lambda: Named("8:acs:u", "name")),
    )


def extension_on_the_wire(package: Any) -> list[str]:
    adapter = matrix.Adapter(204, None)
    transport = matrix.as_transport(adapter, aio=False)
    client = matrix.connect("ChatThreadClient", "chat", chat, transport, aio=False)
    client.remove_participant(package.identifier_from_raw_id("8:acs:r_t_u"))
    return sorted(matrix.as_sent(adapter.sent[0]).body)


def left_out(package: Any) -> object:
    return package.MicrosoftTeamsAppIdentifier(None, raw_id="28:orgid:a").properties["app_id"]


def not_anonymous(package: Any) -> object:
    return package.MicrosoftTeamsUserIdentifier("u", is_anonymous=None).properties["is_anonymous"]


def wire_cloud(package: Any) -> object:
    cloud = package.MicrosoftTeamsAppIdentifier("a", cloud="public").properties["cloud"]
    return getattr(cloud, "value", cloud)


DIFFERENCES = [
    Difference(
        "arguments that do not go together, such as `proactive_refresh` without `token_refresher`",
        "`ValueError`",
        "`TypeError`",
        "as Python does for any wrong call",
        lambda package: package.CommunicationTokenCredential(
            make_token(time.time() + HOUR), proactive_refresh=True
        ),
        (ValueError, TypeError),
    ),
    Difference(
        "a mistyped keyword, of the credential or of a model",
        "ignored",
        "`TypeError`",
        "a misspelt `token_refresher` would never be called",
        mistyped,
        ("made", TypeError),
    ),
    Difference(
        "`Bearer eyJ…`, a quoted token, the whole response",
        "accepted, and refused by the service",
        "`ValueError` that says what to pass",
        "found when the credential is made",
        wrapped,
        ("Bearer", ValueError),
    ),
    Difference(
        "a payload that encodes with `-` or `_`, or has non-ASCII text",
        "`ValueError`",
        "read",
        "RFC 7515 encodes it like that",
        url_safe,
        (ValueError, 4102444800),
    ),
    Difference(
        "an encrypted token (JWE)",
        "`ValueError`",
        "lives for 600 seconds, or as `undecodable_token_lifetime` says",
        "no client can read it, but any can send it",
        encrypted,
        (ValueError, True),
    ),
    Difference(
        "what `token_refresher` may return",
        "an `AccessToken`",
        "also the JWT alone, or an `AccessTokenInfo`",
        "the JWT holds its expiry",
        text_from_refresher,
        (AttributeError, 1),
    ),
    Difference(
        "`token_refresher` fails while the token is valid",
        "its exception",
        "the valid token, and a log record",
        "callers need not notice a short outage of the issuer",
        failing,
        (ConnectionError, 1),
    ),
    Difference(
        "a token that lives less than four minutes, or twenty with `proactive_refresh`",
        "a new one at each call",
        "a new one at half of its life",
        "the issuer is not flooded",
        short_lived,
        (3, 1),
    ),
    Difference(
        "`get_token` after `close()` or `with`",
        "`RuntimeError` with `proactive_refresh` alone",
        "`RuntimeError` in every form",
        "closing forgets the token",
        closed,
        ("the token", RuntimeError),
    ),
    Difference(
        "`get_token(claims=…)`",
        "ignored",
        "one new token",
        "the service asked for it",
        claims,
        (0, 1),
    ),
    Difference(
        "making the credential with `resource_endpoint` and `token_credential`",
        "sends requests, and fails in a running event loop",
        "sends nothing until the first `get_token`",
        "constructors do no I/O",
        entra,
        (ConnectionError, 0),
    ),
    Difference(
        "`repr` of the token that `get_token` returns",
        "shows the token",
        "does not show it",
        "it ends up in logs",
        shown,
        (True, False),
    ),
    Difference(
        "`isinstance` with a model, or `is` with a kind, on what a client returned",
        "true",
        "false: compare kinds by `==`, or convert by `identifier_from_raw_id(x.raw_id)`",
        "a client makes objects of its own copy",
        returned,
        ((True, True), (False, False)),
        CHAT,
    ),
    Difference(
        "an identifier in a set, or as a key",
        "`TypeError`",
        "works",
        "it is a value",
        hashed,
        (TypeError, 1),
    ),
    Difference(
        "changing an identifier or its `properties`",
        "changes it",
        "`AttributeError`; `properties` is a new `dict` each time",
        "it may be shared, and be a key",
        changed,
        ("4:+2", AttributeError),
    ),
    Difference(
        "`None` or a number for an id",
        "accepted, and sent",
        "`TypeError`",
        "found where it happens",
        no_text,
        (None, TypeError),
    ),
    Difference(
        "`properties` of a phone number that has a raw id",
        "`value` alone, except in Call Automation",
        "also `is_anonymous`, and `asserted_id` if there is one",
        "as in Call Automation, the newest copy",
        phone_properties,
        (["value"], ["value", "is_anonymous", "asserted_id"]),
        CHAT,
    ),
    Difference(
        "a raw id with three parts behind `8:acs:`",
        "a Communication user, except in Call Automation",
        "a Teams extension user; `CommunicationUserIdentifier(raw_id)` gives the other",
        "as in Call Automation, the newest copy",
        three_parts,
        ("communication_user", "teams_extension_user"),
        CHAT,
    ),
    Difference(
        "`MICROSOFT_BOT`, `MicrosoftBotIdentifier`",
        "deprecated names",
        "gone: `MICROSOFT_TEAMS_APP`, `MicrosoftTeamsAppIdentifier`",
        "a new package starts without them",
        bots,
        ("microsoft_teams_app", AttributeError),
    ),
    Difference(
        "`parse_connection_str`",
        "returns the host",
        "`parse_connection_string` returns the endpoint, with `https://`",
        "it is what clients take",
        connection,
        ("contoso.communication.azure.com", "https://contoso.communication.azure.com"),
    ),
    Difference(
        "`HMACCredentialsPolicy(…, decode_url=…)`",
        "signs the URL as it is or decoded",
        "`TypeError`: signs what is sent",
        "the service sees nothing else",
        decoding,
        ("HMACCredentialsPolicy", TypeError),
    ),
    Difference(
        "`get_authentication_policy(…, is_async=True)`",
        "a policy for `aio` clients",
        "`TypeError`: the function of that name in `azure.communication.common.aio`",
        "each has one type",
        one_for_both,
        ("HMACCredentialsPolicy", TypeError),
    ),
    Difference(
        "`get_token_info`, which tells when to ask again",
        "not there",
        "there",
        "azure-core's policies ask for it",
        lambda package: hasattr(package.CommunicationTokenCredential, "get_token_info"),
        (False, True),
    ),
    Difference(
        "`get_token` with `proactive_refresh`, ten to two minutes before the token expires",
        "the caller refreshes, and waits",
        "the token at once; the background refreshes",
        "nobody waits for what is not urgent",
        proactive,
        (True, False),
    ),
    Difference(
        "an access key that is a placeholder, such as `fake===`",
        "accepted, and used to sign",
        "`ValueError`: write base64, such as `ZmFrZQ==`",
        "a mistyped key is found when the client is made",
        placeholder,
        (("accepted", "accepted"), ("ValueError", "accepted")),
    ),
    Difference(
        "an endpoint with `http://`, or with a path",
        "accepted",
        "`ValueError`: `https://` and the host, with a port if need be",
        "a credential goes over https only, to one host",
        endpoints,
        (["accepted"] * 3, ["ValueError", "ValueError", "accepted"]),
    ),
    Difference(
        "an endpoint with a slash at its end, or a URL without a path, under an access key",
        "401",
        "signed as sent",
        "the service sees nothing else",
        slashed,
        ([[401] * 3, [401] * 3], [[200] * 3, [200] * 3]),
    ),
    Difference(
        "a URL that the transport writes differently, such as `/a%2Db`, or with aiohttp "
        "`/8%3Aacs%3Ax`, also behind a transport that wraps it",
        "signed as written: 401",
        "signed as sent",
        "the service sees nothing else",
        rewritten,
        ([[401] * 3, [401] * 2], [[200] * 3, [200] * 2]),
    ),
    Difference(
        "a 401 for a token, under the policy of `get_authentication_policy`",
        "raised",
        "one more request, if there is another token",
        "callers need not notice that a token was revoked",
        revoked,
        (1, 2),
    ),
    Difference(
        "`credential=None` for `get_authentication_policy`",
        "`ValueError`",
        "`TypeError`",
        "it is of the wrong type",
        lambda package: package.get_authentication_policy(ENDPOINT, None),
        (ValueError, TypeError),
    ),
    Difference(
        "an async credential for a sync client's policy",
        "accepted; the first request fails",
        "`TypeError` that names the `aio` one",
        "found when the client is made",
        async_in_sync,
        ("accepted", "TypeError"),
    ),
    Difference(
        "an exchange of an Entra token that is refused, or has a malformed answer",
        "`HttpResponseError`, `ValueError`",
        "`ClientAuthenticationError`, `HttpResponseError`",
        "the first is a kind of the second: catch `HttpResponseError` for both",
        failed_exchanges,
        (
            ["HttpResponseError", "ValueError"],
            ["ClientAuthenticationError", "HttpResponseError"],
        ),
    ),
    Difference(
        "`vars()` of an identifier, and subclasses that set attributes",
        "work",
        "`TypeError`, `AttributeError`: read `properties`, keep data of your own elsewhere",
        "it has slots, and does not change",
        opened,
        (("accepted", "accepted"), ("TypeError", "AttributeError")),
    ),
    Difference(
        "`identifier_from_raw_id` of a Teams extension user, sent by a chat client",
        "as `communicationUser`",
        "as `rawId` alone",
        "its kind says what it is, and chat knows no JSON of it",
        extension_on_the_wire,
        (["communicationUser", "rawId"], ["rawId"]),
        CHAT,
    ),
]

# What the users of an SDK notice, besides, once its `_shared` is replaced by this package.
IN_A_SWAPPED_SDK = [
    Difference(
        'an id that a response leaves out, such as `{"microsoftTeamsApp": {}}`',
        "`None` in the `properties`",
        "`TypeError`; the service always sends it",
        "an identifier without an id identifies nobody",
        left_out,
        (None, TypeError),
    ),
    Difference(
        "the `cloud` of an identifier that Call Automation or Chat returns",
        "`public`, as in the JSON",
        "`PUBLIC` of the enum",
        "the same text, however the identifier was made",
        wire_cloud,
        ("public", "PUBLIC"),
    ),
    Difference(
        "`is_anonymous` of a Teams user that Call Automation returns, if it is missing in the JSON",
        "`None`",
        "`False`",
        "that is what the service means",
        not_anonymous,
        (None, False),
    ),
]


def outcome(case: Callable[[Any], object], package: Any) -> object:
    try:
        return case(package)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("row", [*DIFFERENCES, *IN_A_SWAPPED_SDK], ids=lambda row: row.matter)
def test_difference(row: Difference) -> None:
    """The copy does what the table says of it, and so does ours."""
    assert (outcome(row.case, row.copy), outcome(row.case, common)) == row.gives


def tables() -> dict[str, list[list[str]]]:
    """Return the rows of each table of the guide, by the first cell of its head."""
    guide = GUIDE.read_text("utf-8")
    found: dict[str, list[list[str]]] = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", guide, re.MULTILINE):
        head, _, *rows = [line.strip("| ").split(" | ") for line in block.splitlines()]
        found[head[0]] = rows
    return found


def test_guide_has_the_differences() -> None:
    """The guide's tables are those above: matter, theirs, ours, why."""
    assert tables()["Matter"] == [list(row[:4]) for row in DIFFERENCES]
    assert tables()["In a swapped SDK"] == [list(row[:4]) for row in IN_A_SWAPPED_SDK]


def test_guide_has_the_imports() -> None:
    """The guide tells of every public name of every package where it is now, and of no other."""
    for package, names in tables()["Package"]:
        module = import_module(package.strip("`"))
        listed = set(re.findall(r"`(\w+)`", names))
        assert listed == set(module.__all__) & set(common.__all__), package
    listed = {package for package, _ in tables()["Package"]}
    for package in (*PACKAGES, *OTHERS):
        for name in (f"azure.communication.{package}", f"azure.communication.{package}.aio"):
            ours = set(import_module(name).__all__) & set(common.__all__)
            assert bool(ours) is (f"`{name}`" in listed), name


def test_guide_has_the_private_names() -> None:
    """The guide lists private names that exist, and ours in their place."""
    models = import_module("azure.communication.callautomation._shared.models")
    for name in dir(models):
        if name[0] != "_" and name.endswith(("Identifier", "Properties", "Kind", "Environment")):
            assert name in common.__all__
    for old, new in tables()["Private name"]:
        for text in (
            f"azure.communication.callautomation._shared.{old.strip('`')}",
            new.strip("`"),
        ):
            path, _, name = text.rpartition(".")
            assert hasattr(import_module(path), name), text


# --- Coming from JavaScript

# What `import * as all from "@azure/communication-common"` gives in version 2.5.0.
EXPORTS = [
    "AzureCommunicationTokenCredential",
    "createCommunicationAccessKeyCredentialPolicy",
    "createCommunicationAuthPolicy",
    "createIdentifierFromRawId",
    "deserializeCommunicationIdentifier",
    "getIdentifierKind",
    "getIdentifierRawId",
    "isCommunicationUserIdentifier",
    "isKeyCredential",
    "isMicrosoftTeamsAppIdentifier",
    "isMicrosoftTeamsUserIdentifier",
    "isPhoneNumberIdentifier",
    "isRestError",
    "isTeamsExtensionUserIdentifier",
    "isUnknownIdentifier",
    "parseClientArguments",
    "parseConnectionString",
    "RestError",
    "serializeCommunicationIdentifier",
]


def test_guide_has_the_javascript_exports() -> None:
    """Each of the 19 is there, once, and what the guide names in its place exists."""
    rows = tables()["JavaScript"]
    assert len(rows) == 19
    assert sorted(js.strip("`") for js, _ in rows) == sorted(EXPORTS)
    identifier = common.CommunicationUserIdentifier("8:acs:u")
    for js, python in rows:
        names = re.findall(r"`(?:isinstance\(\w+, )?([\w.]+)\)?`", python)
        assert names, js
        for name in names:
            if name.startswith("azure."):
                path, _, last = name.rpartition(".")
                assert hasattr(import_module(path), last), name
            elif name.startswith("identifier."):
                assert hasattr(identifier, name.partition(".")[2]), name
            elif name not in ("aio", "isinstance", "match"):
                assert name in common.__all__, name
        if "in `aio`" in python:
            assert names[0] in aio.__all__


def test_guide_has_the_javascript_options() -> None:
    """Each argument of the credential is there, and has the name in the guide."""
    rows = tables()["JavaScript option"]
    for cls in (common.CommunicationTokenCredential, aio.CommunicationTokenCredential):
        parameters = inspect.signature(cls.__init__).parameters
        named = {name for _, python in rows for name in re.findall(r"`(\w+)", python)}
        wanted = {n for n, p in parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD}
        assert wanted <= named
        for name in ("get_token", "get_token_info", "close"):
            assert name in named
            assert hasattr(cls, name)
