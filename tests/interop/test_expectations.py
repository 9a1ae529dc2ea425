"""What users of the packages' own credential and models rely on, held against theirs and ours.

Each case runs on the copies of two generations and on our package, sync and aio: what their
documentation promises, and what their users see. What is different on purpose stands in
``test_expectations_differences``.
"""

import asyncio
import copy
import json
import pickle
import time
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from azure.communication import callautomation, chat, common, identity, rooms
from azure.communication.callautomation._shared import user_credential, user_credential_async
from azure.communication.chat import aio as chat_aio
from azure.communication.common import aio as common_aio
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.credentials_async import AsyncTokenCredential

from interop.matrix import settle
from scaffolding import Issuer, call_together, make_token, run_async, turn_until

# Theirs read the clock in a way that Python 3.12 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:azure")

HOUR = 3600

# --- The credential


def ways(sync, aio):
    return {
        "sync": SimpleNamespace(Credential=sync, aio=False, protocol=TokenCredential),
        "aio": SimpleNamespace(Credential=aio, aio=True, protocol=AsyncTokenCredential),
    }


CREDENTIALS = {
    "chat": ways(chat.CommunicationTokenCredential, chat_aio.CommunicationTokenCredential),
    "callautomation": ways(
        user_credential.CommunicationTokenCredential,
        user_credential_async.CommunicationTokenCredential,
    ),
    "ours": ways(common.CommunicationTokenCredential, common_aio.CommunicationTokenCredential),
}

by_credential = pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, id=f"{package}-{name}")
        for package, both in CREDENTIALS.items()
        for name, way in both.items()
    ],
)


def access_token(life):
    """Return a token in the form that their refreshers must return."""
    expires_on = int(time.time()) + life
    return AccessToken(make_token(expires_on), expires_on)


def refresher(way, *answers):
    """Return a refresher of the right kind, and the issuer that counts its calls."""
    issuer = Issuer(*answers)
    return (issuer.issue if way.aio else issuer), issuer


async def enter(stack, way, credential):
    if way.aio:
        return await stack.enter_async_context(credential)
    return stack.enter_context(credential)


@by_credential
def test_static_token(way):
    """A JWT alone makes a credential, which returns it with the expiry of its claim."""
    expires_on = int(time.time()) + HOUR
    text = make_token(expires_on)

    async def main():
        credential = way.Credential(text)
        assert isinstance(credential, way.protocol)
        token = await settle(credential.get_token())
        assert isinstance(token, AccessToken)
        assert token == (text, expires_on)
        assert (token.token, token.expires_on) == (text, expires_on)
        assert await settle(credential.get_token("https://scope", tenant_id="t")) == token

    run_async(main())


@by_credential
def test_expired_static_token(way):
    """A static token is returned even once it has expired: the service answers that."""
    text = make_token(time.time() - HOUR)

    async def main():
        assert (await settle(way.Credential(text).get_token())).token == text

    run_async(main())


@by_credential
@pytest.mark.parametrize("token", [5, b"a.b.c", ["a.b.c"]], ids=repr)
def test_token_that_is_no_text(way, token):
    """A token that is not a ``str`` is a ``TypeError`` of the constructor."""

    async def main():
        with pytest.raises(TypeError):
            way.Credential(token)

    run_async(main())


@by_credential
@pytest.mark.parametrize("token", ["", "a", "a.b", "foo.bar.tar", "a..b"])
def test_token_that_is_no_jwt(way, token):
    """A text that is not a JWT is a ``ValueError`` of the constructor."""

    async def main():
        with pytest.raises(ValueError, match=r"\w"):
            way.Credential(token)

    run_async(main())


@by_credential
def test_refresher_is_not_called_while_the_token_is_fresh(way):
    """The initial token is used until two minutes before its expiry."""
    text = make_token(time.time() + 150)
    function, issuer = refresher(way)

    async def main():
        credential = way.Credential(text, token_refresher=function)
        assert (await settle(credential.get_token())).token == text
        assert issuer.calls == 0

    run_async(main())


@by_credential
def test_refresher_is_called_for_an_expired_token(way):
    """It is called once, and its token is used from then on."""
    new = access_token(HOUR)
    function, issuer = refresher(way, new)

    async def main():
        credential = way.Credential(make_token(time.time() - 1), token_refresher=function)
        for _ in range(3):
            assert await settle(credential.get_token()) == new
        assert issuer.calls == 1

    run_async(main())


@by_credential
def test_refresher_fails(way):
    """Without a valid token its exception reaches the caller, and the next call tries again."""
    new = access_token(HOUR)
    function, issuer = refresher(way, ConnectionError("down"), new)

    async def main():
        text = make_token(time.time() - 1)
        credential = way.Credential(text, token_refresher=function)
        with pytest.raises(ConnectionError, match="down"):
            await settle(credential.get_token())
        assert await settle(credential.get_token()) == new
        assert issuer.calls == 2

    run_async(main())


@by_credential
def test_refresher_returns_an_expired_token(way):
    """That is a ``ValueError``."""
    function, _ = refresher(way, access_token(-10))

    async def main():
        credential = way.Credential(make_token(time.time() - 1), token_refresher=function)
        with pytest.raises(ValueError, match="expired"):
            await settle(credential.get_token())

    run_async(main())


@by_credential
def test_many_callers(way):
    """Threads or tasks that ask at the same time for an expired token share one refresh."""
    new = access_token(HOUR)
    function, issuer = refresher(way, new)

    async def main():
        credential = way.Credential(make_token(time.time() - 1), token_refresher=function)
        if way.aio:
            got = await asyncio.gather(*(credential.get_token() for _ in range(5)))
        else:
            got = [call.value() for call in call_together(5, credential.get_token)]
        assert got == [new] * 5
        assert issuer.calls == 1

    run_async(main())


@by_credential
def test_context(way):
    """``with`` gives the credential itself, and closing it again has no effect."""

    async def main():
        async with AsyncExitStack() as stack:
            credential = way.Credential(make_token(time.time() + HOUR))
            assert await enter(stack, way, credential) is credential
            assert await settle(credential.get_token())
        for _ in range(2):
            await settle(credential.close())

    run_async(main())


@by_credential
def test_proactive_refresh(way):
    """A token that is due is replaced in the background, before anybody asks for one."""
    new = access_token(HOUR)
    function, issuer = refresher(way, new)

    async def main():
        async with AsyncExitStack() as stack:
            text = make_token(time.time() - 1)
            credential = way.Credential(text, token_refresher=function, proactive_refresh=True)
            await enter(stack, way, credential)
            await turn_until(lambda: issuer.calls > 0)
            assert await settle(credential.get_token()) == new
            assert issuer.calls == 1

    run_async(main())


@by_credential
def test_closed_proactive_credential(way):
    """A proactive credential that was closed cannot be used or entered again."""
    function, issuer = refresher(way)

    async def main():
        text = make_token(time.time() + HOUR)
        credential = way.Credential(text, token_refresher=function, proactive_refresh=True)
        await settle(credential.close())
        with pytest.raises(RuntimeError, match="closed"):
            await settle(credential.get_token())
        async with AsyncExitStack() as stack:
            with pytest.raises(RuntimeError, match="closed"):
                await enter(stack, way, credential)
        assert issuer.calls == 0

    run_async(main())


# --- The models

by_models = pytest.mark.parametrize("models", [callautomation, chat, identity, rooms, common])


def all_of(models):
    return {
        "communication_user": models.CommunicationUserIdentifier("8:acs:r_u"),
        "phone_number": models.PhoneNumberIdentifier("+14255550123"),
        "microsoft_teams_user": models.MicrosoftTeamsUserIdentifier("u", cloud="DOD"),
        "microsoft_teams_app": models.MicrosoftTeamsAppIdentifier("a"),
        "unknown": models.UnknownIdentifier("9:future:x"),
    }


@by_models
def test_kinds(models):
    """A kind equals its member of the package's enum and the text, and is JSON."""
    for name, one in all_of(models).items():
        assert isinstance(one, models.CommunicationIdentifier)
        assert one.kind == models.CommunicationIdentifierKind[name.upper()]
        assert one.kind == models.CommunicationIdentifierKind(name) == name
        assert json.dumps(one.kind) == f'"{name}"'
        assert str(one.kind) == f"CommunicationIdentifierKind.{name.upper()}"


@by_models
def test_properties(models):
    """Properties are read by their keys, and by ``get`` where there may be none."""
    identifiers = all_of(models)
    assert identifiers["communication_user"].properties["id"] == "8:acs:r_u"
    assert identifiers["phone_number"].properties["value"] == "+14255550123"
    assert identifiers["phone_number"].properties.get("asserted_id") is None
    user = identifiers["microsoft_teams_user"].properties
    assert (user["user_id"], user["is_anonymous"], user["cloud"]) == ("u", False, "DOD")
    assert identifiers["microsoft_teams_app"].properties["cloud"] == "PUBLIC"
    assert dict(identifiers["unknown"].properties) == {}


@by_models
def test_equality(models):
    """Identifiers are equal by what they stand for, and to nothing else."""
    first, second = all_of(models), all_of(models)
    assert first == second
    for name, one in first.items():
        assert [other for other in second if second[other] == one] == [name]
        assert one not in (None, one.raw_id, name, 5, {})
    phone = models.PhoneNumberIdentifier("+14255550123", raw_id="4:+14255550123")
    assert phone == first["phone_number"]
    assert models.UnknownIdentifier("4:+14255550123") == phone


@by_models
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies(models, duplicate):
    """A copied or pickled identifier is equal to the first, with the same properties."""
    for one in all_of(models).values():
        assert duplicate(one) == one
        assert duplicate(one).properties == one.properties


@pytest.mark.parametrize("models", [callautomation, identity, rooms, common])
def test_cloud_enum(models):
    """A cloud is found in any case, equals its text, and is taken by the models."""
    clouds = models.CommunicationCloudEnvironment
    assert clouds.dod is clouds.DOD is clouds["dod"] is clouds["DOD"]
    assert clouds.DOD == "DOD"
    assert models.MicrosoftTeamsAppIdentifier("a", cloud=clouds.DOD).raw_id == "28:dod:a"


@pytest.mark.parametrize("models", [chat, identity, common])
def test_raw_ids(models):
    """A raw id makes the identifier that it came from."""
    for one in all_of(models).values():
        again = models.identifier_from_raw_id(one.raw_id)
        assert again == one
        assert again.kind == one.kind
        assert type(again) is type(one)
