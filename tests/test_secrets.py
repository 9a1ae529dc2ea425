"""No secret anywhere but in its header: a sweep over the public operations.

Each scenario does something with planted secrets, in one of the ways in which it can succeed or
fail. Then all that can be reached is searched for them: results, errors and what hangs on them,
the log with every logger at DEBUG and asyncio in its debug mode, pickles, what was sent, and, after
``close()``, whatever the garbage collector finds behind credentials, policies and contexts.
"""

import asyncio
import base64
import contextvars
import copy
import gc
import itertools
import json
import logging
import pickle
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

import pytest
from azure.communication.common import (
    HMACCredentialsPolicy,
    parse_client_arguments,
    parse_connection_string,
)
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.core.rest import HttpRequest

from fake_transport import WAYS, Answer, FakeResponse, Way
from scaffolding import cache_of, run_async

ENDPOINT = "https://contoso.communication.azure.com"
EVERY = 16  # this many consecutive characters of a secret are too many
MEMBERS = ["inner_exception", "exc_value", "response", "model", "error", "request", "reason"]

_serials = itertools.count(1)


def random_text(length: int = 48) -> str:
    """Return text that occurs nowhere else."""
    digits = f"{next(_serials):04d}".encode()
    return base64.urlsafe_b64encode((b"canary" + digits) * 12).decode()[:length]


class Stage:
    """One half of the package, the secrets that were planted, and all that came of it."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.secrets: list[str] = []
        self.own: list[Any] = [self, self.secrets]  # the test's, and allowed to hold secrets
        self.results: list[Any] = []
        self.errors: list[BaseException] = []
        self.unasked: list[BaseException] = []  # of calls whose arguments had no secret
        self.roots: list[Any] = []
        self.transports: list[Any] = []

    def plant(self, text: str) -> str:
        """Note a secret."""
        self.secrets.append(text)
        return text

    def token(self, life: float = 3600) -> str:
        """Return a JWT; its payload and its signature are secrets, too."""
        claims = {"exp": int(time.time() + life), "secret": random_text()}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        signature = random_text()
        self.secrets += [payload[24:], signature]
        return self.plant(f"eyJhbGciOiJSUzI1NiJ9.{payload}.{signature}")

    def key(self) -> str:
        """Return an access key."""
        return self.plant(base64.b64encode(random_text(32).encode()).decode())

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, and keep what it returns or raises."""
        try:
            result = function(*args, **kwargs)
            if hasattr(result, "__await__"):

                async def wait() -> Any:
                    asyncio.get_running_loop().slow_callback_duration = 0
                    return await result

                result = run_async(wait())
        except Exception as error:
            self.errors.append(error)
            given = repr((args, kwargs))
            if not any(secret in given for secret in self.secrets):
                self.unasked.append(error)
            return None
        self.results.append(result)
        return result

    def issuer(self, *script: Any) -> Callable[[], Any]:
        """Return a refresher that returns or raises one after another, and the last forever."""
        steps = list(script)
        self.own.append(steps)

        def refresh() -> Any:
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if isinstance(step, BaseException):
                raise step
            return step

        self.own += [refresh, refresh.__closure__]
        return refresh

    def credential(self, *args: Any, **kwargs: Any) -> Any:
        """Make a credential, to be closed in the end."""
        made = self.attempt(self.way.Credential, *args, **kwargs)
        if made is not None:
            self.roots.append(made)
        return made

    def transport(self, *script: Any, default: Any = None) -> Any:
        made = self.way.Transport(*script, default=default)
        self.transports.append(made)
        self.own += [made, getattr(made, "fake", made)]
        return made

    def send(self, policies: list[Any], *script: Any, request: Any = None, **options: Any) -> None:
        """Send a request through policies to a service that answers by a script."""
        self.roots += policies
        transport = self.transport(*script)
        client = self.way.Client(ENDPOINT, policies=policies, transport=transport)
        request = request or HttpRequest("GET", f"{ENDPOINT}/chat/threads")
        self.own.append(request)  # the one place where its token belongs
        self.attempt(client.send_request, request, **options)


SCENARIOS: list[Any] = []


def scenario(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
    """Add a scenario to the sweep."""
    SCENARIOS.append(pytest.param(function, id=function.__name__))
    return function


def each(cases: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a scenario for each case; a case is a function that is given the stage."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for name, case in cases.items():

            def run(stage: Stage, case: Any = case) -> None:
                function(stage, case(stage))

            SCENARIOS.append(pytest.param(run, id=f"{function.__name__}: {name}"))
        return function

    return decorate


TEXTS: dict[str, Callable[[Stage], Any]] = {
    "a JWT": lambda stage: stage.token(),
    "an expired one": lambda stage: stage.token(-60),
    "one for the year 1": lambda stage: stage.token(-time.time() - 9),
    "Bearer": lambda stage: f"Bearer {stage.token()}",
    "quoted": lambda stage: f'"{stage.token()}"',
    "with a line end": lambda stage: f"{stage.token()}\n",
    "with an umlaut": lambda stage: f"{stage.token()}ü",
    "five segments": lambda stage: f"{stage.token()}.{stage.token()[:30]}.",
    "not a JWT": lambda stage: stage.plant(random_text()),
    "the response": lambda stage: json.dumps({"token": stage.token()}),
    "a dict": lambda stage: {"token": stage.token()},
    "bytes": lambda stage: stage.token().encode(),
    "a tuple": lambda stage: (None, stage.token()),
    "an AccessToken": lambda stage: AccessToken(stage.token(), int(time.time() + 3600)),
    "an AccessToken that has expired": lambda stage: AccessToken(stage.token(), 1),
    "an AccessToken with a line end": lambda stage: AccessToken(
        f"{stage.token()}\n", int(time.time() + 3600)
    ),
    "an AccessToken without expiry": lambda stage: AccessToken(stage.token(), None),  # type: ignore[arg-type]
    "an AccessToken of bytes": lambda stage: AccessToken(
        stage.token().encode(),  # type: ignore[arg-type]
        int(time.time() + 3600),
    ),
    "a connection string": lambda stage: f"endpoint={ENDPOINT}/;accesskey={stage.key()}",
    "an access key": lambda stage: stage.key(),
}


@each(TEXTS)
def static(stage: Stage, token: Any) -> None:
    """A credential with a token alone."""
    credential = stage.credential(token)
    if credential is not None:
        stage.attempt(credential.get_token)
        stage.attempt(credential.get_token_info, options={"claims": "c"})
        stage.attempt(credential.invalidate_token, getattr(token, "token", token))


@each(TEXTS)
def refreshed(stage: Stage, token: Any) -> None:
    """A refresher's result, with no valid token, with one, and for claims."""
    for first in ((), (stage.token(100),)):
        refresher = stage.issuer(token)
        credential = stage.credential(*first, token_refresher=refresher)
        for _ in range(3):
            stage.attempt(credential.get_token)
        stage.attempt(credential.get_token_info, options={"claims": "c"})
        if first:
            stage.attempt(credential.invalidate_token, first[0])
        stage.attempt(credential.get_token)


@each({name: TEXTS[name] for name in ("a JWT", "an expired one", "not a JWT", "a dict")})
def opaque(stage: Stage, token: Any) -> None:
    """With a lifetime for tokens that cannot be read."""
    credential = stage.credential(token, undecodable_token_lifetime=60)
    if credential is not None:
        stage.attempt(credential.get_token)
    stage.credential(token, undecodable_token_lifetime="x")
    stage.credential(token, undecodable_token_lifetim=60)


def http_error(stage: Stage) -> Exception:
    request = HttpRequest("POST", "https://contoso.com/token", headers={"X-Key": stage.key()})
    answer = Answer(500, {"token": stage.token()}, {"Retry-After": "1", "X": stage.token()})
    response: Any = FakeResponse(request, answer)
    error = HttpResponseError("the issuer is down", response)
    stage.own += [error, response]  # it belongs to the user, who may see it
    return error


def wrapped_error(stage: Stage) -> Exception:
    try:
        raise ConnectionError("down")
    except ConnectionError as cause:
        return ServiceRequestError("down", error=cause)


ERRORS: dict[str, Callable[[Stage], Exception]] = {
    "an error": lambda stage: ConnectionError("down"),
    "an HTTP error": http_error,
    "an azure-core error": wrapped_error,
}


@each(ERRORS)
def failing(stage: Stage, error: Exception) -> None:
    """A refresher that raises, with a valid token and without, and again within the hold."""
    for first in ((), (stage.token(100),)):
        credential = stage.credential(*first, token_refresher=stage.issuer(error))
        for _ in range(4):
            stage.attempt(credential.get_token)
        stage.attempt(credential.get_token, claims="c")
        kept = cache_of(credential).state.error
        if kept is not None and not isinstance(error, HttpResponseError):
            stage.errors.append(kept)


@scenario
def rejected_again_and_again(stage: Stage) -> None:
    """A service that refuses every token, and an issuer that returns one of them again."""
    tokens = [stage.token() for _ in range(4)]
    credential = stage.credential(token_refresher=stage.issuer(*tokens, tokens[0]))
    for token in tokens:
        stage.attempt(credential.get_token)
        stage.attempt(credential.invalidate_token, token)
    stage.attempt(credential.get_token)


@scenario
def asks_itself(stage: Stage) -> None:
    """A refresher that asks its own credential."""
    made: list[Any] = []
    stage.own.append(made)

    def refresh() -> Any:
        result = made[0].get_token()
        if hasattr(result, "close"):
            result.close()
        return stage.token()

    stage.own += [refresh, refresh.__closure__]
    made.append(stage.credential(token_refresher=refresh))
    stage.attempt(made[0].get_token)


@scenario
def contexts(stage: Stage) -> None:
    """A context that was copied while a refresher ran, as ``call_later`` does."""
    copies: list[contextvars.Context] = []

    def refresh() -> str:
        copies.append(contextvars.copy_context())
        return token

    token = stage.token()
    stage.own += [refresh, refresh.__closure__]
    credential = stage.credential(token_refresher=refresh)
    stage.attempt(credential.get_token)
    stage.roots.append(copies)
    assert copies


@scenario
def copies_of_a_credential(stage: Stage) -> None:
    """Pickles and copies are refused, and its repr is for logs."""
    credential = stage.credential(stage.token())
    for function in (pickle.dumps, copy.copy, copy.deepcopy, repr, str, vars, dir):
        stage.attempt(function, credential)


@each({name: TEXTS[name] for name in ("a JWT", "not a JWT", "a connection string")})
def arguments(stage: Stage, text: str) -> None:
    """Arguments that make no credential."""
    stage.credential(text, token_refresher=text)
    stage.credential(token_refresher=text)
    stage.credential(text, proactive_refresh=True)
    stage.credential(text, resource_endpoint=text)
    stage.credential(resource_endpoint=text, token_credential=text, scopes=text)
    stage.credential(resource_endpoint=ENDPOINT, token_credential=text)
    stage.credential(text, tokn=text)


# The Entra exchange


class Entra:
    """An Entra credential that returns or raises by a script."""

    def __init__(self, stage: Stage, *script: Any) -> None:
        self._issue = stage.issuer(*script)
        stage.own.append(self)

    def get_token(self, *scopes: str, **kwargs: Any) -> Any:
        return self._issue()


def later(token: Any) -> AccessToken:
    return AccessToken(token, int(time.time() + 3600))


def exchanged(stage: Stage, entra: Any, *script: Any) -> None:
    transport = stage.transport(*script, default=script[-1] if script else None)
    credential = stage.credential(
        resource_endpoint=ENDPOINT,
        token_credential=stage.way.twin(entra),
        transport=transport,
        retry_backoff_factor=0,
        logging_enable=True,
    )
    for options in ({}, {}, {"claims": "c"}):
        stage.attempt(credential.get_token, **options)


def success(token: str) -> dict[str, Any]:
    return {"accessToken": {"token": token, "expiresOn": "2099-01-01T00:00:00Z"}}


ANSWERS: dict[str, Callable[[Stage, str], Any]] = {
    "success": lambda stage, entra: Answer(200, success(stage.token())),
    "an expired token": lambda stage, entra: Answer(
        200, {"accessToken": {"token": stage.token(), "expiresOn": "2001-01-01T00:00:00Z"}}
    ),
    "a token with a line end": lambda stage, entra: Answer(200, success(f"{stage.token()}\n")),
    "a list": lambda stage, entra: Answer(200, [stage.token()]),
    "no JSON": lambda stage, entra: Answer(200, f"<p>{stage.token()}"),
    "another member": lambda stage, entra: Answer(200, {"token": stage.token()}),
    "401": lambda stage, entra: Answer(401, {"error": {"code": "Denied", "message": "no"}}),
    "401 with an echo": lambda stage, entra: Answer(
        401,
        {"error": {"code": "Denied", "message": f"bad token {entra}"}},
        {"WWW-Authenticate": f"Bearer error={entra}", "X-Echo": entra},
    ),
    "403 with a part": lambda stage, entra: Answer(403, f"bad: {entra[7:]}"),
    "403 with the signature": lambda stage, entra: Answer(403, f"bad: {entra[-40:]}"),
    "429": lambda stage, entra: Answer(429, "slow down", {"Retry-After": "60"}),
    "500 with HTML": lambda stage, entra: Answer(500, f"<html>{entra}</html>"),
    "a redirect": lambda stage, entra: Answer(307, "", {"Location": f"https://evil.com/?{entra}"}),
    "no network": lambda stage, entra: ServiceRequestError("unreachable"),
    "another error": lambda stage, entra: KeyError("transport"),
}


@each({name: (lambda stage, answer=answer: answer) for name, answer in ANSWERS.items()})
def exchange(stage: Stage, answer: Callable[[Stage, str], Any]) -> None:
    """What the resource answers."""
    entra = stage.plant(f"{random_text()}.{random_text()}.{random_text()}")
    exchanged(stage, Entra(stage, later(entra)), answer(stage, entra))


@each({name: (lambda stage, make=make: make) for name, make in TEXTS.items()})
def entra_tokens(stage: Stage, make: Callable[[Stage], Any]) -> None:
    """What an Entra credential returns, as the text of its token and in its place."""
    value = make(stage)
    exchanged(stage, Entra(stage, value), Answer(200, success(stage.token())))
    exchanged(stage, Entra(stage, later(value)), Answer(200, success(stage.token())))


@each(ERRORS)
def entra_errors(stage: Stage, error: Exception) -> None:
    """An Entra credential that raises, at once or when it is asked for claims."""
    exchanged(stage, Entra(stage, error), Answer(200))
    entra = later(stage.token())
    challenge = Answer(401, "", {"WWW-Authenticate": CLAIMS})
    exchanged(stage, Entra(stage, entra, error), challenge)


# Policies

CLAIMS = 'Bearer error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="'
SERVICE: dict[str, list[Answer]] = {
    "200": [Answer(200)],
    "401 once": [Answer(401), Answer(200)],
    "401": [Answer(401), Answer(401)],
    "401 with claims": [Answer(401, "", {"WWW-Authenticate": CLAIMS}), Answer(200)],
    "401 with nonsense": [Answer(401, "", {"WWW-Authenticate": CLAIMS.replace("eyJ", "é")})],
    "a redirect": [Answer(302, "", {"Location": "https://evil.com/"}), Answer(200)],
    "a redirect to http": [Answer(302, "", {"Location": f"{ENDPOINT.replace('s:', ':')}/"})],
    "500": [Answer(500)],
}


@each({name: (lambda stage, script=script: script) for name, script in SERVICE.items()})
def bearer_requests(stage: Stage, script: list[Answer]) -> None:
    """Requests with a token, whatever the service answers."""
    refresher = stage.issuer(stage.token(), stage.token(), ConnectionError("down"))
    credential = stage.credential(token_refresher=refresher)
    policy = stage.way.get_policy(ENDPOINT, credential)
    stage.send([stage.way.RedirectPolicy(), policy], *script)
    stage.send([policy, stage.way.RedirectPolicy()], *script)


@each({name: (lambda stage, make=make: make) for name, make in TEXTS.items()})
def foreign_tokens(stage: Stage, make: Callable[[Stage], Any]) -> None:
    """A credential of somebody else's that returns what no header can carry."""
    entra = stage.way.twin(Entra(stage, later(make(stage))))
    policy = stage.attempt(stage.way.get_policy, ENDPOINT, entra)
    if policy is not None:
        stage.results.remove(policy)
        transport = stage.transport(Answer(401), Answer(200))
        client = stage.way.Client(ENDPOINT, policies=[policy], transport=transport)
        stage.attempt(client.send_request, HttpRequest("GET", f"{ENDPOINT}/chat/threads"))


REQUESTS: dict[str, Callable[[Stage], Any]] = {
    "plain": lambda stage: HttpRequest("GET", f"{ENDPOINT}/identities?a=b%2Fc"),
    "with a form": lambda stage: HttpRequest("POST", f"{ENDPOINT}/x", data={"a": "b"}),
    "with a stream": lambda stage: HttpRequest("POST", f"{ENDPOINT}/x", content=iter([b"a"])),
    "to another host": lambda stage: HttpRequest("GET", "https://evil.com/"),
    "over http": lambda stage: HttpRequest("GET", f"{ENDPOINT.replace('s:', ':')}/"),
}


@each(REQUESTS)
def signed_requests(stage: Stage, request: Any) -> None:
    """Requests that are signed with an access key, or refused."""
    key = stage.key()
    held = AzureKeyCredential(key)
    stage.own += [held, held.__dict__]
    policy = HMACCredentialsPolicy(ENDPOINT, held)
    stage.results += [repr(policy)]
    transport = stage.transport(Answer(200))
    client = stage.way.Client(ENDPOINT, policies=[policy], transport=transport)
    stage.attempt(client.send_request, request)
    for function in (pickle.dumps, copy.copy, copy.deepcopy):
        stage.attempt(function, policy)


def strings(key: str) -> list[str]:
    whole = f"endpoint={ENDPOINT}/;accesskey={key}"
    return [
        whole,
        f"{whole}\n",
        whole.replace("=", " ", 1),
        whole.replace("https", "ftp"),
        whole.replace("accesskey", "key"),
        f"{whole};{whole}",
        f"{whole}!",
        f"{ENDPOINT};{key}",
        key,
    ]


@scenario
def connection_strings(stage: Stage) -> None:
    """Connection strings, keys and endpoints, right and wrong, and in each other's place."""
    key = stage.key()
    for text in strings(key):
        for function in (parse_connection_string, parse_client_arguments):
            stage.attempt(function, text)
        stage.attempt(parse_client_arguments, text, text)
        stage.attempt(parse_client_arguments, text, AzureKeyCredential(f"{key}!"))
        stage.attempt(HMACCredentialsPolicy, ENDPOINT, text)
        stage.attempt(HMACCredentialsPolicy, text, key)
        stage.attempt(stage.way.get_policy, text, key)
        stage.attempt(stage.way.get_policy, ENDPOINT, text)
    stage.results.clear()  # the key, as it should be


# What is searched


class Search:
    """Looks for the secrets of a stage, and counts where it has looked."""

    def __init__(self, stage: Stage) -> None:
        self.parts = [
            secret[start : start + EVERY]
            for secret in stage.secrets
            for start in (0, len(secret) // 2, len(secret) - EVERY)
            if not secret.startswith("eyJhbGciOiJSUzI1NiJ9.") or start
        ]
        self.own = {id(each) for each in stage.own}
        self.texts = self.objects = 0

    def text(self, text: object, where: str) -> None:
        """Search a text."""
        self.texts += 1
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        found = [part for part in self.parts if part in str(text)]
        assert not found, f"{found} is in {where}: {text!r:.1000}"

    def error(self, error: BaseException, where: str, depth: int = 8) -> None:
        """Search an error and all that hangs on it."""
        if id(error) in self.own or not depth:
            return
        where = f"{where} > {type(error).__name__}"
        self.text(error, where)
        self.text(repr(error), f"repr of {where}")
        for name, value in vars(error).items():
            self.text(repr(value), f"{name} of {where}")
        for note in getattr(error, "__notes__", ()):
            self.text(note, f"a note of {where}")
        self.text("".join(traceback.format_exception(error)), f"traceback of {where}")
        try:
            self.text(pickle.dumps(error), f"pickle of {where}")
        except (TypeError, AttributeError, pickle.PicklingError):
            self.text(error.args, f"args of {where}")
        hanging = [error.__cause__, error.__context__, *error.args]
        hanging += [getattr(error, name, None) for name in MEMBERS]
        for value in hanging:
            if isinstance(value, BaseException):
                self.error(value, where, depth - 1)
            elif value is not None and id(value) not in self.own:
                self.graph(value, where)

    def graph(self, root: Any, where: str) -> None:
        """Search all that the garbage collector finds behind an object."""
        seen: set[int] = set()
        todo = [root]
        while todo:
            value = todo.pop()
            if id(value) in seen or id(value) in self.own or isinstance(value, _ENDS):
                continue
            seen.add(id(value))
            self.objects += 1
            if isinstance(value, (str, bytes)):
                self.text(value, f"the graph of {where}")
            todo += gc.get_referents(value)

    def frames(self, error: BaseException, where: str) -> None:
        """Search what the frames of the package hold, for those that format locals."""
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "azure/communication/common" in frame.f_code.co_filename:
                for name, value in frame.f_locals.items():
                    if id(value) not in self.own and name not in ("args", "kwargs", "options"):
                        self.text(repr(value), f"{name} in a frame of {where}")


_ENDS = (types.ModuleType, type, types.FunctionType, types.CodeType, types.FrameType)
COUNTS = {"scenarios": 0, "texts": 0, "objects": 0}


@pytest.fixture
def everything_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    caplog.set_level(logging.DEBUG)
    for name in ("azure", "azure.core", "asyncio", "urllib3"):
        caplog.set_level(logging.DEBUG, name)
    return caplog


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("play", SCENARIOS)
def test_no_secret(
    play: Callable[[Stage], None], way: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    """Whatever happens, the secrets are in the headers of their requests and nowhere else."""
    stage = Stage(WAYS[way])
    play(stage)
    search = Search(stage)
    for record in everything_logged.records:
        search.text(everything_logged.handler.format(record), f"the log of {record.name}")
        search.text(record.args, f"the arguments of a record of {record.name}")
    for result in stage.results:
        search.text(repr(result), "a result")
    for error in stage.errors:
        search.error(error, "an error")
    for error in stage.unasked:
        search.frames(error, "an error")
    for transport in stage.transports:
        for sent in transport.sent:
            search.text(sent.url, "a URL")
            search.text(sent.content, "a body")
            others = {k: v for k, v in sent.headers.items() if k != "authorization"}
            search.text(others, "a header")
    for root in stage.roots:
        if hasattr(root, "close"):
            stage.attempt(root.close)
        if isinstance(root, stage.way.Credential):
            search.text(repr(root), "a credential")
    everything_logged.clear()
    for root in stage.roots:
        search.graph(root, f"a {type(root).__name__}")
    assert search.texts
    COUNTS["scenarios"] += 1
    COUNTS["texts"] += search.texts
    COUNTS["objects"] += search.objects


def test_the_search_finds_what_it_should() -> None:
    """A sweep that finds nothing proves something only if it would."""
    stage = Stage(WAYS["sync"])
    token = stage.token()
    search = Search(stage)
    holders: list[Callable[[], None]] = [
        lambda: search.text(f"a {token[50:]}", "a text"),
        lambda: search.error(ValueError(token), "an error"),
        lambda: search.graph([{"a": [AccessToken(token, 1)]}], "a list"),
    ]
    for look in holders:
        with pytest.raises(AssertionError, match="is in"):
            look()
    assert len(SCENARIOS) > 100
