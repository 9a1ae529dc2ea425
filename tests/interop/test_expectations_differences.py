"""Where our package differs on purpose from the copies in the packages, shown on both.

The table below is the README's, word by word; each row has a case that runs on a copy and on ours.
"""

import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from azure.communication import callautomation, chat, common
from azure.core.credentials import AccessToken

from interop.matrix import OTHERS, PACKAGES
from scaffolding import Clock, Issuer, make_token, on_clock

# Theirs ask the clock by what Python 3.12 deprecates, and have names that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:azure")

README = Path(__file__).parents[2] / "README.md"
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
    """A row of the README's table, and a case with what it gives there and here.

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


DIFFERENCES = [
    Difference(
        "arguments that do not go together, such as `proactive_refresh` without `token_refresher`",
        "`ValueError`",
        "`TypeError`",
        "so Python itself answers a wrong call",
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
        "taken, and refused by the service",
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
        "the expiry stands in the JWT",
        text_from_refresher,
        (AttributeError, 1),
    ),
    Difference(
        "`token_refresher` fails while the token is valid",
        "its exception",
        "the valid token, and a log record",
        "a short outage of the issuer disturbs nobody",
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
        "taken, and sent",
        "`TypeError`",
        "found where it happens",
        no_text,
        (None, TypeError),
    ),
    Difference(
        "`properties` of a phone number that has a raw id",
        "`value` alone, but for Call Automation",
        "also `is_anonymous`, and `asserted_id` if there is one",
        "as in Call Automation, the newest copy",
        phone_properties,
        (["value"], ["value", "is_anonymous", "asserted_id"]),
        CHAT,
    ),
    Difference(
        "a raw id with three parts behind `8:acs:`",
        "a Communication user, but for Call Automation",
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
]


def outcome(case: Callable[[Any], object], package: Any) -> object:
    try:
        return case(package)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row.matter)
def test_difference(row: Difference) -> None:
    """The copy does what the table says of it, and so does ours."""
    assert (outcome(row.case, row.copy), outcome(row.case, common)) == row.gives


def tables() -> dict[str, list[list[str]]]:
    """Return the rows of each table in the README's guide, by the first cell of its head."""
    guide = README.read_text("utf-8").partition("\n## Migrate from the `_shared` copies\n")[2]
    guide = guide.partition("\n## ")[0]
    found: dict[str, list[list[str]]] = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", guide, re.MULTILINE):
        head, _, *rows = [line.strip("| ").split(" | ") for line in block.splitlines()]
        found[head[0]] = rows
    return found


def test_readme_has_the_differences() -> None:
    """The README's table is the one above: matter, theirs, ours, why."""
    assert tables()["Matter"] == [list(row[:4]) for row in DIFFERENCES]


def test_readme_has_the_imports() -> None:
    """The README tells of every public name of every package where it is now, and of no other."""
    for package, names in tables()["Package"]:
        module = import_module(package.strip("`"))
        listed = set(re.findall(r"`(\w+)`", names))
        assert listed == set(module.__all__) & set(common.__all__), package
    listed = {package for package, _ in tables()["Package"]}
    for package in (*PACKAGES, *OTHERS):
        for name in (f"azure.communication.{package}", f"azure.communication.{package}.aio"):
            ours = set(import_module(name).__all__) & set(common.__all__)
            assert bool(ours) is (f"`{name}`" in listed), name


def test_readme_has_the_private_names() -> None:
    """The README tells of private names that there are, and of ours in their place."""
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
