"""The synchronous credential: the caller refreshes on its own thread, and others wait for it."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, overload

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenProvider, TokenRequestOptions
from typing_extensions import Self  # azure-core has loaded it by now

from .._arguments import is_entra_form
from .._engine import ABOARD, Engine
from .._refresh import Flight, Now, State, due_range
from .._token import TokenLike
from ._scheduler import scheduler


class _Flight(Flight):
    """A flight with a call for each thread that waits for its end.

    The calls go through a queue, since a finalizer or a signal handler may close the credential on
    a thread that is about to wait. An event has a lock that the thread would then hold already.
    """

    __slots__ = ("calls", "waiting")

    def __init__(self, claims: str | None, started_at: float, *, ahead: bool) -> None:
        super().__init__(claims, started_at, ahead=ahead)
        self.calls: SimpleQueue[None] = SimpleQueue()
        self.waiting = 0


class CommunicationTokenCredential(Engine):
    """A credential for the clients of Azure Communication Services, for one user's tokens.

    It implements azure-core's ``TokenCredential`` and ``SupportsTokenInfo``. The token comes from
    one of three sources: a static token, a callback, or a Microsoft Entra credential whose tokens
    the resource exchanges.

    A refresh starts two minutes before expiry, or at half of a shorter life, on the thread of one
    caller, while other callers go on with the valid token. With ``proactive_refresh`` a shared
    background thread refreshes ten minutes before expiry, so that no caller has to. Without a valid
    token, callers wait for the one refresh that is under way and share its result or failure.

    Thread-safe: share one instance between clients. Constructing it does no I/O. After a fork, the
    child goes on with the token and refreshes for itself.

    :param token: The user's token, which the identity service issued: a JWT, or an ``AccessToken``
        or ``AccessTokenInfo`` that says when it expires. With ``token_refresher``, the first one.
    :type token: str or ~azure.core.credentials.AccessToken or
        ~azure.core.credentials.AccessTokenInfo or None
    :keyword token_refresher: Called without arguments to get a new token in one of the same forms.
        It must not return a cached token that is about to expire, and should give its own requests
        a time-out below 60 seconds. It runs on a caller's thread, or on a background thread if
        ``proactive_refresh`` is set.
    :paramtype token_refresher: callable or None
    :keyword bool proactive_refresh: Refresh in the background, ten minutes before expiry, from
        construction until ``close``. A credential that is no longer referenced stops by itself.
    :keyword undecodable_token_lifetime: How many seconds a token lives whose expiry cannot be read.
        Giving it admits opaque tokens. By default only an encrypted token (JWE) is admitted, for
        600 seconds.
    :paramtype undecodable_token_lifetime: float or None
    :keyword str resource_endpoint: The endpoint of the resource, ``https://<name>.communication
        .azure.com``, where the Entra tokens are exchanged.
    :keyword token_credential: The credential that issues the Entra tokens, for example one of
        azure-identity. It is not closed with this one.
    :paramtype token_credential: ~azure.core.credentials.TokenCredential or
        ~azure.core.credentials.SupportsTokenInfo
    :keyword scopes: Scopes of the Entra token, all under
        ``https://communication.azure.com/clients/`` or all under
        ``https://auth.msft.communication.azure.com/``. Default:
        ``https://communication.azure.com/clients/.default``.
    :paramtype scopes: str or list[str] or None
    :raises TypeError: If the arguments make none of the three forms, or have a wrong type.
    :raises ValueError: If the token's expiry cannot be read, or another value is of no use.
    """

    __slots__ = ()

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
        elif inspect.iscoroutinefunction(token_refresher):
            msg = (
                "token_refresher is an async function. Use the credential of the same name in "
                "azure.communication.common.aio, or a plain function."
            )
            raise TypeError(msg)
        super().__init__(
            token, token_refresher, exchange, proactive_refresh, undecodable_token_lifetime
        )
        if proactive_refresh:
            self._arm(self._state, self._now())

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """Return a valid token, refreshing it first where needed.

        Returns at once while the token is fresh. In the last two minutes of its life one caller
        refreshes it and blocks for as long as that takes. Without a valid token, others wait for
        it, for at most 60 seconds. Safe to call from several threads.

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
        :raises TimeoutError: If a refresh that another caller runs takes more than 60 seconds.
        :raises ValueError: If the refresher returned an expired or an unreadable token.
        :raises Exception: What the refresher raised, if there is no valid token.
        """
        # The keywords have no names here: three defaults would make this path slower by a tenth.
        state = self._state
        if not kwargs and self._wall() < state.ask_on and self._mono() < state.ask_at:
            return state.token  # type: ignore[return-value]  # there is one until then
        return self._obtain(kwargs)

    def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return a valid token with the time at which to ask again, refreshing it where needed.

        Blocks and raises as :meth:`get_token` does.

        :param str scopes: Accepted for azure-core's sake; the source of the tokens sets the scopes.
        :keyword options: ``claims``, ``tenant_id`` and ``enable_cae``, as for :meth:`get_token`.
        :paramtype options: ~azure.core.credentials.TokenRequestOptions or None
        :return: The token, with ``expires_on`` and ``refresh_on`` in Unix seconds; the latter is
            None for a static token. Its ``repr`` does not show the token.
        :rtype: ~azure.core.credentials.AccessTokenInfo
        """
        return self._info(self.get_token(*scopes, **(options or {})))

    def close(self) -> None:
        """End the use of the credential and forget its token.

        Does not block, not even for a refresher that is running: its result is dropped, and those
        who wait for it get the error of a closed credential, as does any later ``get_token``.
        Closing again has no effect.
        """
        self._close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._close()

    def _obtain(self, options: dict[str, Any]) -> AccessToken:
        claims = options.get("claims") or None
        while True:
            turn = self._next(claims)
            if turn.token is not None:
                return turn.token
            flight = turn.flight
            assert isinstance(flight, _Flight)
            if turn.is_pilot:
                self._fly(flight, options)
                if flight.error is not None:
                    raise flight.error
            else:
                with suppress(Empty):
                    flight.calls.get(timeout=max(self._patience(flight), 0))
            token = self._result(flight)
            if token is not None:
                return token

    def _fly(self, flight: Flight, options: dict[str, Any]) -> None:
        token: AccessToken | None = None
        error: Exception | None = None
        mark = ABOARD.set((*ABOARD.get(), flight))
        try:
            value = self._invoke(options)
            if inspect.isawaitable(value):
                _discard(value)
                msg = (
                    "token_refresher returned an awaitable. Use the credential of the same name in "
                    "azure.communication.common.aio, or a function that returns the token."
                )
                raise TypeError(msg)
            token = self._read(value)
        except Exception as exc:  # noqa: BLE001 - the refresher is the user's
            error = exc
        except BaseException as exc:
            if not flight.ahead:
                raise
            error = RuntimeError(f"token_refresher raised {type(exc).__name__}")
        finally:
            ABOARD.reset(mark)
            self._land(flight, token, error)

    def _refresh_ahead(self) -> None:
        """Refresh in the background. Called by the scheduler on a worker thread."""
        if self._entry:  # armed anew while it waited for a worker
            return
        flight = self._next_ahead()
        if flight is not None:
            self._fly(flight, {})

    def _arm(self, state: State, now: Now) -> None:
        scheduler().add(self, *due_range(state, now))

    def _disarm(self) -> None:
        if self._entry:
            scheduler().remove(self)

    def _board(self, flight: Flight) -> None:
        assert isinstance(flight, _Flight)
        flight.waiting += 1

    def _wake(self, flight: Flight) -> None:
        assert isinstance(flight, _Flight)
        for _ in range(flight.waiting):
            flight.calls.put(None)


def _discard(value: Any) -> None:
    """End an awaitable that nobody will await, so that it does not warn of that."""
    for name in ("close", "cancel"):  # a coroutine has the first, a task or future the second
        if hasattr(value, name):
            getattr(value, name)()
            return


AzureCommunicationTokenCredential = CommunicationTokenCredential
