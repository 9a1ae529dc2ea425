"""Authentication for synchronous pipelines: an access key or a token credential."""

import logging
from collections.abc import Sequence
from typing import Any, cast, overload

from azure.core.credentials import AzureKeyCredential, TokenProvider, TokenRequestOptions
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy

from .._bearer import SCOPE, Bearer, ask, carry, check_token, read_claims, sent_token
from .._connection import as_credential, is_token_credential, parse_endpoint
from .._hmac import HMACCredentialsPolicy

_LOGGER = logging.getLogger(__name__)


@overload
def get_authentication_policy(
    endpoint: str, credential: AzureKeyCredential | str, *, additional_hosts: Sequence[str] = ()
) -> HMACCredentialsPolicy: ...
@overload
def get_authentication_policy(
    endpoint: str, credential: TokenProvider, *, additional_hosts: Sequence[str] = ()
) -> BearerTokenCredentialPolicy[Any, Any]: ...
def get_authentication_policy(
    endpoint: str,
    credential: AzureKeyCredential | str | TokenProvider,
    *,
    additional_hosts: Sequence[str] = (),
) -> HMACCredentialsPolicy | BearerTokenCredentialPolicy[Any, Any]:
    """Return the policy that authenticates the requests of a client with its credential.

    Place it after the redirect policy and the retry policy, where it sees the URL of each attempt,
    and before policies that only observe, such as logging. It refuses any request that would carry
    the credential to a host other than the endpoint's and ``additional_hosts``, or over plain http;
    the request option ``enforce_https=False`` allows plain http to a loopback address, for tests. A
    later policy that rewrites the URL, such as a redirect policy, takes the credential along,
    wherever the new URL points.

    With a token credential, a 401 invalidates the token that the request carried, if the credential
    has ``invalidate_token``. The request is sent once more if there is another token and the body
    can be read again, and the caller gets the response to that; otherwise, it gets the 401. Asking
    the credential may block.

    A credential that has ``invalidate_token``, such as those of this package, is asked for each
    request, and its token is not kept here; the token of any other credential is kept by
    azure-core's policy until shortly before it expires.

    Create one for each client, because azure-core links a policy to the pipeline that it is part
    of. Threads may share it along with the client.

    :param str endpoint: The endpoint of the resource, ``https://<host>[:<port>]``.
    :param credential: An access key in base64, an ``AzureKeyCredential``, whose key may be rotated,
        or a token credential.
    :type credential: str or ~azure.core.credentials.AzureKeyCredential or
        ~azure.core.credentials.TokenCredential or ~azure.core.credentials.SupportsTokenInfo
    :keyword additional_hosts: Further hosts of the service that may receive the credential, over
        https on its default port: a host name, or one with a leading dot for any subdomain, such as
        ``.asm.skype.com``. The resource's host is sent as ``x-ms-host``.
    :paramtype additional_hosts: ~collections.abc.Sequence[str]
    :return: The policy.
    :rtype: ~azure.communication.common.HMACCredentialsPolicy or
        ~azure.core.pipeline.policies.BearerTokenCredentialPolicy
    :raises TypeError: If an argument is of another type, or the credential is an async one.
    :raises ValueError: If the endpoint, the access key or a host is malformed. The message does not
        contain it.
    """
    endpoint = parse_endpoint(endpoint)
    known: Any = as_credential(credential)
    if is_token_credential(known):
        return _BearerTokenPolicy(Bearer(endpoint, known, additional_hosts, sync=True), known)
    return HMACCredentialsPolicy(endpoint, known, additional_hosts=additional_hosts)


class _CheckedCredential:
    """A credential whose tokens are checked before azure-core makes a header of them."""

    def __init__(self, credential: Any) -> None:
        self._credential = credential

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> Any:
        return check_token(ask(self._credential, scopes, options or {}))


class _BearerTokenPolicy(BearerTokenCredentialPolicy[Any, Any]):
    """azure-core's policy, with revocation and a check of where the token goes.

    After any 401, azure-core drops the token that it keeps, even one that has arrived in the
    meantime, and another thread may find none between two reads. So a refused token is marked
    instead.
    """

    def __init__(self, rules: Bearer, credential: Any) -> None:
        checked: Any = _CheckedCredential(credential)
        super().__init__(checked, SCOPE)
        self._checked = checked
        self._rules = rules

    def on_request(self, request: PipelineRequest[Any]) -> None:
        self._rules.check(request)
        if self._rules.asks_each_time:
            carry(request, self._checked.get_token_info(SCOPE))
        else:
            super().on_request(request)

    def authorize_request(self, request: PipelineRequest[Any], *scopes: str, **kwargs: Any) -> None:
        self._rules.check(request)
        if self._rules.asks_each_time:
            options = cast("TokenRequestOptions", kwargs)
            carry(request, self._checked.get_token_info(*scopes, options=options))
        else:
            super().authorize_request(request, *scopes, **kwargs)

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        self.on_request(request)
        response: PipelineResponse[Any, Any] = self.next.send(request)
        if self._rules.can_try_again(request, response) and self._reauthorize(request, response):
            response = self.next.send(request)
        return response

    def _reauthorize(
        self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]
    ) -> bool:
        """Give the request a token other than the one sent; return whether there is one."""
        sent = hash(sent_token(request))
        claims = read_claims(request, response)
        try:
            if claims:
                self.authorize_request(request, SCOPE, claims=claims)
            else:
                self.on_request(request)
        except Exception as error:
            if claims:  # someone may have to sign in again
                raise error from HttpResponseError(response=response.http_response)
            _LOGGER.warning("The service rejected the token, and there is no other.", exc_info=True)
            return False  # whatever the credential raises, the 401 is the answer
        return hash(sent_token(request)) != sent

    @property
    def _need_new_token(self) -> bool:
        held = self._token
        return held is None or self._rules.was_refused(held.token) or super()._need_new_token
