"""One credential's token behind its lock: what the synchronous and the asynchronous class share.

Theory of operation
-------------------
``_state`` is an immutable snapshot, replaced by single assignments. While the token is fresh,
``get_token`` reads it once and takes no lock. Every other path goes through :meth:`Engine._next`,
which asks the rules what to do, and a refresh ends in :meth:`Engine._land`, which asks them what
the outcome changes. Both hold the lock for constant time and never over a callback, an await or a
log call. The drivers add the waiting and nothing else.

The lock is re-entrant because the garbage collector may run a finalizer of the user's that closes
this very credential while its thread holds the lock.

After a fork the child keeps the token, and gets a new lock and no flights the first time that it
takes a slow path: the parent's flights are flown by threads that the child does not have.
"""

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol

from azure.core.credentials import AccessToken, TokenRequestOptions

from . import _refresh
from ._refresh import Action, Flight, Now, State
from ._token import RedactedAccessTokenInfo, read_token

_LOGGER = logging.getLogger(__name__)

_ENTRA_OPTIONS = tuple(TokenRequestOptions.__annotations__)

# The flights that the running code is part of: a refresher must not wait for itself.
ABOARD: ContextVar[tuple[Flight, ...]] = ContextVar("azure_communication_flights", default=())

# One lock for each process id, to renew the credentials' locks under. setdefault is atomic. It is
# re-entrant for the same reason as theirs.
_renewals: dict[int, AbstractContextManager[bool]] = {}


class Source(Protocol):
    """Where time or chance comes from: a function that is no method of its class."""

    def __call__(self) -> float: ...


class Turn(NamedTuple):
    """What a caller has to do: return the token, fly the flight, or wait for it."""

    token: AccessToken | None = None
    flight: Flight | None = None
    is_pilot: bool = False


class Engine:
    """The state of one credential. Thread-safe."""

    __slots__ = (
        "__weakref__",
        "_entry",
        "_exchange",
        "_flights",
        "_lifetime",
        "_lock",
        "_proactive",
        "_process",
        "_refresher",
        "_state",
    )

    # On the class, for tests to replace; built-in functions do not bind.
    _wall: ClassVar[Source] = time.time
    _mono: ClassVar[Source] = time.monotonic
    _rand: ClassVar[Source] = random.random
    _flight_type: ClassVar[type[Flight]] = Flight

    def __init__(
        self,
        token: Any,
        refresher: Callable[[], Any] | None,
        exchange: Any,
        proactive: bool,
        lifetime: float | None,
    ) -> None:
        self._refresher = refresher
        self._exchange = exchange
        self._proactive = proactive
        self._lifetime = lifetime
        self._entry = 0
        self._flights: tuple[Flight, ...] = ()
        self._lock = threading.RLock()  # guards _state and _flights
        self._process = os.getpid()
        now = self._now()
        if token is None:
            self._state = State(due_on=now.wall if proactive else _refresh.INFINITY)
        elif refresher is None:
            expiring = read_token(token, now.wall, lifetime, "token")
            self._state = State(
                token=expiring, ask_on=expiring.expires_on, ask_at=_refresh.INFINITY
            )
        else:
            expiring = read_token(token, now.wall, lifetime, "token")
            self._state = _refresh.start(State(), expiring, now, proactive=proactive)

    def invalidate_token(self, token: str) -> None:
        """Drop a token that the service refused, so that the next call fetches another.

        It has no effect unless it is the token that the credential holds: when ten clients are
        refused the same token, one refresh follows. A token that is refused within 30 seconds of
        its issue counts as a failure; when several in a row are, the next refresh is held back for
        up to 30 seconds, and until then ``get_token`` raises a
        :class:`~azure.core.exceptions.ClientAuthenticationError`. A static token cannot be replaced
        and stays. Does not block; may be called from any thread.

        :param str token: The token that was sent.
        """
        if self._is_static:
            return
        with self._guard():
            held = self._state.token
            if held is not None and held.token == token:
                self._store(_refresh.refuse(self._state, self._now(), jitter=self._rand()))

    def __repr__(self) -> str:
        state = self._state
        if state.closed:
            status = "closed"
        elif state.token is None:
            status = "no token yet"
        else:
            status = f"expires_on={state.token.expires_on}"
        return f"<{type(self).__name__}: {status}>"

    def __reduce__(self) -> NoReturn:
        msg = (
            f"A {type(self).__name__} cannot be pickled or copied: it holds a secret and a lock. "
            "Create one in each process; within a process, share the object itself."
        )
        raise TypeError(msg)

    # What the drivers implement.

    def _arm(self, state: State, now: Now) -> None:
        """Have the background refresh the token when it is due."""
        raise NotImplementedError

    def _disarm(self) -> None:
        raise NotImplementedError

    def _wake(self, flight: Flight) -> None:
        """Wake those who wait for a flight that is over."""
        raise NotImplementedError

    # What the drivers call.

    def _next(self, claims: str | None, *, ahead: bool = False) -> Turn:
        """Tell a caller what to do, and register the flight if it is to fly one."""
        if self._is_static:
            return Turn(token=self._static_token())
        with self._guard():
            state, now = self._state, self._now()
            flight = self._find_flight(claims, now)
            is_refresher = any(each in ABOARD.get() for each in self._flights)
            action = _refresh.decide(state, now, claims=claims, ahead=ahead, under_way=bool(flight))
            if action is Action.REFRESH and ahead and self._flights:
                action = Action.WAIT  # even for an overdue one: it may occupy a worker
            if is_refresher and action in (Action.REFRESH, Action.WAIT):
                return Turn(token=self._token_for_refresher(state, now))
            if action is Action.REFRESH:
                flight = self._flight_type(claims, now.mono, ahead=ahead)
                self._flights = (*(f for f in self._flights if not f.is_overdue(now)), flight)
            if flight is not None and action in (Action.REFRESH, Action.WAIT):
                self._board(flight)
        if action is Action.RETURN:
            return Turn(token=state.token)
        if action is Action.RAISE:
            self._raise(state, now)
        return Turn(flight=flight, is_pilot=action is Action.REFRESH)

    def _next_ahead(self) -> Flight | None:
        """Tell the background which flight to fly, if any."""
        try:
            turn = self._next(None, ahead=True)
        except Exception:  # noqa: BLE001 - closed, or on hold: nobody is there to be told
            state, now = self._state, self._now()
            if not state.closed:
                hold = max(state.retry_at - now.mono, _refresh.RETRY_FLOOR_SECONDS)
                self._arm(replace(state, due_on=now.wall + hold), now)
            return None
        return turn.flight if turn.is_pilot else None

    def _board(self, flight: Flight) -> None:
        """Note, under the lock, that the caller will wait for this flight."""

    def _patience(self, flight: Flight) -> float:
        """Return for how many seconds to wait for a flight before asking what to do again."""
        now = self._now()
        left = _refresh.life_left(self._state, now)
        if left > 0 and flight.claims is None:
            return min(_refresh.PATIENCE_SECONDS, left / 2)
        return flight.started_at + _refresh.FLIGHT_SECONDS - now.mono

    def _result(self, flight: Flight) -> AccessToken | None:
        """Return or raise what a flight brought; None if it ended without, or has not ended.

        Those who waited in vain for one that is overdue do not start another: it might well be
        their own, by way of a thread that nothing is known of.
        """
        if flight.token is not None:
            return flight.token
        if flight.error is not None:
            raise _refresh.detached(flight.error) from flight.error
        if flight.is_overdue(self._now()) and not flight.is_lost():
            raise overdue()
        return None

    def _invoke(self, options: dict[str, Any]) -> Any:
        """Call the refresher; its result may have to be awaited."""
        if self._refresher is not None:
            return self._refresher()
        state = self._state
        held = state.token if _refresh.life_left(state, self._now()) > 0 else None
        asked = {name: options[name] for name in _ENTRA_OPTIONS if options.get(name)}
        return self._exchange(asked, held)

    def _read(self, value: Any) -> AccessToken:
        """Turn what a refresher returned into a token."""
        return read_token(value, self._wall(), self._lifetime, "The result of token_refresher")

    def _land(self, flight: Flight, token: AccessToken | None, error: Exception | None) -> None:
        """Take in the outcome of a flight: a token, an error, or neither if it was given up."""
        failure = None if error is None else _refresh.read_failure(error)
        with self._guard():
            is_late = flight not in self._flights
            self._flights = tuple(f for f in self._flights if f is not flight)
            before, now = self._state, self._now()
            if before.closed:
                token, error = None, _closed()
            elif token is not None:
                try:
                    _refresh.check_result(before, token, now)
                except ValueError as exc:
                    token, error, failure = None, exc, _refresh.Failure(exc)
            claims = None if is_late else flight.claims  # late, it counts only if it is newer
            state = self._store(self._after(claims, token, None if is_late else failure, now))
            left = _refresh.life_left(state, now)
            if token is not None or (left > 0 and flight.claims is None):
                flight.token = state.token
            else:
                flight.error = error
        self._wake(flight)
        # Also if nothing changed: the background may have come by while this flight was under way.
        if state.due_on < _refresh.INFINITY and (state is not before or not self._entry):
            self._arm(state, now)
            if self._state.closed:  # meanwhile
                self._disarm()
        if state is not before and (token is not None or error is not None):
            self._report(flight, error, left, state.ask_on - now.wall)

    def _after(
        self,
        claims: str | None,
        token: AccessToken | None,
        failure: _refresh.Failure | None,
        now: Now,
    ) -> State:
        state = self._state
        if state.closed:
            return state
        if token is not None:
            return _refresh.succeed(state, token, now, claims, proactive=self._proactive)
        if failure is not None:
            return _refresh.fail(
                state, failure, now, claims, jitter=self._rand(), proactive=self._proactive
            )
        return _refresh.give_up(state, now)

    def _store(self, state: State) -> State:
        """Replace the state under the lock, unless a finalizer has meanwhile closed the credential.

        Return the state that is in force.
        """
        if not self._state.closed:
            self._state = state
        return self._state

    def _close(self) -> None:
        self._state = _refresh.CLOSED  # at first, or a forked child would arm what it closes
        with self._guard():
            flights, self._flights = self._flights, ()
            self._state = _refresh.CLOSED
        self._disarm()
        for flight in flights:
            flight.error = _closed()
            self._wake(flight)

    def _check_open(self) -> None:
        if self._state.closed:
            raise _closed()

    def _info(self, token: AccessToken) -> RedactedAccessTokenInfo:
        return RedactedAccessTokenInfo(
            token.token,
            token.expires_on,
            refresh_on=None if self._is_static else _refresh.refresh_on(self._state, token),
        )

    def _now(self) -> Now:
        return Now(self._wall(), self._mono())

    # The rest is private to the engine.

    @property
    def _is_static(self) -> bool:
        return self._refresher is None and self._exchange is None and not self._state.closed

    def _static_token(self) -> AccessToken | None:
        with self._guard():
            state = self._state
            has_expired = self._wall() >= state.ask_on
            if has_expired:  # said once
                self._store(replace(state, ask_on=_refresh.INFINITY))
        if has_expired:
            _LOGGER.warning(
                "The token has expired and cannot be refreshed, so requests will be refused. Pass "
                "a token_refresher to the credential, or create a new one with a new token."
            )
        return state.token

    def _guard(self) -> AbstractContextManager[bool]:
        """Return the lock, after making the credential this process's own."""
        if self._process != os.getpid():
            with _renewals.setdefault(os.getpid(), threading.RLock()):
                is_new = self._process != os.getpid()
                if is_new:
                    self._renew()
            if is_new and self._state.due_on < _refresh.INFINITY:
                self._arm(self._state, self._now())
        return self._lock

    def _renew(self) -> None:
        """Start over in a forked child: keep the token, drop the parent's flights."""
        state, now = self._state, self._now()
        if state.token is not None:  # undoes _visit_after_fork
            self._store(replace(state, ask_at=now.mono + state.ask_on - now.wall))
        self._lock = threading.RLock()
        self._flights = ()
        self._entry = 0
        self._process = os.getpid()

    def _visit_after_fork(self) -> None:
        """Have the next use take the slow path. Called in the child, where no other thread is."""
        self._state = replace(self._state, ask_at=-_refresh.INFINITY)

    def _find_flight(self, claims: str | None, now: Now) -> Flight | None:
        """Return a flight that is worth waiting for."""
        for flight in self._flights:  # a token with claims serves those who ask for none
            if (claims is None or flight.claims == claims) and not flight.is_overdue(now):
                return flight
        return None

    def _token_for_refresher(self, state: State, now: Now) -> AccessToken | None:
        if _refresh.life_left(state, now) > 0:
            return state.token
        msg = (
            "The refresher asked its own credential for a token while there is no valid one. "
            "Give the client that it uses another credential, for example the access key."
        )
        raise RuntimeError(msg)

    def _raise(self, state: State, now: Now) -> NoReturn:
        if state.closed or state.error is None:
            raise _closed()
        error = _refresh.detached(state.error)
        if sys.version_info >= (3, 11):
            error.add_note(f"The next refresh is tried in {state.retry_at - now.mono:.1f} seconds.")
        raise error

    def _report(self, flight: Flight, error: Exception | None, left: float, pause: float) -> None:
        if error is None:
            _LOGGER.debug("The token is valid for another %.0f seconds.", left)
        elif left > 0 and flight.claims is None:
            _LOGGER.warning(
                "The token could not be refreshed; it is valid for another %.0f seconds, and the "
                "next try comes in %.0f.",
                left,
                pause,
                exc_info=error,
            )
        elif flight.ahead:
            _LOGGER.warning("The token could not be refreshed and has expired.", exc_info=error)


def _closed() -> RuntimeError:
    return RuntimeError("The credential has been closed. Create a new one.")


def overdue() -> TimeoutError:
    msg = (
        f"The refresh of the token has not ended within {_refresh.FLIGHT_SECONDS} seconds. Give "
        "the requests of token_refresher a time-out that is shorter."
    )
    return TimeoutError(msg)
