"""The public surface as a type checker sees it. Checked by mypy and pyright, never run.

Where an error is expected it is ignored by its code, and both checkers report an error that is
ignored without need.
"""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Mapping
from typing import Any

from azure.communication.common import (
    AzureCommunicationTokenCredential,
    CommunicationCloudEnvironment,
    CommunicationIdentifier,
    CommunicationIdentifierKind,
    CommunicationTokenCredential,
    CommunicationUserIdentifier,
    CommunicationUserProperties,
    HMACCredentialsPolicy,
    MicrosoftTeamsAppIdentifier,
    MicrosoftTeamsAppProperties,
    MicrosoftTeamsUserIdentifier,
    MicrosoftTeamsUserProperties,
    PhoneNumberIdentifier,
    PhoneNumberProperties,
    TeamsExtensionUserIdentifier,
    TeamsExtensionUserProperties,
    UnknownIdentifier,
    __version__,
    aio,
    deserialize_identifier,
    get_authentication_policy,
    identifier_from_raw_id,
    parse_client_arguments,
    parse_connection_string,
    serialize_identifier,
)
from azure.core.credentials import (
    AccessToken,
    AccessTokenInfo,
    AzureKeyCredential,
    SupportsTokenInfo,
    TokenCredential,
    TokenProvider,
)
from azure.core.credentials_async import (
    AsyncSupportsTokenInfo,
    AsyncTokenCredential,
    AsyncTokenProvider,
)
from azure.core.pipeline import AsyncPipeline, Pipeline
from azure.core.pipeline.policies import (
    AsyncBearerTokenCredentialPolicy,
    BearerTokenCredentialPolicy,
)
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest, HttpResponse
from azure.identity import DefaultAzureCredential
from azure.identity.aio import DefaultAzureCredential as AsyncDefaultAzureCredential
from typing_extensions import assert_type

ENDPOINT = "https://contoso.communication.azure.com"

version: str = __version__


# --- The credential


def get_text() -> str:
    return "token"


def get_access_token() -> AccessToken:
    return AccessToken("token", 4102444800)


def get_info() -> AccessTokenInfo:
    return AccessTokenInfo("token", 4102444800)


async def get_text_async() -> str:
    return "token"


async def get_info_async() -> AccessTokenInfo:
    return AccessTokenInfo("token", 4102444800)


entra = DefaultAzureCredential()
async_entra = AsyncDefaultAzureCredential()


def credentials() -> None:
    static = CommunicationTokenCredential("token")
    CommunicationTokenCredential(get_access_token(), undecodable_token_lifetime=600)
    callback = CommunicationTokenCredential(token_refresher=get_text, proactive_refresh=True)
    CommunicationTokenCredential(get_info(), token_refresher=get_access_token)
    CommunicationTokenCredential(None, token_refresher=get_info, undecodable_token_lifetime=0.5)
    exchange = CommunicationTokenCredential(
        resource_endpoint=ENDPOINT,
        token_credential=entra,
        scopes=["https://communication.azure.com/clients/.default"],
        proactive_refresh=True,
        retry_total=5,
    )
    assert_type(AzureCommunicationTokenCredential("token"), CommunicationTokenCredential)

    old: TokenCredential = static
    new: SupportsTokenInfo = callback
    either: TokenProvider = exchange
    CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=new)
    CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=either)

    assert_type(static.get_token(), AccessToken)
    assert_type(old.get_token("scope", claims="{}", tenant_id="t", enable_cae=True), AccessToken)
    assert_type(callback.get_token_info(options={"claims": "{}"}), AccessTokenInfo)
    with callback as entered:
        assert_type(entered, CommunicationTokenCredential)
    exchange.invalidate_token("token")
    exchange.close()


def refused_credentials() -> None:
    """Arguments that make none of the three forms."""
    CommunicationTokenCredential()  # type: ignore[call-overload]
    CommunicationTokenCredential(1)  # type: ignore[call-overload]
    CommunicationTokenCredential("token", proactive_refresh=True)  # type: ignore[call-overload]
    CommunicationTokenCredential(token_refresher="token")  # type: ignore[call-overload]
    CommunicationTokenCredential(token_refresher=get_text_async)  # type: ignore[arg-type]
    CommunicationTokenCredential(token_refresher=get_text, refresh_proactively=True)  # type: ignore[call-overload]
    CommunicationTokenCredential(resource_endpoint=ENDPOINT)  # type: ignore[call-overload]
    CommunicationTokenCredential("token", resource_endpoint=ENDPOINT, token_credential=get_text)  # type: ignore[call-overload]
    CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=async_entra)  # type: ignore[call-overload]


async def async_credentials() -> None:
    static = aio.CommunicationTokenCredential("token")
    callback = aio.CommunicationTokenCredential(token_refresher=get_text_async)
    aio.CommunicationTokenCredential(token_refresher=get_text, proactive_refresh=True)
    aio.CommunicationTokenCredential(get_info(), token_refresher=get_info_async)
    exchange = aio.CommunicationTokenCredential(
        resource_endpoint=ENDPOINT, token_credential=async_entra, retry_total=5
    )
    assert_type(aio.AzureCommunicationTokenCredential("token"), aio.CommunicationTokenCredential)

    old: AsyncTokenCredential = static
    new: AsyncSupportsTokenInfo = callback
    either: AsyncTokenProvider = exchange
    aio.CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=new)
    aio.CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=either)

    assert_type(await static.get_token(), AccessToken)
    assert_type(await old.get_token("scope", claims="{}", enable_cae=True), AccessToken)
    assert_type(await callback.get_token_info(options={"tenant_id": "t"}), AccessTokenInfo)
    async with callback as entered:
        assert_type(entered, aio.CommunicationTokenCredential)
    exchange.invalidate_token("token")
    await exchange.close()

    aio.CommunicationTokenCredential()  # type: ignore[call-overload]
    aio.CommunicationTokenCredential("token", proactive_refresh=True)  # type: ignore[call-overload]
    aio.CommunicationTokenCredential(resource_endpoint=ENDPOINT, token_credential=entra)  # type: ignore[call-overload]
    wrong: TokenCredential = static  # type: ignore[assignment]
    del wrong


# --- Identifiers


def models() -> None:
    user = CommunicationUserIdentifier("8:acs:u", raw_id="8:acs:u")
    phone = PhoneNumberIdentifier("+14255550123")
    teams_user = MicrosoftTeamsUserIdentifier("u", is_anonymous=True, cloud="DOD")
    teams_app = MicrosoftTeamsAppIdentifier("a", cloud=CommunicationCloudEnvironment.GCCH)
    extension_user = TeamsExtensionUserIdentifier(user_id="u", tenant_id="t", resource_id="r")
    unknown = UnknownIdentifier("28:other")
    every: list[CommunicationIdentifier] = [
        *(user, phone, teams_user, teams_app, extension_user, unknown)
    ]
    del every

    assert_type(user.properties, CommunicationUserProperties)
    assert_type(phone.properties, PhoneNumberProperties)
    assert_type(teams_user.properties, MicrosoftTeamsUserProperties)
    assert_type(teams_app.properties, MicrosoftTeamsAppProperties)
    assert_type(extension_user.properties, TeamsExtensionUserProperties)
    assert_type(unknown.properties, Mapping[str, Any])
    assert_type(user.raw_id, str)
    assert_type(user.id, str)
    assert_type(phone.properties["value"], str)
    assert_type(teams_user.is_anonymous, bool)
    assert_type(teams_app.cloud, CommunicationCloudEnvironment | str)
    assert_type({user: 1}, dict[CommunicationUserIdentifier, int])

    CommunicationUserIdentifier()  # type: ignore[call-arg]
    PhoneNumberIdentifier(14255550123)  # type: ignore[arg-type]
    TeamsExtensionUserIdentifier("u", "t", "r")  # type: ignore[call-arg]
    user.id = "8:acs:v"  # type: ignore[misc]
    phone.properties["number"]  # type: ignore[typeddict-item]


def by_class(identifier: CommunicationIdentifier) -> str:
    """The classes tell identifiers apart."""
    match identifier:
        case CommunicationUserIdentifier(id):
            return assert_type(id, str)
        case PhoneNumberIdentifier(value=value):
            return assert_type(value, str)
        case MicrosoftTeamsUserIdentifier(user_id, is_anonymous=True):
            return assert_type(user_id, str)
        case MicrosoftTeamsUserIdentifier() as teams_user:
            return assert_type(teams_user, MicrosoftTeamsUserIdentifier).user_id
        case _:
            kind: CommunicationIdentifierKind = identifier.kind
            assert_type(identifier.properties, Mapping[str, Any])
            return identifier.raw_id + kind


def by_isinstance(identifier: CommunicationUserIdentifier | PhoneNumberIdentifier) -> str:
    if isinstance(identifier, PhoneNumberIdentifier):
        return assert_type(identifier, PhoneNumberIdentifier).value
    return assert_type(identifier, CommunicationUserIdentifier).id


def text_forms(identifier: CommunicationIdentifier) -> None:
    assert_type(identifier_from_raw_id("8:acs:u"), CommunicationIdentifier)
    assert_type(serialize_identifier(identifier), dict[str, Any])
    assert_type(deserialize_identifier({"rawId": "8:acs:u"}), CommunicationIdentifier)
    serialize_identifier("8:acs:u")  # type: ignore[arg-type]


# --- Authentication


def authentication(key: AzureKeyCredential) -> None:
    by_key = get_authentication_policy(ENDPOINT, key)
    by_text = get_authentication_policy(ENDPOINT, "a2V5")
    by_token = get_authentication_policy(ENDPOINT, CommunicationTokenCredential("token"))
    by_entra = get_authentication_policy(ENDPOINT, entra)
    elsewhere = get_authentication_policy(ENDPOINT, key, additional_hosts=[".asm.skype.com"])
    assert_type(elsewhere, HMACCredentialsPolicy)
    assert_type(by_key, HMACCredentialsPolicy)
    assert_type(by_text, HMACCredentialsPolicy)
    assert_type(by_token, BearerTokenCredentialPolicy[Any, Any])
    assert_type(by_entra, BearerTokenCredentialPolicy[Any, Any])
    signing = HMACCredentialsPolicy(ENDPOINT, key, now=lambda: 1700000000)
    Pipeline[HttpRequest, HttpResponse](RequestsTransport(), [signing, by_key, by_token])

    async_by_key = aio.get_authentication_policy(ENDPOINT, key)
    async_by_token = aio.get_authentication_policy(
        ENDPOINT, aio.CommunicationTokenCredential("token")
    )
    async_by_entra = aio.get_authentication_policy(ENDPOINT, async_entra)
    assert_type(async_by_key, HMACCredentialsPolicy)
    assert_type(async_by_token, AsyncBearerTokenCredentialPolicy[Any, Any])
    assert_type(async_by_entra, AsyncBearerTokenCredentialPolicy[Any, Any])
    async_signing = aio.HMACCredentialsPolicy(ENDPOINT, "a2V5")
    AsyncPipeline[HttpRequest, AsyncHttpResponse](
        AioHttpTransport(), [async_signing, async_by_key, async_by_token]
    )

    get_authentication_policy(ENDPOINT, None)  # type: ignore[call-overload]
    get_authentication_policy(ENDPOINT, async_entra)  # type: ignore[call-overload]
    aio.get_authentication_policy(ENDPOINT, entra)  # type: ignore[call-overload]


def arguments(key: AzureKeyCredential, credential: CommunicationTokenCredential) -> None:
    endpoint, access_key = parse_connection_string("endpoint=https://host;accesskey=a2V5")
    assert_type(endpoint, str)
    assert_type(access_key, str)
    assert_type(parse_client_arguments("connection string"), tuple[str, AzureKeyCredential])
    assert_type(parse_client_arguments(ENDPOINT, key), tuple[str, AzureKeyCredential])
    assert_type(
        parse_client_arguments(ENDPOINT, credential), tuple[str, CommunicationTokenCredential]
    )
