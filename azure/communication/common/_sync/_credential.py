"""The synchronous credential: the caller refreshes on its own thread, and others wait for it.

Theory of operation
-------------------
A caller asks the cache what to do and does it: it returns the token, leads the refresh, or waits
and asks again. However a refresh that it leads ends, even by an interrupt, the refresh is completed
twice: the second time in case an interrupt cut the first one short.
"""

import inspect
import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, overload

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenProvider, TokenRequestOptions
from typing_extensions import Self  # azure-core has already imported it

from .. import _token
from .._arguments import read_arguments
from .._cache import REFRESHING, CachedTokenCredential, TokenCache, error_to_raise
from .._errors import closed
from .._refresh import NOTHING, Action, Decision, Outcome, Refresh
from .._token import TokenLike
from ._scheduler import arm, check_threads

LOOK_SECONDS = 1.0  # how long it may take to notice what another thread did, under gevent


class CommunicationTokenCredential(CachedTokenCredential):
    """A credential for the clients of Azure Communication Services, for one user's tokens.

    It implements azure-core's ``TokenCredential`` and ``SupportsTokenInfo``. The token comes from
    one of three sources: a static token, a callback, or a Microsoft Entra credential whose tokens
    the resource exchanges.

    A refresh starts two minutes before expiry, or halfway through a shorter lifetime, on the thread
    of one caller, while other callers keep using the valid token. With ``proactive_refresh`` a
    shared background thread refreshes ten minutes before expiry, so that no caller has to. Without
    a valid token, callers wait for the one refresh in progress and share its result or failure.

    Thread-safe: share one instance between clients. Constructing it does no I/O. After a fork, the
    child keeps using the token and refreshes it for itself.

    :param token: The user's token, which the identity service issued: a JWT, or an ``AccessToken``
        or ``AccessTokenInfo`` that says when it expires. With ``token_refresher``, it is the
        initial token.
    :type token: str or ~azure.core.credentials.AccessToken or
        ~azure.core.credentials.AccessTokenInfo or None
    :keyword token_refresher: Called without arguments to get a new token in one of the same forms.
        It must not return a cached token that is about to expire, and its own requests should have
        a time-out below 60 seconds. It runs on a caller's thread, or on a background thread if
        ``proactive_refresh`` is set.
    :paramtype token_refresher: callable or None
    :keyword bool proactive_refresh: Refresh in the background, ten minutes before expiry, from
        construction until ``close``. A credential that is no longer referenced stops by itself.
    :keyword undecodable_token_lifetime: The lifetime in seconds to assume for a token whose expiry
        cannot be read. If it is set, opaque tokens are accepted. By default only encrypted tokens
        (JWE) are, with a lifetime of 600 seconds.
    :paramtype undecodable_token_lifetime: float or None
    :keyword str resource_endpoint: The endpoint of the resource that exchanges the Entra tokens:
        ``https://<name>.communication.azure.com``.
    :keyword token_credential: The credential that issues the Entra tokens, for example one from
        azure-identity. It is not closed together with this credential.
    :paramtype token_credential: ~azure.core.credentials.TokenCredential or
        ~azure.core.credentials.SupportsTokenInfo
    :keyword scopes: Scopes of the Entra token, all under
        ``https://communication.azure.com/clients/`` or all under
        ``https://auth.msft.communication.azure.com/``. Default:
        ``https://communication.azure.com/clients/.default``.
    :paramtype scopes: str or list[str] or None
    :raises TypeError: If the arguments match none of the three forms, or have a wrong type.
    :raises ValueError: If the token's expiry cannot be read, or another value is invalid.
    """

    __slots__ = ()

    @overload
    def __init__(
        self, token: TokenLike, *, undecodable_token_lifetime: float | None = None
    ) -> None: ...
    @overload
    def __init__(
        self,
        token: TokenLike | None = None,
        *,
        token_refresher: Callable[[], TokenLike],
        proactive_refresh: bool = False,
        undecodable_token_lifetime: float | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        resource_endpoint: str,
        token_credential: TokenProvider,
        scopes: str | Sequence[str] | None = None,
        proactive_refresh: bool = False,
        **pipeline_options: Any,
    ) -> None: ...
    def __init__(
        self,
        token: TokenLike | None = None,
        *,
        token_refresher: Callable[[], TokenLike] | None = None,
        proactive_refresh: bool = False,
        undecodable_token_lifetime: float | None = None,
        resource_endpoint: str | None = None,
        token_credential: TokenProvider | None = None,
        scopes: str | Sequence[str] | None = None,
        **pipeline_options: Any,
    ) -> None:
        arguments = read_arguments(
            token,
            token_refresher,
            proactive_refresh,
            undecodable_token_lifetime,
            resource_endpoint,
            token_credential,
            scopes,
            pipeline_options,
        )
        source: Any = None
        if arguments.entra is not None:
            from ._entra import EntraExchange

            source = EntraExchange(**arguments.entra)
        elif token_refresher is not None:
            if inspect.iscoroutinefunction(token_refresher):
                msg = (
                    "token_refresher is an async function: pass a plain function, or import the "
                    "credential from azure.communication.common.aio"
                )
                raise TypeError(msg)
            source = _Refresher(token_refresher)
        self._cache = TokenCache(
            token,
            source,
            proactive=arguments.proactive_refresh,
            lifetime=undecodable_token_lifetime,
            clock=self._clock,
            on_change=_arm,
        )
        if arguments.proactive_refresh:
            check_threads(refresh_ahead)
            source.prepare()
            self._cache.changed()

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a valid token, refreshing it first if needed.

        Returns at once while the token is fresh. In the last two minutes of its lifetime, one
        caller refreshes it and blocks for as long as that takes. Without a valid token, the others
        wait for that, for at most 60 seconds. Safe to call from several threads.

        :param str scopes: Ignored; accepted for protocol compatibility.
        :keyword claims: Claims of a challenge. They force one new token and, in the Entra form, are
            passed on to the Entra credential.
        :paramtype claims: str or None
        :keyword tenant_id: Passed on to the Entra credential in the Entra form.
        :paramtype tenant_id: str or None
        :keyword bool enable_cae: Passed on to the Entra credential in the Entra form. Other
            keywords are ignored.
        :return: The token, with ``expires_on`` in Unix seconds. Its ``repr`` does not show it.
        :rtype: ~azure.core.credentials.AccessToken
        :raises RuntimeError: If the credential has been closed.
        :raises TimeoutError: If a refresh that another caller runs takes more than 60 seconds.
        :raises ValueError: If the refresher returned an expired or an unreadable token.
        :raises Exception: What the refresher raised, if there is no valid token.
        """
        # The keywords are not named here: three defaults would make this path slower by a tenth.
        wall, mono, fresh_on, fresh_at, token = self._cache.snapshot.fast
        if wall() < fresh_on and mono() < fresh_at and not kwargs:
            return token  # type: ignore[return-value]  # there is one until then
        return _obtain(self._cache, kwargs)

    def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a valid token with the time at which to ask again, refreshing it if needed.

        Blocks and raises as :meth:`get_token` does.

        :param str scopes: Ignored; accepted for protocol compatibility.
        :keyword options: ``claims``, ``tenant_id`` and ``enable_cae``, as for :meth:`get_token`.
        :paramtype options: ~azure.core.credentials.TokenRequestOptions or None
        :return: The token, with ``expires_on`` and ``refresh_on`` in Unix seconds; the latter is
            None for a static token. Its ``repr`` does not show the token.
        :rtype: ~azure.core.credentials.AccessTokenInfo
        """
        return self._cache.info(self.get_token(*scopes, **(options or {})))

    def close(self) -> None:
        """Close the credential and forget its token.

        Does not block, not even for a refresher that is running: its result is dropped, and callers
        that wait for it get the error of a closed credential, as does any later ``get_token``.
        Closing again has no effect.
        """
        self._cache.close()

    def __enter__(self) -> Self:
        if self._cache.state.closed:
            raise closed()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._cache.close()


class _Refresher:
    """The source of tokens that calls a function of the user."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function

    def __call__(self, options: object, held: object) -> Any:
        del held  # or the traceback of an error would hold it
        value = self._function()
        if inspect.isawaitable(value):
            _discard(value)
            msg = (
                "token_refresher returned an awaitable: return the token itself, or import the "
                "credential from azure.communication.common.aio"
            )
            raise TypeError(msg)
        return value

    def prepare(self) -> None:
        """Import what reading its result needs: a fork during an import would hang the child."""
        _token.load_decoder()


class _Waiter:
    """A waiting thread.

    It uses a queue, because a finalizer or a signal handler may wake it on the same thread. An
    event has a lock that the thread might be holding then.
    """

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wake(self) -> bool:
        self._calls.put(None)
        return False

    def wait(self, seconds: float) -> None:
        if type(self._calls).__module__ != "_queue":  # it is gevent's: a put may not wake its hub
            seconds = min(seconds, LOOK_SECONDS)
        with suppress(queue.Empty):
            self._calls.get(timeout=seconds)


def _obtain(cache: TokenCache, options: dict[str, Any]) -> AccessToken:
    result = _result(cache, options)
    if not isinstance(result, Exception):
        return result
    try:
        raise result
    finally:
        del result  # or its traceback would refer to it, a cycle


def _result(cache: TokenCache, options: dict[str, Any]) -> AccessToken | Exception:
    """Return a token, or what to raise."""
    claims = options.get("claims") or None
    waited: Refresh | None = None
    led: Refresh | None = None
    decision = NOTHING
    try:
        while True:
            decision = _attempt(cache, Refresh(claims), waited, options)
            if decision.token is not None:
                return decision.token
            if decision.action is Action.RAISE:
                return error_to_raise(decision, led)
            waited = decision.refresh
            if decision.action is Action.WAIT:
                _wait(cache, decision)
            else:
                led = waited
    finally:
        del decision, waited, led  # as in _attempt


def _attempt(
    cache: TokenCache, request: Refresh, waited: Refresh | None, options: dict[str, Any]
) -> Decision:
    """Ask what to do, and lead the refresh, from beginning to end, if that is the decision."""
    decision, outcome = NOTHING, None
    # Keeps what runs here from now on, such as a finalizer, from waiting for this refresh.
    mark = REFRESHING.set(REFRESHING.get() | {request.number})
    try:
        try:
            decision = cache.begin(request, waited)
            if decision.action is Action.LEAD:
                outcome = _call(cache, options, is_background=request.ahead)
            return decision
        finally:
            cache.complete(request, outcome)
    finally:  # again, in case an interrupt cut it short
        cache.complete(request, outcome)
        REFRESHING.reset(mark)
        # The traceback of the refresher's error refers to this frame: a cycle, if this frame
        # referred to the error.
        del request, waited, decision, outcome


def _call(cache: TokenCache, options: dict[str, Any], *, is_background: bool) -> Outcome:
    """Call the source of tokens, and return the outcome."""
    try:
        return cache.read(cache.request(options))
    except Exception as error:  # noqa: BLE001 - the refresher is the user's
        return error
    except BaseException as error:
        if is_background:  # there is no caller to interrupt
            return RuntimeError(f"token_refresher raised {type(error).__name__}")
        raise


def _wait(cache: TokenCache, decision: Decision) -> None:
    assert decision.refresh is not None
    waiter = _Waiter()
    try:
        cache.waiters[waiter] = waiter
        if cache.is_in_progress(decision.refresh):  # or nobody might wake it
            waiter.wait(decision.patience)
    finally:
        cache.waiters.pop(waiter, None)


def refresh_ahead(cache: TokenCache) -> None:
    """Refresh in the background if due; called on a worker."""
    if _attempt(cache, Refresh(ahead=True), None, {}).action is Action.NOTHING:
        cache.changed()


def _arm(cache: TokenCache) -> None:
    arm(cache, refresh_ahead)


def _discard(value: Any) -> None:
    """End an awaitable that nobody will await, so that it does not warn about that."""
    for name in ("close", "cancel"):  # a coroutine has the first, a task or future the second
        if hasattr(value, name):
            getattr(value, name)()
            return


AzureCommunicationTokenCredential = CommunicationTokenCredential
