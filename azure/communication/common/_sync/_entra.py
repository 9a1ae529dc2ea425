"""The exchange of Entra tokens over a synchronous pipeline."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

from azure.core import PipelineClient
from azure.core.credentials import AccessToken, TokenRequestOptions
from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy

from .._bearer import ask, check_token_credential
from .._exchange import RETRY_METHODS, Exchange, PatientRetries


class EntraExchange(Exchange):
    """Exchanges the tokens of an Entra credential. May be called from any thread.

    It takes the arguments of :class:`Exchange`. Constructing it does no I/O.
    """

    def __init__(self, *, token_credential: Any, **options: Any) -> None:
        check_token_credential(token_credential, "token_credential", sync=True)
        super().__init__(token_credential=token_credential, **options)

    def __call__(
        self, options: TokenRequestOptions, held: Callable[[], AccessToken | None]
    ) -> AccessToken:
        """Return a new Communication token, or ``held`` if an exchange can bring no better one.

        Blocks while it asks the Entra credential and while it sends.

        :param options: What goes on to the Entra credential; ``claims`` force an exchange.
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
        token = entra.get_token_info(*self._scopes)
        if self._is_in_vain(token, held(), options):
            return held()  # type: ignore[return-value]
        authentication = BearerTokenCredentialPolicy[Any, Any](cast("Any", entra), *self._scopes)
        policies = self._policies(_RetryPolicy(**self._options), authentication)
        client = PipelineClient[Any, Any](self._endpoint, policies=policies, **self._options)
        with client if self._owns_transport else nullcontext():
            response = client.send_request(self._request(), retry_on_methods=RETRY_METHODS)
            return self._read(response, entra.token)


class _EntraCredential:
    """The Entra credential in the course of one exchange: asked once, and again for claims."""

    def __init__(self, credential: Any, options: TokenRequestOptions) -> None:
        self._credential, self._options = credential, options
        self.token: Any = None

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> Any:
        if self.token is None or options:
            asked: TokenRequestOptions = {**self._options, **(options or {})}
            self.token = ask(self._credential, scopes, asked)
        return self.token


class _RetryPolicy(PatientRetries, RetryPolicy[Any, Any]):
    pass
