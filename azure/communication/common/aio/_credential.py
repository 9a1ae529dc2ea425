"""The asynchronous credential: a refresh is a task of its own, and callers await its end.

Theory of operation
-------------------
A caller asks the cache what to do and does it: it returns the token, starts the refresh as a task,
or waits and asks again. The task's done callback completes the refresh, even if the task was
cancelled before its first step; the task gives up after 60 seconds.

Loops share no objects of asyncio. Each waiting loop has its own future, which is completed from
wherever the refresh ends, so one credential serves any number of loops and threads. Nobody waits
for a refresh whose loop has stopped; waiters on other loops check for that every second.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, overload

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.credentials_async import AsyncTokenProvider
from typing_extensions import Self  # azure-core has already imported it

from .. import _token
from .._arguments import read_arguments
from .._cache import REFRESHING, CachedTokenCredential, TokenCache, error_to_raise
from .._errors import closed, overdue
from .._refresh import REFRESH_SECONDS, Action, Now, Outcome, Refresh
from .._token import TokenLike
from ._scheduler import Loop, arm, is_adrift, running_loop

LOOK_SECONDS = 1.0  # how long it may take to notice that another loop has stopped


class CommunicationTokenCredential(CachedTokenCredential):
    """A credential for the aio clients of Azure Communication Services, for one user's tokens.

    It implements azure-core's ``AsyncTokenCredential`` and ``AsyncSupportsTokenInfo``. The token
    comes from one of three sources: a static token, a callback, or a Microsoft Entra credential
    whose tokens the resource exchanges.

    A refresh starts two minutes before expiry, or halfway through a shorter lifetime. It is a task
    of its own: cancelling a caller does not cancel it. The caller that started it awaits it, for at
    most ten seconds while the token is valid; the others keep using the valid token. With
    ``proactive_refresh`` a timer of the event loop starts it ten minutes before expiry, so that no
    caller has to. Without a valid token, callers await the one refresh in progress and share its
    result or failure.

    One instance serves any number of event loops and threads, one after another or at once.
    Constructing it does no I/O and needs no running loop. After a fork, the child keeps using the
    token and refreshes it for itself.

    :param token: The user's token, which the identity service issued: a JWT, or an ``AccessToken``
        or ``AccessTokenInfo`` that says when it expires. With ``token_refresher``, it is the
        initial token.
    :type token: str or ~azure.core.credentials.AccessToken or
        ~azure.core.credentials.AccessTokenInfo or None
    :keyword token_refresher: Called without arguments to get a new token in one of the same forms;
        ``async def`` or plain. It must not return a cached token that is about to expire. It is
        cancelled after 60 seconds. A plain function blocks the event loop while it runs.
    :paramtype token_refresher: callable or None
    :keyword bool proactive_refresh: Refresh ten minutes before expiry, on the event loop that is
        running at construction or, if none is, at the first await, until ``close``. A credential
        that is no longer referenced stops by itself.
    :keyword undecodable_token_lifetime: The lifetime in seconds to assume for a token whose expiry
        cannot be read. If it is set, opaque tokens are accepted. By default only encrypted tokens
        (JWE) are, with a lifetime of 600 seconds.
    :paramtype undecodable_token_lifetime: float or None
    :keyword str resource_endpoint: The endpoint of the resource that exchanges the Entra tokens:
        ``https://<name>.communication.azure.com``.
    :keyword token_credential: The credential that issues the Entra tokens, for example one from
        ``azure.identity.aio``. It is not closed together with this credential.
    :paramtype token_credential: ~azure.core.credentials_async.AsyncTokenCredential or
        ~azure.core.credentials_async.AsyncSupportsTokenInfo
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
        token_refresher: Callable[[], TokenLike | Awaitable[TokenLike]],
        proactive_refresh: bool = False,
        undecodable_token_lifetime: float | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *,
        resource_endpoint: str,
        token_credential: AsyncTokenProvider,
        scopes: str | Sequence[str] | None = None,
        proactive_refresh: bool = False,
        **pipeline_options: Any,
    ) -> None: ...
    def __init__(
        self,
        token: TokenLike | None = None,
        *,
        token_refresher: Callable[[], TokenLike | Awaitable[TokenLike]] | None = None,
        proactive_refresh: bool = False,
        undecodable_token_lifetime: float | None = None,
        resource_endpoint: str | None = None,
        token_credential: AsyncTokenProvider | None = None,
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
            source.prepare()
            self._cache.changed()

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a valid token, refreshing it first if needed.

        Returns at once while the token is fresh. In the last two minutes of its lifetime, one
        caller awaits a refresh, for at most ten seconds. Without a valid token, callers await the
        refresh in progress, for at most 60 seconds. Never blocks the event loop. Safe to call from
        several tasks, loops and threads; cancelling a call does not cancel the refresh.

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
        :raises TimeoutError: If a refresh takes more than 60 seconds.
        :raises ValueError: If the refresher returned an expired or an unreadable token.
        :raises Exception: What the refresher raised, if there is no valid token.
        """
        cache = self._cache
        wall, mono, fresh_on, fresh_at, token = cache.snapshot.fast
        if (
            wall() < fresh_on
            and mono() < fresh_at
            and not kwargs
            and (cache.loop is None or cache.loop() is running_loop())
        ):
            return token  # type: ignore[return-value]  # there is one until then
        return await _obtain(cache, kwargs)

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a valid token with the time at which to ask again, refreshing it if needed.

        Awaits and raises as :meth:`get_token` does.

        :param str scopes: Ignored; accepted for protocol compatibility.
        :keyword options: ``claims``, ``tenant_id`` and ``enable_cae``, as for :meth:`get_token`.
        :paramtype options: ~azure.core.credentials.TokenRequestOptions or None
        :return: The token, with ``expires_on`` and ``refresh_on`` in Unix seconds; the latter is
            None for a static token. Its ``repr`` does not show the token.
        :rtype: ~azure.core.credentials.AccessTokenInfo
        """
        return self._cache.info(await self.get_token(*scopes, **(options or {})))

    async def close(self) -> None:
        """Close the credential and forget its token.

        Does not wait, not even for a refresher that is running: its result is dropped, and callers
        that await it get the error of a closed credential, as does any later ``get_token``. Closing
        again, or from another loop or thread, is fine.
        """
        self._cache.close()

    async def __aenter__(self) -> Self:
        if self._cache.state.closed:
            raise closed()
        _event_loop()
        _arm_if_adrift(self._cache)
        return self

    async def __aexit__(
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
        return self._function()

    def prepare(self) -> None:
        """Import what reading its result needs: a fork during an import would hang the child."""
        _token.load_decoder()


class _LoopRefresh(Refresh):
    """A refresh that a task of a loop leads."""

    __slots__ = ("is_started", "loop", "outcome")

    def __init__(self, loop: Loop, claims: str | None = None, *, ahead: bool = False) -> None:
        super().__init__(claims, ahead=ahead)
        self.loop = loop
        self.is_started = False
        self.outcome: Outcome = None  # here and not the task's result, which asyncio may log

    def is_lost(self, now: Now) -> bool:
        """Return whether its loop has stopped, or belongs to the parent process."""
        return super().is_lost(now) or not self.loop.is_running()


class _LoopWaiter:
    """The waiters on one loop."""

    __slots__ = ("_loop", "count", "future")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.count = 0
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> bool:
        try:  # cancelling completes the future; a second time does no harm
            self._loop.call_soon_threadsafe(self.future.cancel)
        except RuntimeError:  # that loop was closed, so nobody waits there
            return False
        return True


async def _obtain(cache: TokenCache, options: dict[str, Any]) -> AccessToken:
    result = await _result(cache, options)
    if not isinstance(result, Exception):
        return result
    try:
        raise result
    finally:
        del result  # or its traceback would refer to it, a cycle


async def _result(cache: TokenCache, options: dict[str, Any]) -> AccessToken | Exception:
    """Return a token, or what to raise."""
    loop = _event_loop()
    _arm_if_adrift(cache)
    claims = options.get("claims") or None
    waited: Refresh | None = None
    led: Refresh | None = None
    while True:
        request = _LoopRefresh(loop, claims)
        try:
            decision = cache.begin(request, waited)
            if decision.action is Action.LEAD:
                _start(cache, request, options)
        finally:
            if not request.is_started:
                cache.complete(request, None)
        if decision.token is not None:
            return decision.token
        if decision.action is Action.RAISE:
            return error_to_raise(decision, led)
        waited = decision.refresh
        assert isinstance(waited, _LoopRefresh)
        if decision.action is Action.LEAD:
            led = waited
        await _wait(cache, waited, loop, decision.patience)


async def _wait(cache: TokenCache, refresh: _LoopRefresh, loop: Loop, seconds: float) -> None:
    """Wait until a refresh has ended or something else has changed, for at most ``seconds``."""
    waiter = cache.waiters.get(loop)
    if not isinstance(waiter, _LoopWaiter) or waiter.future.done():
        waiter = cache.waiters[loop] = _LoopWaiter(loop)
    waiter.count += 1
    try:
        if cache.is_in_progress(refresh):  # or nobody might wake it
            if refresh.loop is not loop:
                seconds = min(seconds, LOOK_SECONDS)
            # Before Python 3.12, wait_for could swallow a cancellation.
            await asyncio.wait((waiter.future,), timeout=seconds)
    finally:
        waiter.count -= 1
        if not waiter.count and cache.waiters.get(loop) is waiter:
            cache.waiters.pop(loop)


def _start(
    cache: TokenCache, refresh: _LoopRefresh, options: dict[str, Any]
) -> "asyncio.Task[None]":
    """Start the task that leads a refresh."""
    task = refresh.loop.create_task(_lead(cache, refresh, options))
    # In addition to its ``finally``, which does not run if the task is cancelled before its first
    # step.
    task.add_done_callback(lambda task: _end(cache, refresh, task))
    refresh.is_started = True
    return task


async def _lead(cache: TokenCache, refresh: _LoopRefresh, options: dict[str, Any]) -> None:
    # A separate task distinguishes a refresher that raises CancelledError from a refresh that is
    # cancelled.
    call = refresh.loop.create_task(_call(cache, refresh, options))
    try:
        # A loop refers to its tasks only weakly, but its timer for this refers to both of them.
        await asyncio.wait((call,), timeout=REFRESH_SECONDS)
        if not call.done():
            refresh.outcome = overdue(REFRESH_SECONDS)
        elif call.cancelled():  # nobody else has the task, so it was not cancelled from outside
            refresh.outcome = RuntimeError("token_refresher raised CancelledError")
    finally:
        if not refresh.loop.is_closed():
            call.cancel()
        cache.complete(refresh, refresh.outcome)


async def _call(cache: TokenCache, refresh: _LoopRefresh, options: dict[str, Any]) -> None:
    """Call the source of tokens, and record the outcome."""
    REFRESHING.set(REFRESHING.get() | {refresh.number})  # in the context of this task alone
    try:
        value = cache.request(options)
        refresh.outcome = cache.read(await value if inspect.isawaitable(value) else value)
    except Exception as error:  # noqa: BLE001 - the refresher is the user's
        refresh.outcome = error
        del refresh  # or the error's traceback would refer to it, a cycle
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - such as pytest's
        refresh.outcome = RuntimeError(f"token_refresher raised {type(error).__name__}")


def _end(cache: TokenCache, refresh: _LoopRefresh, task: "asyncio.Task[None]") -> None:
    """Complete a refresh, however its task ended."""
    if not task.cancelled():
        task.exception()  # or asyncio would log an interrupt, which the loop has already raised
    cache.complete(refresh, refresh.outcome)


def refresh_ahead(cache: TokenCache) -> "asyncio.Task[None] | None":
    """Refresh in the background if due; called on the loop where the cache is armed."""
    request = _LoopRefresh(asyncio.get_running_loop(), ahead=True)
    try:
        if cache.begin(request).action is Action.LEAD:
            return _start(cache, request, {})
        cache.changed()
        return None
    finally:
        if not request.is_started:
            cache.complete(request, None)


def _arm(cache: TokenCache) -> None:
    arm(cache, refresh_ahead)


def _arm_if_adrift(cache: TokenCache) -> None:
    """Arm a proactive cache on this loop, unless it is armed on one that is still running."""
    if is_adrift(cache):
        cache.changed()


def _event_loop() -> Loop:
    loop = running_loop()
    if loop is None:
        msg = (
            "the credential of azure.communication.common.aio needs a running asyncio event loop: "
            "with trio, use trio-asyncio, or the synchronous credential in a thread"
        )
        raise RuntimeError(msg)
    return loop


AzureCommunicationTokenCredential = CommunicationTokenCredential
