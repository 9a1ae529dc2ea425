"""Typical mistakes, and what each of them prints: the type of the error and its whole text.

A text says what is wrong, what is expected and what to do about it, and names the argument. It has
fewer than 200 characters, and no part of a token or a key.
"""

import logging
import pickle
import traceback
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from azure.communication import common
from azure.communication.common import CommunicationUserIdentifier, aio
from azure.core.credentials import AccessToken

from fake_transport import WAYS, AsyncTwin, Way
from scaffolding import Clock, make_token, on_clock

ENDPOINT = "https://contoso.communication.azure.com"
KEY = "c2VjcmV0IG9mIDI5IGJ5dGVzLCB0d28gcGFkcyE9Pz8="
TOKEN = make_token(4_102_444_800, jti="0")
OPAQUE = "0paqueAndSecret"
SECRETS = (TOKEN, KEY, OPAQUE)


class Mistake(NamedTuple):
    """A line of the table."""

    what: str
    code: str
    kind: type[Exception]
    text: str


# With either half of the package.
EITHER = [
    Mistake(
        "the token is bytes",
        "CommunicationTokenCredential(token.encode())",
        TypeError,
        "token must be a str, an AccessToken or an AccessTokenInfo, not bytes: decode it",
    ),
    Mistake(
        "the token is the decoded response",
        'CommunicationTokenCredential({"token": token})',
        TypeError,
        "token must be a str, an AccessToken or an AccessTokenInfo, not dict: use its 'token'",
    ),
    Mistake(
        "the token is the pair that create_user_and_token returns",
        "CommunicationTokenCredential((user, access_token))",
        TypeError,
        "token must be a str, an AccessToken or an AccessTokenInfo, not tuple: use the "
        "element that holds the token",
    ),
    Mistake(
        "the token is an object of another library",
        "CommunicationTokenCredential(SimpleNamespace(token=token))",
        TypeError,
        "token must be a str, an AccessToken or an AccessTokenInfo, not SimpleNamespace: "
        "use its 'token' attribute",
    ),
    Mistake(
        "the token is a function",
        "CommunicationTokenCredential(fetch)",
        TypeError,
        "token is a function: pass it as token_refresher",
    ),
    Mistake(
        "the token is an Entra credential",
        "CommunicationTokenCredential(entra)",
        TypeError,
        "token must be a str, an AccessToken or an AccessTokenInfo, not Entra: pass it as "
        "token_credential, with resource_endpoint",
    ),
    Mistake(
        "the token is None",
        "CommunicationTokenCredential(None)",
        TypeError,
        "the credential has no source of tokens: pass token, token_refresher, or "
        "resource_endpoint and token_credential",
    ),
    Mistake(
        "neither token nor refresher",
        "CommunicationTokenCredential()",
        TypeError,
        "the credential has no source of tokens: pass token, token_refresher, or "
        "resource_endpoint and token_credential",
    ),
    Mistake(
        "the token is a connection string",
        "CommunicationTokenCredential(connection_string)",
        ValueError,
        "token is not a JWT (104 characters): it is a connection string. Use the bare JWT "
        "that CommunicationIdentityClient issues for a user",
    ),
    Mistake(
        "the token is an access key",
        "CommunicationTokenCredential(key)",
        ValueError,
        "token is not a JWT (44 characters): it looks like an access key. Use the bare JWT "
        "that CommunicationIdentityClient issues for a user",
    ),
    Mistake(
        "the token is an endpoint",
        "CommunicationTokenCredential(endpoint)",
        ValueError,
        "token is not a JWT (39 characters): use the bare JWT, which is the 'token' part "
        "of the identity service's response, or an AccessToken",
    ),
    Mistake(
        "the token is a raw id",
        "CommunicationTokenCredential(user.raw_id)",
        ValueError,
        "token is not a JWT (9 characters): use the bare JWT, which is the 'token' part of "
        "the identity service's response, or an AccessToken",
    ),
    Mistake(
        "the token is empty",
        'CommunicationTokenCredential("")',
        ValueError,
        "token is empty: use the bare JWT, which is the 'token' part of the identity "
        "service's response, or an AccessToken",
    ),
    Mistake(
        "the token is the whole response",
        'CommunicationTokenCredential(f\'{{"token": "{token}"}}\')',
        ValueError,
        "token is not a JWT (109 characters): use the bare JWT, which is the 'token' part "
        "of this response",
    ),
    Mistake(
        "the token has its scheme",
        'CommunicationTokenCredential(f"Bearer {token}")',
        ValueError,
        "token is not a JWT (103 characters): use the bare JWT, without 'Bearer', quotes, "
        "spaces or line breaks",
    ),
    Mistake(
        "the token is in quotes",
        "CommunicationTokenCredential(f'\"{token}\"')",
        ValueError,
        "token is not a JWT (98 characters): use the bare JWT, without 'Bearer', quotes, "
        "spaces or line breaks",
    ),
    Mistake(
        "the token has a line end",
        'CommunicationTokenCredential(f"{token}\\n")',
        ValueError,
        "token is not a JWT (97 characters): use the bare JWT, without 'Bearer', quotes, "
        "spaces or line breaks",
    ),
    Mistake(
        "the token has a line break inside",
        'CommunicationTokenCredential(f"{token[:40]}\\n{token[40:]}")',
        ValueError,
        "token is not a JWT (97 characters): use the bare JWT, without 'Bearer', quotes, "
        "spaces or line breaks",
    ),
    Mistake(
        "the token is opaque",
        "CommunicationTokenCredential(opaque)",
        ValueError,
        "token is not a JWT (15 characters): use the bare JWT, which is the 'token' part "
        "of the identity service's response, or an AccessToken; or set "
        "undecodable_token_lifetime",
    ),
    Mistake(
        "the token is opaque, with a line end",
        'CommunicationTokenCredential(f"{opaque}\\n", undecodable_token_lifetime=600)',
        ValueError,
        "token is not a JWT (16 characters): use the bare JWT, without 'Bearer', quotes, "
        "spaces or line breaks",
    ),
    Mistake(
        "the token is cut short",
        "CommunicationTokenCredential(token[:-50])",
        ValueError,
        "token is not a JWT (46 characters): it begins like one, but is cut short or "
        "changed; use the bare JWT as it was issued",
    ),
    Mistake(
        "the token has no exp",
        "CommunicationTokenCredential(token_without_exp)",
        ValueError,
        "token: its 'exp' claim is missing; use the JWT as the identity service issued it, "
        "or an AccessToken",
    ),
    Mistake(
        "exp is in milliseconds",
        "CommunicationTokenCredential(token_in_milliseconds)",
        ValueError,
        "token: its 'exp' claim is out of range for Unix seconds (milliseconds?); use the "
        "JWT as the identity service issued it, or an AccessToken",
    ),
    Mistake(
        "expires_on is in milliseconds",
        "CommunicationTokenCredential(AccessToken(token, 4_102_444_800_000))",
        ValueError,
        "token: its expires_on is out of range for Unix seconds (milliseconds?); pass "
        "seconds since 1970, as time.time() returns them",
    ),
    Mistake(
        "expires_on is a datetime",
        "CommunicationTokenCredential(AccessToken(token, datetime(2100, 1, 1)))",
        ValueError,
        "token: its expires_on must be Unix seconds, not datetime; pass seconds since "
        "1970, as time.time() returns them",
    ),
    Mistake(
        "the token of an AccessToken is None",
        "CommunicationTokenCredential(AccessToken(None, 4_102_444_800))",
        TypeError,
        "token: the 'token' of an AccessToken must be a str, not NoneType: is it missing "
        "from the response?",
    ),
    Mistake(
        "the refresher's result in its place",
        "CommunicationTokenCredential(token_refresher=fetch())",
        TypeError,
        "token_refresher must be a function, not its result (str): pass the function "
        "without calling it",
    ),
    Mistake(
        "the refresher's coroutine in its place",
        "CommunicationTokenCredential(token_refresher=coroutine)",
        TypeError,
        "token_refresher must be a function, not its result (coroutine): pass the function "
        "without calling it",
    ),
    Mistake(
        "the refresher returns nothing",
        "get_token(CommunicationTokenCredential(token_refresher=lambda: None))",
        TypeError,
        "The result of token_refresher must be a str, an AccessToken or an "
        "AccessTokenInfo, not NoneType: does the function return the token?",
    ),
    Mistake(
        "the refresher returns the decoded response",
        'get_token(CommunicationTokenCredential(token_refresher=lambda: {"token": token}))',
        TypeError,
        "The result of token_refresher must be a str, an AccessToken or an "
        "AccessTokenInfo, not dict: use its 'token'",
    ),
    Mistake(
        "the refresher returns bytes",
        "get_token(CommunicationTokenCredential(token_refresher=token.encode))",
        TypeError,
        "The result of token_refresher must be a str, an AccessToken or an "
        "AccessTokenInfo, not bytes: decode it",
    ),
    Mistake(
        "the refresher returns an empty text",
        'get_token(CommunicationTokenCredential(token_refresher=lambda: ""))',
        ValueError,
        "The result of token_refresher is empty: use the bare JWT, which is the 'token' "
        "part of the identity service's response, or an AccessToken",
    ),
    Mistake(
        "the refresher returns an expired token",
        "get_token(CommunicationTokenCredential(token_refresher=lambda: expired_token))",
        ValueError,
        "token_refresher returned a token that has expired (expires_on 1600000000, local "
        "clock 1700000000): return a newly issued token, and check the clock",
    ),
    Mistake(
        "proactive, but nothing to refresh with",
        "CommunicationTokenCredential(token, proactive_refresh=True)",
        TypeError,
        "proactive_refresh needs a token_refresher: a static token cannot be refreshed",
    ),
    Mistake(
        "a misspelt keyword",
        "CommunicationTokenCredential(token, token_refreshr=fetch)",
        TypeError,
        "'token_refreshr' is not a valid argument: did you mean 'token_refresher'?",
    ),
    Mistake(
        "a misspelt keyword among pipeline options",
        "CommunicationTokenCredential(resource_endpoint=endpoint, token_credential=entra, "
        "scope=scope)",
        TypeError,
        "'scope' is not a valid argument: did you mean 'scopes'?",
    ),
    Mistake(
        "the keyword of another package",
        "CommunicationTokenCredential(token, refresh_proactively=True)",
        TypeError,
        "'refresh_proactively' is not a valid argument: pass token, token_refresher, "
        "proactive_refresh, undecodable_token_lifetime; or resource_endpoint, "
        "token_credential, scopes, pipeline options",
    ),
    Mistake(
        "a lifetime that is a timedelta",
        "CommunicationTokenCredential(opaque, undecodable_token_lifetime=timedelta(minutes=10))",
        TypeError,
        "undecodable_token_lifetime must be a number of seconds, not timedelta",
    ),
    Mistake(
        "a lifetime of nothing",
        "CommunicationTokenCredential(opaque, undecodable_token_lifetime=0)",
        ValueError,
        "undecodable_token_lifetime must be at least 1 second and at most 100 years",
    ),
    Mistake(
        "a token beside Entra",
        "CommunicationTokenCredential(token, resource_endpoint=endpoint, token_credential=entra)",
        TypeError,
        "token cannot be combined with resource_endpoint: a credential has one source",
    ),
    Mistake(
        "no resource_endpoint",
        "CommunicationTokenCredential(token_credential=entra)",
        TypeError,
        "resource_endpoint is missing: pass it with token_credential, for the Entra token exchange",
    ),
    Mistake(
        "no token_credential",
        "CommunicationTokenCredential(resource_endpoint=endpoint)",
        TypeError,
        "token_credential is missing: pass it with resource_endpoint, for the Entra token exchange",
    ),
    Mistake(
        "scopes alone",
        "CommunicationTokenCredential(scopes=[scope])",
        TypeError,
        "resource_endpoint is missing: pass it with scopes, for the Entra token exchange",
    ),
    Mistake(
        "the Entra credential is a secret",
        "CommunicationTokenCredential(resource_endpoint=endpoint, token_credential=key)",
        TypeError,
        "token_credential must be a token credential, such as one from azure-identity, not str",
    ),
    Mistake(
        "the scopes of another resource",
        "CommunicationTokenCredential(resource_endpoint=endpoint, token_credential=entra, "
        'scopes="https://graph.microsoft.com/.default")',
        ValueError,
        "scopes must be a scope or a list of scopes, all under one of "
        "https://communication.azure.com/clients/, "
        "https://auth.msft.communication.azure.com/, "
        "https://auth.msft.communication.azure.us/",
    ),
    Mistake(
        "the resource's endpoint is its connection string",
        "CommunicationTokenCredential(resource_endpoint=connection_string, token_credential=entra)",
        ValueError,
        "resource_endpoint is a connection string: pass https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, or use parse_connection_string()",
    ),
    Mistake(
        "the resource's endpoint is its key",
        "CommunicationTokenCredential(resource_endpoint=key, token_credential=entra)",
        ValueError,
        "resource_endpoint looks like an access key, not an endpoint: pass "
        "https://<host>[:<port>], such as https://contoso.communication.azure.com",
    ),
    Mistake(
        "the resource's endpoint has no scheme",
        'CommunicationTokenCredential(resource_endpoint="contoso.example", token_credential=entra)',
        ValueError,
        "resource_endpoint must be https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, without user name, path, query or "
        "fragment; https:// is missing",
    ),
    Mistake(
        "a closed credential is used",
        "get_token(close(CommunicationTokenCredential(token)))",
        RuntimeError,
        "The credential has been closed: create a new one",
    ),
    Mistake(
        "a credential is pickled",
        "pickle.dumps(CommunicationTokenCredential(token))",
        TypeError,
        "A CommunicationTokenCredential cannot be pickled or copied: it holds a secret. "
        "Create one in each process; within a process, share the object itself",
    ),
    Mistake(
        "a policy without a credential",
        "get_authentication_policy(endpoint, None)",
        TypeError,
        "credential must be a token credential or an access key (str or "
        "AzureKeyCredential), not NoneType: is the setting it comes from missing?",
    ),
    Mistake(
        "a policy with a bare token",
        "get_authentication_policy(endpoint, token)",
        ValueError,
        "credential looks like a user's token, not an access key: pass "
        "CommunicationTokenCredential(token) as the credential",
    ),
    Mistake(
        "a policy with an AccessToken",
        "get_authentication_policy(endpoint, access_token)",
        TypeError,
        "credential must be a token credential or an access key (str or "
        "AzureKeyCredential), not AccessToken: pass CommunicationTokenCredential(token) as "
        "the credential",
    ),
    Mistake(
        "a policy with a key cut short",
        "get_authentication_policy(endpoint, key[:-1])",
        ValueError,
        "credential is not a base64 access key: copy it, with any '=' at its end, from "
        "Keys on the resource's page in the Azure portal",
    ),
    Mistake(
        "a policy with a connection string as endpoint",
        "get_authentication_policy(connection_string, key)",
        ValueError,
        "endpoint is a connection string: pass https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, or use parse_connection_string()",
    ),
    Mistake(
        "a policy with a connection string as key",
        "get_authentication_policy(endpoint, connection_string)",
        ValueError,
        "credential is a connection string: use parse_connection_string() to get its key",
    ),
    Mistake(
        "a policy with its arguments swapped",
        "get_authentication_policy(key, endpoint)",
        ValueError,
        "endpoint looks like an access key, not an endpoint: pass https://<host>[:<port>], "
        "such as https://contoso.communication.azure.com",
    ),
    Mistake(
        "a policy for http",
        'get_authentication_policy("http://contoso.example", key)',
        ValueError,
        "endpoint must be https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, without user name, path, query or "
        "fragment; it is not https",
    ),
    Mistake(
        "a policy for a host",
        'get_authentication_policy("contoso.example", key)',
        ValueError,
        "endpoint must be https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, without user name, path, query or "
        "fragment; https:// is missing",
    ),
    Mistake(
        "a policy for a URL with a path",
        'get_authentication_policy(f"{endpoint}/chat", key)',
        ValueError,
        "endpoint must be https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, without user name, path, query or "
        "fragment; it has a path",
    ),
    Mistake(
        "one additional host in place of several",
        'get_authentication_policy(endpoint, key, additional_hosts="contoso.example")',
        TypeError,
        "additional_hosts must be a list or tuple of host names, not str",
    ),
]

# With the synchronous half, or with what both halves share.
SYNC = [
    Mistake(
        "an async refresher for the synchronous credential",
        "CommunicationTokenCredential(token_refresher=fetch_async)",
        TypeError,
        "token_refresher is an async function: pass a plain function, or import the "
        "credential from azure.communication.common.aio",
    ),
    Mistake(
        "a refresher that returns a coroutine",
        "get_token(CommunicationTokenCredential(token_refresher=lambda: coroutine))",
        TypeError,
        "token_refresher returned an awaitable: return the token itself, or import the "
        "credential from azure.communication.common.aio",
    ),
    Mistake(
        "an async Entra credential for the synchronous credential",
        "CommunicationTokenCredential(resource_endpoint=endpoint, token_credential=async_entra)",
        TypeError,
        "token_credential is an async credential (AsyncTwin): pass a synchronous one, or "
        "import what you call from azure.communication.common.aio",
    ),
    Mistake(
        "an async credential for the synchronous policy",
        "get_authentication_policy(endpoint, aio.CommunicationTokenCredential(token))",
        TypeError,
        "credential is an async credential (CommunicationTokenCredential): pass a "
        "synchronous one, or import what you call from azure.communication.common.aio",
    ),
    Mistake(
        "a connection string that is not set",
        "parse_connection_string(None)",
        TypeError,
        "connection_string must be a str, not NoneType: is the setting it comes from missing?",
    ),
    Mistake(
        "a connection string that is the endpoint",
        "parse_connection_string(endpoint)",
        ValueError,
        "connection_string must be endpoint=https://<host>/;accesskey=<key>, as the portal "
        "shows it under Keys; part 1 has no '='",
    ),
    Mistake(
        "a connection string that is the key",
        "parse_connection_string(key)",
        ValueError,
        "connection_string looks like an access key: pass "
        "endpoint=https://<host>/;accesskey=<key>, as the portal shows it under Keys",
    ),
    Mistake(
        "a connection string without endpoint",
        'parse_connection_string(f"accesskey={key}")',
        ValueError,
        "connection_string must be endpoint=https://<host>/;accesskey=<key>, as the portal "
        "shows it under Keys; it has no endpoint",
    ),
    Mistake(
        "a connection string without key",
        'parse_connection_string(f"endpoint={endpoint}")',
        ValueError,
        "connection_string must be endpoint=https://<host>/;accesskey=<key>, as the portal "
        "shows it under Keys; it has no accesskey",
    ),
    Mistake(
        "a connection string whose endpoint is http",
        'parse_connection_string(f"endpoint=http://contoso.example/;accesskey={key}")',
        ValueError,
        "the endpoint in connection_string must be https://<host>[:<port>], such as "
        "https://contoso.communication.azure.com, without user name, path, query or "
        "fragment; it is not https",
    ),
    Mistake(
        "a client made from an endpoint alone",
        "parse_client_arguments(endpoint, None)",
        ValueError,
        "connection_string_or_endpoint is an endpoint, so credential must not be None: "
        "pass an access key or a token credential, or pass the connection string alone",
    ),
    Mistake(
        "a client made from a key alone",
        "parse_client_arguments(key)",
        ValueError,
        "connection_string_or_endpoint looks like an access key: pass "
        "endpoint=https://<host>/;accesskey=<key>, as the portal shows it under Keys",
    ),
    Mistake(
        "a client made from a connection string and a key",
        "parse_client_arguments(connection_string, key)",
        ValueError,
        "connection_string_or_endpoint is a connection string, which contains its own key: "
        "pass it without a credential, or pass https://<host> with one",
    ),
    Mistake(
        "a client with its text arguments swapped",
        "parse_client_arguments(key, endpoint)",
        ValueError,
        "credential is an endpoint and connection_string_or_endpoint is not: swap the arguments",
    ),
    Mistake(
        "a client with its arguments swapped",
        "parse_client_arguments(entra, endpoint)",
        TypeError,
        "connection_string_or_endpoint must be a str, not Entra. Are the arguments swapped?",
    ),
    Mistake(
        "a raw id that is missing",
        "identifier_from_raw_id(None)",
        TypeError,
        "raw_id must be a str, not NoneType: is the field it comes from missing?",
    ),
    Mistake(
        "a raw id that is JSON",
        'identifier_from_raw_id({"rawId": "8:acs:r_u"})',
        TypeError,
        "raw_id must be a str, not dict: use deserialize_identifier() for JSON",
    ),
    Mistake(
        "a raw id that is an identifier",
        "identifier_from_raw_id(user)",
        TypeError,
        "raw_id must be a str, not CommunicationUserIdentifier: it is already an identifier",
    ),
    Mistake(
        "a phone number that is an int",
        "PhoneNumberIdentifier(14255550123)",
        TypeError,
        "value must be a str, not int: write it as text",
    ),
    Mistake(
        "JSON that is a raw id",
        'deserialize_identifier("8:acs:r_u")',
        TypeError,
        "wire must be a mapping, the decoded JSON object, not str: decode JSON with "
        "json.loads(), or use identifier_from_raw_id() for a raw id",
    ),
    Mistake(
        "JSON in Python's names",
        'deserialize_identifier({"raw_id": "8:acs:r_u"})',
        ValueError,
        "the identifier must have the member rawId or one of communicationUser, "
        "phoneNumber, microsoftTeamsUser, microsoftTeamsApp, teamsExtensionUser",
    ),
    Mistake(
        "JSON of two kinds",
        'deserialize_identifier({"communicationUser": {"id": "8:acs:r_u"}, "phoneNumber": '
        '{"value": "+1"}})',
        ValueError,
        "the identifier must have one model, not several: communicationUser, phoneNumber",
    ),
    Mistake(
        "JSON without the id",
        'deserialize_identifier({"communicationUser": {}})',
        ValueError,
        "the member communicationUser.id is missing",
    ),
    Mistake(
        "a raw id in place of an identifier",
        'serialize_identifier("8:acs:r_u")',
        TypeError,
        "identifier must have raw_id, kind and properties, but a str does not; use "
        "identifier_from_raw_id() for a raw id",
    ),
    Mistake(
        "an identifier is changed",
        'setattr(user, "id", "8:acs:r_v")',
        AttributeError,
        "cannot change 'id': a CommunicationUserIdentifier is immutable; make a new one",
    ),
]

# With the asynchronous half.
AIO = [
    Mistake(
        "awaited without asyncio",
        "CommunicationTokenCredential(token_refresher=fetch).get_token().send(None)",
        RuntimeError,
        "the credential of azure.communication.common.aio needs a running asyncio event "
        "loop: with trio, use trio-asyncio, or the synchronous credential in a thread",
    ),
]

# No errors, but warnings in the log.
LOGGED = [
    Mistake(
        "an expired static token",
        "get_token(CommunicationTokenCredential(expired_token))",
        Warning,
        "The token has expired and cannot be refreshed, so requests will be refused: pass "
        "a token_refresher to the credential, or create a new one with a new token",
    ),
]


class Entra:
    """An Entra credential that is not asked: the mistake is found before."""

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        raise NotImplementedError


async def fetch_async() -> str:
    return TOKEN


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """Return what the code of the table may use, except for what both halves have."""
    entra = Entra()
    with closing(fetch_async()) as coroutine:
        yield {
            **{name: getattr(common, name) for name in common.__all__},
            "aio": aio,
            "pickle": pickle,
            "datetime": datetime,
            "timedelta": timedelta,
            "AccessToken": AccessToken,
            "SimpleNamespace": SimpleNamespace,
            "endpoint": ENDPOINT,
            "key": KEY,
            "connection_string": f"endpoint={ENDPOINT}/;accesskey={KEY}",
            "user": CommunicationUserIdentifier("8:acs:r_u"),
            "token": TOKEN,
            "access_token": AccessToken(TOKEN, 4_102_444_800),
            "expired_token": make_token(1_600_000_000),
            "token_in_milliseconds": make_token(4_102_444_800_000, jti="0"),
            "token_without_exp": ".".join([TOKEN.split(".")[0], "e30", "c2ln"]),
            "opaque": OPAQUE,
            "fetch": lambda: TOKEN,
            "fetch_async": fetch_async,
            "coroutine": coroutine,
            "entra": entra,
            "async_entra": AsyncTwin(entra),
            "scope": "https://communication.azure.com/clients/VoIP",
        }


def names_of(way: Way) -> dict[str, Any]:
    """Return what has the same name in both halves of the package, and how to use it."""

    def close(credential: Any) -> Any:
        way.call(credential.close)
        return credential

    return {
        "CommunicationTokenCredential": on_clock(way.Credential, Clock()),
        "get_authentication_policy": way.get_policy,
        "get_token": lambda credential: way.call(credential.get_token),
        "close": close,
    }


def has_secret(text: str) -> bool:
    """Return whether a text has eight characters in a row of a secret."""
    return any(
        secret[start : start + 8] in text for secret in SECRETS for start in range(len(secret) - 7)
    )


def test_a_part_of_a_secret_is_found() -> None:
    """The check below can fail."""
    assert has_secret(f"... {TOKEN[-8:]}")
    assert not has_secret("token must be a str")


CASES = [
    *(pytest.param(WAYS[way], m, id=f"{way}: {m.what}") for m in EITHER for way in WAYS),
    *(pytest.param(WAYS["sync"], m, id=m.what) for m in SYNC),
    *(pytest.param(WAYS["aio"], m, id=m.what) for m in AIO),
]


@pytest.mark.parametrize(("way", "mistake"), CASES)
def test_a_mistake_is_answered(way: Way, mistake: Mistake, names: dict[str, Any]) -> None:
    """With an error that has this text, and shows no secret anywhere."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its type and text are compared
        eval(mistake.code, {**names, **names_of(way)})
    assert (type(caught.value), str(caught.value)) == (mistake.kind, mistake.text)
    assert len(mistake.text) < 200
    assert not has_secret("".join(traceback.format_exception(caught.value)))
    assert not has_secret(repr(caught.value))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("mistake", LOGGED, ids=lambda mistake: mistake.what)
def test_a_mistake_is_logged(
    way: Way, mistake: Mistake, names: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the service has the last word; once, however often the token is asked for."""
    eval(mistake.code, {**names, **names_of(way)})
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, mistake.text)
    ]
    assert len(mistake.text) < 200
    assert not has_secret(caplog.text)


def test_there_are_thirty_mistakes_or_more() -> None:
    """No two of them have the same name."""
    table = [*EITHER, *SYNC, *AIO, *LOGGED]
    assert len({mistake.what for mistake in table}) == len(table) >= 30
