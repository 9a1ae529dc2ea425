"""The exchange of Entra tokens over an asynchronous pipeline."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

from azure.core import AsyncPipelineClient
from azure.core.credentials import AccessToken, TokenRequestOptions
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, AsyncRetryPolicy

from .._bearer import ask, check_token_credential
from .._exchange import RETRY_METHODS, Exchange, PatientRetries


class EntraExchange(Exchange):
    """Exchanges the tokens of an Entra credential. May be called on any event loop.

    It takes the arguments of :class:`Exchange`. Constructing it does no I/O and needs no loop.
    """

    def __init__(self, *, token_credential: Any, **options: Any) -> None:
        check_token_credential(token_credential, "token_credential", sync=False)
        super().__init__(token_credential=token_credential, **options)

    async def __call__(
        self, options: TokenRequestOptions, held: Callable[[], AccessToken | None]
    ) -> AccessToken:
        """Return a new Communication token, or ``held`` if an exchange can bring no better one.

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
        token = await entra.get_token_info(*self._scopes)
        if self._is_in_vain(token, held(), options):
            return held()  # type: ignore[return-value]
        authentication = AsyncBearerTokenCredentialPolicy[Any, Any](
            cast("Any", entra), *self._scopes
        )
        policies = self._policies(_RetryPolicy(**self._options), authentication)
        client = AsyncPipelineClient[Any, Any](self._endpoint, policies=policies, **self._options)
        async with client if self._owns_transport else nullcontext():
            response = await client.send_request(self._request(), retry_on_methods=RETRY_METHODS)
            return self._read(response, entra.token)


class _EntraCredential:
    """The Entra credential in the course of one exchange: asked once, and again for claims."""

    def __init__(self, credential: Any, options: TokenRequestOptions) -> None:
        self._credential, self._options = credential, options
        self.token: Any = None

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> Any:
        if self.token is None or options:
            asked: TokenRequestOptions = {**self._options, **(options or {})}
            answer = ask(self._credential, scopes, asked)
            self.token = await answer if inspect.isawaitable(answer) else answer
        return self.token


class _RetryPolicy(PatientRetries, AsyncRetryPolicy[Any, Any]):
    pass
