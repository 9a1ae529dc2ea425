"""What both credentials have in common: their arguments, protocols, results, claims and end."""

import asyncio
import copy
import logging
import pickle
import time
import traceback

import pytest
from azure.communication.common import AzureCommunicationTokenCredential, aio
from azure.communication.common import CommunicationTokenCredential as Sync
from azure.core.credentials import (
    AccessToken,
    AccessTokenInfo,
    SupportsTokenInfo,
    TokenCredential,
)
from azure.core.credentials_async import AsyncSupportsTokenInfo, AsyncTokenCredential

from fake_transport import WAYS
from scaffolding import (
    Clock,
    InlineWorkers,
    Issuer,
    clock_loop,
    install,
    let_pass,
    make_token,
    on_clock,
    threadless,
)

Async = aio.CommunicationTokenCredential


@pytest.fixture(params=list(WAYS))
def way(request):
    return WAYS[request.param]


def a_token(life=3600):
    return make_token(time.time() + life)


def test_the_credentials_are_what_azure_core_asks_for():
    """Each satisfies its two runtime protocols, under both of its names."""
    token = a_token()
    assert isinstance(Sync(token), TokenCredential)
    assert isinstance(Sync(token), SupportsTokenInfo)
    assert isinstance(Async(token), AsyncTokenCredential)
    assert isinstance(Async(token), AsyncSupportsTokenInfo)
    assert AzureCommunicationTokenCredential is Sync
    assert aio.AzureCommunicationTokenCredential is Async


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        lambda text: AccessToken(text, 4e9),
        lambda text: AccessTokenInfo(text, 4e9),
    ],
    ids=["str", "AccessToken", "AccessTokenInfo"],
)
def test_a_token_comes_in_three_types_and_goes_out_in_two(way, wrap):
    """Whatever was passed or returned by the refresher, get_token gives an AccessToken."""
    text = a_token()
    for credential in (
        way.Credential(wrap(text)),
        way.Credential(wrap(text), token_refresher=lambda: pytest.fail("not needed")),
        way.Credential(token_refresher=lambda: wrap(text)),
    ):
        token = way.call(credential.get_token)
        info = way.call(credential.get_token_info)
        assert type(token).__mro__[1] is AccessToken
        assert isinstance(info, AccessTokenInfo)
        assert token.token == info.token == text
        assert token.expires_on == info.expires_on
        assert isinstance(token.expires_on, int)
        assert info.token_type == "Bearer"


def test_scopes_are_accepted_and_not_needed(way):
    """Communication clients pass none, other clients pass theirs."""
    credential = way.Credential(a_token())
    for scopes in ((), ("https://communication.azure.com//.default",), ("a", "b")):
        token = way.call(
            credential.get_token, *scopes, claims=None, tenant_id=None, enable_cae=False
        )
        assert way.call(credential.get_token_info, *scopes, options={}).token == token.token


def refresher():
    return a_token()


class Entra:
    def get_token(self, *scopes, **kwargs):
        pytest.fail("constructors do no I/O")


ENDPOINT = "https://contoso.communication.azure.com"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"token": 5}, r"token must be a str, an AccessToken or an AccessTokenInfo, not int"),
        ({"token": "T", "undecodable_token_lifetime": "9"}, r"undecodable_token_lifetime must be"),
        ({"token": "T", "undecodable_token_lifetime": True}, r"undecodable_token_lifetime must be"),
        ({"token": "T", "scopes": ["s"]}, r"token cannot be combined with scopes"),
        (
            {"token_refresher": refresher, "resource_endpoint": ENDPOINT},
            r"token_refresher cannot be combined with resource_endpoint",
        ),
        (
            {
                "resource_endpoint": ENDPOINT,
                "token_credential": Entra(),
                "undecodable_token_lifetime": 5,
            },
            r"undecodable_token_lifetime cannot be combined",
        ),
    ],
)
def test_what_makes_no_form_is_a_type_error_that_names_the_argument(way, arguments, error):
    """There are three forms, distinguished by their arguments; nothing is ignored."""
    if arguments.get("token") == "T":
        arguments = {**arguments, "token": a_token()}
    with pytest.raises(TypeError, match=error):
        way.Credential(**arguments)


@pytest.mark.parametrize("lifetime", [0, -1, 0.9, float("nan"), float("inf"), 1e12])
def test_a_lifetime_that_is_no_time_is_refused(way, lifetime):
    """A token cannot live for no time, or forever."""
    with pytest.raises(ValueError, match="undecodable_token_lifetime must be at least 1 second"):
        way.Credential("opaque", undecodable_token_lifetime=lifetime)


def test_a_lifetime_admits_opaque_tokens_from_the_start_and_from_the_refresher(way):
    """It applies to the first token and to every later one."""
    clock = Clock(wall=1000.0)
    credential = on_clock(way.Credential, clock)(
        "opaque1", token_refresher=lambda: "opaque2", undecodable_token_lifetime=60
    )
    assert way.call(credential.get_token) == ("opaque1", 1060)
    clock.advance(30)
    assert way.call(credential.get_token) == ("opaque2", 1090)


def test_a_static_token_is_returned_expired_or_not_with_one_warning(way, caplog):
    """The service is the one to refuse it; the log says once what to do."""
    clock = Clock()
    text = make_token(clock.wall() + 10)
    credential = on_clock(way.Credential, clock)(text)
    assert way.call(credential.get_token_info).refresh_on is None
    clock.advance(9.9)
    for options in ({}, {"claims": "c"}):
        assert way.call(credential.get_token, **options).token == text
    assert caplog.records == []
    clock.advance(0.1)
    for _ in range(3):
        assert way.call(credential.get_token).token == text
        assert way.call(credential.get_token, claims="c").token == text
    credential.invalidate_token(text)
    assert way.call(credential.get_token_info).token == text
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "pass a token_refresher" in record.getMessage()


def test_a_static_credential_that_expired_before_it_was_made_still_works(way):
    """Construction does not check whether the token has expired."""
    text = make_token(10)
    assert way.call(way.Credential(text).get_token) == (text, 10)


def test_one_failed_try_is_logged_once_with_its_reason(way, caplog):
    """At WARNING, with the traceback of the failure and the time of the next attempt."""
    clock = Clock()
    issuer = Issuer(ConnectionError("down"), wall=clock.wall)
    credential = on_clock(way.Credential, clock)(
        make_token(clock.wall() + 100), token_refresher=issuer
    )
    clock.advance(50)
    for _ in range(5):
        way.call(credential.get_token)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "Token refresh failed; the token is valid for another 50 seconds, and the next attempt is "
        "in 25 seconds"
    )
    assert isinstance(record.exc_info[1], ConnectionError)
    assert issuer.calls == 1


def test_a_refresh_is_told_at_debug(way, caplog):
    """Routine is only logged for those who ask for it."""
    caplog.set_level(logging.DEBUG)
    way.call(way.Credential(token_refresher=refresher).get_token)
    assert [
        record.levelname for record in caplog.records if "valid for" in record.getMessage()
    ] == ["DEBUG"]


def test_the_caller_gets_the_original_exception_of_its_own_refresh(way):
    """With no valid token, what the refresher raised comes out as it is."""
    failure = ConnectionError("down")

    def fail():
        raise failure

    with pytest.raises(ConnectionError) as caught:
        way.call(way.Credential(token_refresher=fail).get_token)
    assert caught.value is failure


def test_inside_a_hold_the_last_error_comes_again_and_says_until_when(way):
    """As another object, with a note, which Python 3.10 does not show."""
    clock = Clock()
    issuer = Issuer(*[ConnectionError("down")] * 2, wall=clock.wall)
    credential = on_clock(way.Credential, clock)(token_refresher=issuer)
    errors = []
    for _ in range(4):
        with pytest.raises(ConnectionError, match="down") as caught:
            way.call(credential.get_token)
        errors.append(caught.value)
    assert issuer.calls == 2
    assert errors[2] is not errors[3]
    assert errors[2].__notes__ == ["The next refresh attempt is in 0.5 seconds."]


def test_options_of_get_token_info_are_those_of_get_token(way):
    """Claims come either way and force a refresh."""
    issuer = Issuer()
    credential = way.Credential(token_refresher=issuer)
    first = way.call(
        credential.get_token_info, options={"enable_cae": True, "tenant_id": "t"}
    ).token
    assert way.call(credential.get_token, enable_cae=True).token == first
    second = way.call(credential.get_token_info, options={"claims": "c"}).token
    assert second != first
    assert way.call(credential.get_token, claims="c").token == second
    assert way.call(credential.get_token, claims="").token == second
    assert issuer.calls == 2


@pytest.mark.parametrize("form", ["static", "callback", "proactive"])
def test_closing_is_final_in_every_form(way, form):
    """Closing again is fine, using or entering it again is not, and the token is gone."""
    arguments = {"token_refresher": refresher} if form != "static" else {}
    if form == "proactive":
        arguments["proactive_refresh"] = True
    text = a_token()
    credential = way.Credential(text, **arguments)
    assert way.call(credential.get_token).token == text
    way.call(credential.close)
    way.call(credential.close)
    with pytest.raises(RuntimeError, match="The credential has been closed"):
        way.call(credential.get_token)
    with pytest.raises(RuntimeError, match="closed"):
        way.call(credential.get_token_info, options={"claims": "c"})
    with pytest.raises(RuntimeError, match="closed"):
        way.call(getattr(credential, "__enter__", None) or credential.__aenter__)
    credential.invalidate_token(text)
    assert text not in repr(vars_of(credential))


def vars_of(credential):
    slots = {name for kind in type(credential).__mro__ for name in getattr(kind, "__slots__", ())}
    return {name: getattr(credential, name) for name in slots - {"__weakref__"}}


def test_with_closes_the_synchronous_credential():
    """Also when the block fails."""
    with Sync(a_token()) as credential:
        assert credential.get_token()
    with pytest.raises(RuntimeError, match="closed"):
        credential.get_token()
    with pytest.raises(KeyError), Sync(a_token()) as credential:
        raise KeyError
    with pytest.raises(RuntimeError, match="closed"):
        credential.get_token()


def test_async_with_closes_the_asynchronous_credential():
    """Also when the block fails."""

    async def run():
        async with Async(a_token()) as credential:
            assert await credential.get_token()
        with pytest.raises(RuntimeError, match="closed"):
            await credential.get_token()
        with pytest.raises(KeyError):
            async with Async(a_token()) as credential:
                raise KeyError
        with pytest.raises(RuntimeError, match="closed"):
            await credential.get_token()

    asyncio.run(run())


def test_a_credential_shows_its_state_and_nothing_else(way):
    """The repr is for logs."""
    credential = way.Credential(AccessToken("secret", 10))
    assert repr(credential) == "<CommunicationTokenCredential: expires_on=10>"
    way.call(credential.close)
    assert repr(credential) == "<CommunicationTokenCredential: closed>"
    credential = way.Credential(token_refresher=refresher)
    assert repr(credential) == "<CommunicationTokenCredential: no token yet>"


def test_a_credential_whose_constructor_failed_can_be_shown(way):
    """By whatever shows the variables of the frame that failed, such as a debugger."""
    unfinished = way.Credential.__new__(way.Credential)
    assert repr(unfinished) == "<CommunicationTokenCredential: not constructed>"
    with pytest.raises(ValueError, match="not a JWT") as caught:
        way.Credential("rubbish")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert repr(unfinished) in "".join(shown.format())


@pytest.mark.parametrize("kind", [AccessToken, AccessTokenInfo])
def test_a_token_object_is_shown_without_its_token(way, kind):
    """What azure-core's classes would print, ours do not show."""
    given = kind("opaque-secret", int(time.time()) + 3600)
    assert "opaque-secret" in repr(given)
    credential = way.Credential(given)
    assert "opaque-secret" not in repr(way.call(credential.get_token))
    assert "opaque-secret" not in repr(way.call(credential.get_token_info))
    assert way.call(credential.get_token).token == "opaque-secret"


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_credential_is_neither_pickled_nor_copied(way, duplicate):
    """The secret would travel, and the waiters could not; the error says what to do."""
    with pytest.raises(TypeError, match="Create one in each process"):
        duplicate(way.Credential(a_token()))


def test_an_unknown_attribute_is_refused(way):
    """Slots catch the typing error that a dictionary would take."""
    with pytest.raises(AttributeError):
        way.Credential(a_token()).token_refresher = refresher


def test_an_async_refresher_is_refused_by_the_synchronous_class():
    """When it returns, if it could not be seen before; no coroutine is left unawaited."""

    async def issue():
        return a_token()

    credential = Sync(token_refresher=lambda: issue())
    with pytest.raises(TypeError, match="returned an awaitable"):
        credential.get_token()


class Promise:
    """An awaitable that can neither be closed nor cancelled."""

    def __await__(self):
        raise NotImplementedError


def test_an_awaitable_of_any_other_kind_is_refused_as_well():
    """One that nothing can end warns of nothing either."""
    with pytest.raises(TypeError, match="returned an awaitable"):
        Sync(token_refresher=Promise).get_token()


def test_a_future_from_a_synchronous_refresher_is_cancelled():
    """It has no close()."""
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    with pytest.raises(TypeError, match="returned an awaitable"):
        Sync(token_refresher=lambda: future).get_token()
    assert future.cancelled()
    loop.close()


def test_an_async_refresher_may_be_any_callable_that_returns_an_awaitable():
    """A coroutine function, a plain function, a bound method, a future."""

    async def issue():
        return a_token()

    async def run():
        future = asyncio.get_running_loop().create_future()
        future.set_result(a_token())
        for refresh in (issue, lambda: issue(), refresher, Issuer().issue, lambda: future):
            assert (await Async(token_refresher=refresh).get_token()).token

    asyncio.run(run())


class BusyWorkers(InlineWorkers):
    """Workers that are all busy until the test says so."""

    def __init__(self):
        super().__init__()
        self.left = []

    def submit(self, reference):
        self.left.append(reference)

    def become_free(self):
        while self.left:
            super().submit(self.left.pop())


def test_a_worker_leaves_alone_what_a_caller_has_refreshed_meanwhile(monkeypatch):
    """It was due when it was queued, but is not any more."""
    clock = Clock()
    workers = BusyWorkers()
    scheduler = install(monkeypatch, threadless(clock, workers))
    issuer = Issuer(wall=clock.wall)
    credential = on_clock(Sync, clock)(
        make_token(clock.wall() + 3600), token_refresher=issuer, proactive_refresh=True
    )
    clock.advance(3000)
    scheduler.run_due()
    clock.advance(480)
    token = credential.get_token()
    assert issuer.calls == 1
    workers.become_free()
    assert issuer.calls == 1
    assert credential.get_token() is token


def test_what_comes_up_too_early_comes_up_again_in_time(monkeypatch):
    """Half a second by a clock that is slewed, and not only a minute later."""
    clock = Clock()
    issuer = Issuer(ConnectionError("down"), wall=clock.wall)
    scheduler = install(monkeypatch, threadless(clock, InlineWorkers()))
    credential = on_clock(Sync, clock)(
        make_token(clock.wall() + 3600), token_refresher=issuer, proactive_refresh=True
    )
    let_pass(3001, clock, scheduler)
    assert issuer.calls == 1  # ten minutes before expiry; the next one is after five
    clock.set_wall(clock.wall() - 100)
    let_pass(200, clock, scheduler)
    clock.set_wall(clock.wall() + 0.5)
    let_pass(98.9, clock, scheduler)
    assert issuer.calls == 1
    let_pass(0.2, clock, scheduler)
    scheduler.run_due()  # as whatever changes wakes it
    assert issuer.calls == 2
    credential.close()


def test_what_comes_up_too_early_on_a_loop_comes_up_again_in_time():
    """As on the thread."""
    clock = Clock()
    issuer = Issuer(ConnectionError("down"), wall=clock.wall)

    async def run():
        credential = on_clock(Async, clock)(
            make_token(clock.wall() + 3600), token_refresher=issuer.issue, proactive_refresh=True
        )
        await asyncio.sleep(3001)
        assert issuer.calls == 1
        clock.set_wall(clock.wall() - 100)
        await asyncio.sleep(200)
        clock.set_wall(clock.wall() + 0.5)
        await asyncio.sleep(98.9)
        assert issuer.calls == 1
        await asyncio.sleep(0.2)
        assert issuer.calls == 2
        await credential.close()

    with clock_loop(clock) as loop:
        loop.run_until_complete(run())


def test_the_async_credential_says_what_it_needs_where_no_loop_runs():
    """Under trio alone, for example, or where a coroutine is driven by hand."""
    with pytest.raises(RuntimeError, match="needs a running asyncio event loop: with trio, use"):
        Async(token_refresher=refresher).get_token().send(None)


def test_the_async_constructor_needs_no_loop():
    """Module-level credentials are made before any loop runs, proactive ones too."""
    issuer = Issuer()
    credential = Async(token_refresher=issuer.issue, proactive_refresh=True)
    assert issuer.calls == 0

    async def run():
        return await credential.get_token()

    assert asyncio.run(run()).token
    assert issuer.calls == 1
