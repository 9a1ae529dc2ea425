"""The asynchronous credential: a refresh is a task of its own, and callers await it.

Nothing of asyncio is shared between loops. Each waiting loop has a future of its own on the flight,
done from wherever the flight ends, so one credential serves any number of loops and threads.
"""

import asyncio
import inspect
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, overload

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.credentials_async import AsyncTokenProvider
from typing_extensions import Self  # azure-core has loaded it by now

from .._arguments import is_entra_form
from .._engine import ABOARD, Engine, overdue
from .._refresh import FLIGHT_SECONDS, INFINITY, Flight, Now, State, due_range
from .._token import TokenLike
from ._scheduler import scheduler

Loop = asyncio.AbstractEventLoop


class _Flight(Flight):
    __slots__ = ("landings", "loop")

    def __init__(self, claims: str | None, started_at: float, *, ahead: bool) -> None:
        super().__init__(claims, started_at, ahead=ahead)
        self.loop = asyncio.get_running_loop()
        self.landings: dict[Loop, asyncio.Future[None]] = {}

    def is_lost(self) -> bool:
        return not self.loop.is_running()


def _no_loop() -> None:
    """Stand for the reference to a loop of a credential that is not armed yet."""


class CommunicationTokenCredential(Engine):
    """A credential for the aio clients of Azure Communication Services, for one user's tokens.

    It implements azure-core's ``AsyncTokenCredential`` and ``AsyncSupportsTokenInfo``. The token
    comes from one of three sources: a static token, a callback, or a Microsoft Entra credential
    whose tokens the resource exchanges.

    A refresh starts two minutes before expiry, or at half of a shorter life. It is a task of its
    own: a caller that is cancelled does not cancel it. The caller that started it awaits it, for at
    most ten seconds while the token is valid; the others go on with the valid token. With
    ``proactive_refresh`` a timer of the event loop starts it ten minutes before expiry, so that no
    caller has to. Without a valid token, callers await the one refresh that is under way and share
    its result or failure.

    One instance serves any number of event loops and threads, one after another or at once.
    Constructing it does no I/O and needs no running loop. After a fork, the child goes on with the
    token and refreshes for itself.

    :param token: The user's token, which the identity service issued: a JWT, or an ``AccessToken``
        or ``AccessTokenInfo`` that says when it expires. With ``token_refresher``, the first one.
    :type token: str or ~azure.core.credentials.AccessToken or
        ~azure.core.credentials.AccessTokenInfo or None
    :keyword token_refresher: Called without arguments to get a new token in one of the same forms;
        ``async def`` or plain. It must not return a cached token that is about to expire. It is
        cancelled after 60 seconds. A plain function blocks the event loop while it runs.
    :paramtype token_refresher: callable or None
    :keyword bool proactive_refresh: Refresh ten minutes before expiry, on the event loop that runs
        at construction or, if none does, at the first await, until ``close``. A credential that is
        no longer referenced stops by itself.
    :keyword undecodable_token_lifetime: How many seconds a token lives whose expiry cannot be read.
        Giving it admits opaque tokens. By default only an encrypted token (JWE) is admitted, for
        600 seconds.
    :paramtype undecodable_token_lifetime: float or None
    :keyword str resource_endpoint: The endpoint of the resource, ``https://<name>.communication
        .azure.com``, where the Entra tokens are exchanged.
    :keyword token_credential: The credential that issues the Entra tokens, for example one of
        azure-identity's ``aio``. It is not closed with this one.
    :paramtype token_credential: ~azure.core.credentials_async.AsyncTokenCredential or
        ~azure.core.credentials_async.AsyncSupportsTokenInfo
    :keyword scopes: Scopes of the Entra token, all under
        ``https://communication.azure.com/clients/`` or all under
        ``https://auth.msft.communication.azure.com/``. Default:
        ``https://communication.azure.com/clients/.default``.
    :paramtype scopes: str or list[str] or None
    :raises TypeError: If the arguments make none of the three forms, or have a wrong type.
    :raises ValueError: If the token's expiry cannot be read, or another value is of no use.
    """

    __slots__ = ("_home",)

    _flight_type = _Flight

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
        exchange = None
        entra = {
            "resource_endpoint": resource_endpoint,
            "token_credential": token_credential,
            "scopes": scopes,
        }
        if is_entra_form(
            token,
            token_refresher,
            proactive_refresh,
            undecodable_token_lifetime,
            entra,
            pipeline_options,
        ):
            from ._entra import EntraExchange

            exchange = EntraExchange(**entra, **pipeline_options)
        # The loop on which the credential is armed; None if it does not refresh proactively.
        self._home: Callable[[], Loop | None] | None = _no_loop if proactive_refresh else None
        super().__init__(
            token, token_refresher, exchange, proactive_refresh, undecodable_token_lifetime
        )
        if proactive_refresh:
            self._arm(self._state, self._now())

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a valid token, refreshing it first where needed.

        Returns at once while the token is fresh. In the last two minutes of its life one caller
        awaits a refresh, for at most ten seconds. Without a valid token, callers await the refresh
        that is under way, for at most 60 seconds. Never blocks the event loop. Safe to call from
        several tasks, loops and threads; cancelling a call does not cancel the refresh.

        :param str scopes: Accepted for azure-core's sake; the source of the tokens sets the scopes.
        :keyword claims: Claims of a challenge. They force one new token, and go on to the Entra
            credential in the Entra form.
        :paramtype claims: str or None
        :keyword tenant_id: Goes on to the Entra credential in the Entra form.
        :paramtype tenant_id: str or None
        :keyword bool enable_cae: Goes on to the Entra credential in the Entra form. Other keywords
            are ignored.
        :return: The token, with ``expires_on`` in Unix seconds. Its ``repr`` does not show it.
        :rtype: ~azure.core.credentials.AccessToken
        :raises RuntimeError: If the credential has been closed.
        :raises TimeoutError: If a refresh takes more than 60 seconds.
        :raises ValueError: If the refresher returned an expired or an unreadable token.
        :raises Exception: What the refresher raised, if there is no valid token.
        """
        state = self._state
        is_home = self._home is None or self._home() is asyncio.get_running_loop()
        is_fresh = self._wall() < state.ask_on and self._mono() < state.ask_at
        if is_fresh and is_home and not kwargs:
            return state.token  # type: ignore[return-value]  # there is one until then
        return await self._obtain(kwargs)

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a valid token with the time at which to ask again, refreshing it where needed.

        Awaits and raises as :meth:`get_token` does.

        :param str scopes: Accepted for azure-core's sake; the source of the tokens sets the scopes.
        :keyword options: ``claims``, ``tenant_id`` and ``enable_cae``, as for :meth:`get_token`.
        :paramtype options: ~azure.core.credentials.TokenRequestOptions or None
        :return: The token, with ``expires_on`` and ``refresh_on`` in Unix seconds; the latter is
            None for a static token. Its ``repr`` does not show the token.
        :rtype: ~azure.core.credentials.AccessTokenInfo
        """
        return self._info(await self.get_token(*scopes, **(options or {})))

    async def close(self) -> None:
        """End the use of the credential and forget its token.

        Does not wait, not even for a refresher that is running: its result is dropped, and those
        who await it get the error of a closed credential, as does any later ``get_token``. Closing
        again, or from another loop or thread, is fine.
        """
        self._close()

    async def __aenter__(self) -> Self:
        self._check_open()
        self._settle_in()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._close()

    async def _obtain(self, options: dict[str, Any]) -> AccessToken:
        claims = options.get("claims") or None
        self._settle_in()
        while True:
            turn = self._next(claims)
            if turn.token is not None:
                return turn.token
            flight = turn.flight
            assert isinstance(flight, _Flight)
            if turn.is_pilot:
                self._take_off(flight, options)
            # Before Python 3.12, wait_for would at times swallow a cancellation.
            landing = flight.landings[asyncio.get_running_loop()]
            await asyncio.wait((landing,), timeout=self._patience(flight))
            if turn.is_pilot and flight.error is not None:
                raise flight.error
            token = self._result(flight)
            if token is not None:
                return token

    def _take_off(self, flight: _Flight, options: dict[str, Any]) -> "asyncio.Task[None]":
        return flight.loop.create_task(self._fly(flight, options))

    async def _fly(self, flight: _Flight, options: dict[str, Any]) -> None:
        token: AccessToken | None = None
        error: Exception | None = None
        # A task of its own tells a refresher that raises CancelledError from a cancelled flight.
        call = flight.loop.create_task(self._call(flight, options))
        try:
            # A loop refers to its tasks only weakly, but its timer for this refers to both of them.
            await asyncio.wait((call,), timeout=FLIGHT_SECONDS)
            token = self._read(_outcome(call))
        except Exception as exc:  # noqa: BLE001 - the refresher is the user's
            error = exc
        finally:  # with neither if it was cancelled
            if not flight.loop.is_closed():
                call.cancel()
            self._land(flight, token, error)

    async def _call(self, flight: Flight, options: dict[str, Any]) -> Any:
        ABOARD.set((*ABOARD.get(), flight))  # in the context of this task alone
        value = self._invoke(options)
        return await value if inspect.isawaitable(value) else value

    def _refresh_ahead(self) -> "asyncio.Task[None] | None":
        """Refresh in the background. Called by the scheduler on the loop where it is armed."""
        flight = self._next_ahead()
        return self._take_off(flight, {}) if isinstance(flight, _Flight) else None

    def _settle_in(self) -> None:
        """Arm on the running loop, unless the credential is armed on one that still runs."""
        if self._home is not None:
            home = self._home()
            if home is None or not home.is_running():
                self._arm(self._state, self._now())

    def _arm(self, state: State, now: Now) -> None:
        loop = _running_loop()
        self._home = _no_loop if loop is None else weakref.ref(loop)
        if loop is not None and state.due_on < INFINITY:
            scheduler(loop).add(self, *due_range(state, now))

    def _disarm(self) -> None:
        home = self._home and self._home()
        if home:
            scheduler(home).remove(self)

    def _board(self, flight: Flight) -> None:
        assert isinstance(flight, _Flight)
        loop = asyncio.get_running_loop()
        flight.landings.setdefault(loop, loop.create_future())

    def _wake(self, flight: Flight) -> None:
        assert isinstance(flight, _Flight)
        for loop, landing in flight.landings.items():
            with suppress(RuntimeError):  # that loop was closed, and nobody waits there
                loop.call_soon_threadsafe(landing.cancel)  # done, and no harm in doing it again


def _outcome(call: "asyncio.Task[Any]") -> Any:
    """Return or raise what came of calling the refresher."""
    if not call.done():
        raise overdue()
    try:
        return call.result()
    except Exception:
        raise
    except BaseException as exc:  # nobody else has the task, so it was not cancelled from outside
        msg = f"token_refresher raised {type(exc).__name__}"
        raise RuntimeError(msg) from exc


def _running_loop() -> Loop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


AzureCommunicationTokenCredential = CommunicationTokenCredential
