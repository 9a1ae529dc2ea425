"""Authentication for synchronous pipelines: an access key or a token credential."""

import logging
from typing import Any, overload

from azure.core.credentials import AzureKeyCredential, TokenProvider
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import BearerTokenCredentialPolicy

from .._bearer import SCOPE, can_be_sent_again, check_token_credential, invalidate, sent_token
from .._connection import as_key_credential, is_token_credential, parse_endpoint
from .._hmac import HMACCredentialsPolicy, check_destination

_LOGGER = logging.getLogger(__name__)


@overload
def get_authentication_policy(
    endpoint: str, credential: AzureKeyCredential | str
) -> HMACCredentialsPolicy: ...
@overload
def get_authentication_policy(
    endpoint: str, credential: TokenProvider
) -> BearerTokenCredentialPolicy[Any, Any]: ...
def get_authentication_policy(
    endpoint: str, credential: AzureKeyCredential | str | TokenProvider
) -> HMACCredentialsPolicy | BearerTokenCredentialPolicy[Any, Any]:
    """Return the policy that authenticates the requests of a client with its credential.

    Put it behind the retry policy. It refuses any request that would carry the credential to
    another host than the endpoint's, or over plain http; the request option ``enforce_https=False``
    admits plain http to a loopback address, for tests.

    With a token credential, a request that is answered with 401 has the token that it carried
    invalidated, if the credential has ``invalidate_token``, and is sent once more if there is
    another token and the body can be read again. The answer to that is the caller's, as is the 401
    if there was no other try. Asking the credential may block.

    Make one for each client, for azure-core links a policy to the pipeline that it is part of.
    Threads may share it with the client.

    :param str endpoint: The endpoint of the resource, ``https://<host>[:<port>]``.
    :param credential: An access key in base64, an ``AzureKeyCredential``, whose key may be rotated,
        or a token credential.
    :type credential: str or ~azure.core.credentials.AzureKeyCredential or
        ~azure.core.credentials.TokenCredential or ~azure.core.credentials.SupportsTokenInfo
    :return: The policy.
    :rtype: ~azure.communication.common.HMACCredentialsPolicy or
        ~azure.core.pipeline.policies.BearerTokenCredentialPolicy
    :raises TypeError: If an argument is of another type, or the credential is an async one.
    :raises ValueError: If the endpoint or the access key is malformed. The message does not contain
        it.
    """
    endpoint = parse_endpoint(endpoint)
    if is_token_credential(credential):
        check_token_credential(credential, "credential", sync=True)
        return _BearerTokenPolicy(endpoint, credential)  # type: ignore[arg-type]  # just checked
    argument = "credential, unless it is a token credential,"
    return HMACCredentialsPolicy(endpoint, as_key_credential(credential, argument))  # type: ignore[arg-type]


class _BearerTokenPolicy(BearerTokenCredentialPolicy[Any, Any]):
    """azure-core's policy, with revocation and with a look at where the token goes.

    azure-core drops the token that it keeps after any 401, even one that has come meanwhile, and
    another thread may find none between two looks. So a refused one is marked instead.
    """

    def __init__(self, endpoint: str, credential: TokenProvider) -> None:
        super().__init__(credential, SCOPE)
        self._endpoint = endpoint
        self._refused: str | None = None

    def on_request(self, request: PipelineRequest[Any]) -> None:
        check_destination(request, self._endpoint)
        super().on_request(request)

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        self.on_request(request)
        response: PipelineResponse[Any, Any] = self.next.send(request)
        sent = sent_token(request)  # a policy behind this one may have put another there
        if response.http_response.status_code == 401:
            self._refused = sent
            invalidate(self._credential, sent)
            if can_be_sent_again(request.http_request) and self._reauthorize(
                request, response, sent
            ):
                response = self.next.send(request)
        elif sent == self._refused:  # so the 401 was not about the token
            self._refused = None
        return response

    def _reauthorize(
        self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any], sent: str
    ) -> bool:
        """Give the request another token than the one that was sent; tell whether there is one."""
        if "WWW-Authenticate" in response.http_response.headers:
            try:
                if self.on_challenge(request, response):  # for claims
                    return sent_token(request) != sent
            except Exception as error:
                raise error from HttpResponseError(response=response.http_response)
        try:
            self.on_request(request)
        except Exception:  # whatever the credential raises, the 401 is the answer
            _LOGGER.warning("The service refused the token, and there is no other.", exc_info=True)
            return False
        return sent_token(request) != sent

    @property
    def _need_new_token(self) -> bool:
        held = self._token
        return held is None or held.token == self._refused or super()._need_new_token
