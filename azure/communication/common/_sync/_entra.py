"""The exchange of Entra tokens over a synchronous pipeline."""

from contextlib import nullcontext
from typing import Any, cast

from azure.core import PipelineClient
from azure.core.credentials import AccessToken, TokenRequestOptions
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy

from .._bearer import Destinations, ask, check_token_credential
from .._exchange import (
    RETRY_METHODS,
    Exchange,
    PatientRetries,
    check_entra_token,
    credential_error,
    without_secrets,
)


class EntraExchange(Exchange):
    """Exchanges the tokens of an Entra credential. May be called from any thread.

    It takes the arguments of :class:`Exchange`. Constructing it does no I/O.
    """

    _imported_when_sending = (
        "azure.core.rest._requests_basic",
        "netrc",
        "encodings.idna",
        "subprocess",  # by platform, for the user agent
    )

    def __init__(self, *, token_credential: Any, **options: Any) -> None:
        check_token_credential(token_credential, "token_credential", sync=True)
        super().__init__(token_credential=token_credential, **options)

    def __call__(self, options: TokenRequestOptions, held: AccessToken | None) -> AccessToken:
        """Return a new Communication token, or ``held`` if an exchange cannot bring a better one.

        Blocks while it asks the Entra credential and while it sends.

        :param options: What is passed on to the Entra credential; ``claims`` force an exchange.
        :type options: ~azure.core.credentials.TokenRequestOptions
        :param held: The valid token, if there is one.
        :type held: ~azure.core.credentials.AccessToken or None
        :return: The token.
        :rtype: ~azure.core.credentials.AccessToken
        :raises ~azure.core.exceptions.ClientAuthenticationError: If the service refused the Entra
            token.
        :raises ~azure.core.exceptions.AzureError: If the exchange failed otherwise.
        """
        entra = _EntraCredential(self._credential, options)
        failure: BaseException
        try:
            return self._exchange(entra, options, held)
        except BaseException as error:  # noqa: BLE001 - raised below, outside this handler
            failure = error
        try:
            raise without_secrets(failure, entra.token)
        finally:
            del entra, held, failure  # the error's traceback keeps what this frame holds

    def _exchange(
        self, entra: "_EntraCredential", options: TokenRequestOptions, held: AccessToken | None
    ) -> AccessToken:
        token = entra.get_token_info(*self._scopes)
        if held is not None and self._is_redundant(token, held, options):
            return held
        client = self._client(entra)
        with client if self._owns_transport else nullcontext():
            response = client.send_request(self._request(), retry_on_methods=RETRY_METHODS)
            return self._read(response, entra.token)

    def _client(self, entra: "_EntraCredential") -> PipelineClient[Any, Any]:
        authentication = _AuthenticationPolicy(entra, *self._scopes, endpoint=self._endpoint)
        policies = self._policies(_RetryPolicy(**self._options), authentication)
        return PipelineClient(self._endpoint, policies=policies, **self._options)


class _EntraCredential:
    """The Entra credential during one exchange: asked once, and again for claims."""

    def __init__(self, credential: Any, options: TokenRequestOptions) -> None:
        self._credential, self._options = credential, options
        self.token: Any = None

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> Any:
        if self.token is None or options:
            asked: TokenRequestOptions = {**self._options, **(options or {})}
            try:
                token = ask(self._credential, scopes, asked)
            except Exception as error:  # noqa: BLE001 - raised again outside the pipeline
                raise credential_error(error) from None
            check_entra_token(token)
            self.token = token
        return self.token


class _AuthenticationPolicy(BearerTokenCredentialPolicy[Any, Any]):
    """Sends the Entra token only to the resource, wherever a custom policy may redirect."""

    def __init__(self, credential: _EntraCredential, *scopes: str, endpoint: str) -> None:
        super().__init__(cast("Any", credential), *scopes)
        self._destinations = Destinations(endpoint)

    def on_request(self, request: PipelineRequest[Any]) -> None:
        self._destinations.check(request)
        super().on_request(request)

    def authorize_request(self, request: PipelineRequest[Any], *scopes: str, **kwargs: Any) -> None:
        self._destinations.check(request)  # a challenge may come from where a redirect led
        super().authorize_request(request, *scopes, **kwargs)

    def on_challenge(
        self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]
    ) -> bool:
        try:
            return super().on_challenge(request, response)
        except ValueError:  # its claims cannot be read, so it is a refusal like any other
            return False


class _RetryPolicy(PatientRetries, RetryPolicy[Any, Any]):
    pass
