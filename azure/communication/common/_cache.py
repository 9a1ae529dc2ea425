"""One credential's token, and the refresh that all its callers share.

Theory of operation
-------------------
A :class:`TokenCache` changes its state by compare-and-set: the rules compute the next state from
the current one, and ``dict.setdefault``, which is atomic, makes it the successor; whoever comes
second recomputes. So there is no lock. An interrupt, a fork, a finalizer or a signal handler, at
any line, finds a complete state and nothing held.

While the token is fresh, ``get_token`` reads the snapshot once. Every other call goes through
:meth:`TokenCache.begin`, which tells it what to do, and each refresh ends in
:meth:`TokenCache.complete`, however it ended. That wakes all waiters; each of them calls ``begin``
again, so a token is always checked at the moment it is returned. It also tells the background that
the state has changed, so that it sets the next timer.

The drivers add only the waiting.
"""

import logging
import os
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias

from azure.core.credentials import AccessToken, TokenRequestOptions

from . import _refresh
from ._errors import detached, set_field
from ._refresh import INFINITY, Action, Decision, Now, Outcome, Refresh, State
from ._token import RedactedAccessTokenInfo, read_token

_LOGGER = logging.getLogger(__name__.rpartition(".")[0])

_ENTRA_OPTIONS = tuple(TokenRequestOptions.__annotations__)

# The numbers of the refreshes that the running code is part of: a refresher must not wait for
# itself. A number that outlives its refresh, in a copied context, has no effect and keeps nothing
# alive.
REFRESHING: ContextVar[frozenset[int]] = ContextVar(
    "azure_communication_refreshing", default=frozenset()
)


class Clock(NamedTuple):
    """The source of time and of random numbers."""

    wall: Callable[[], float] = time.time
    """Returns the Unix time in seconds."""
    mono: Callable[[], float] = time.monotonic
    """Returns the time since some moment in seconds; this clock is never set."""
    rand: Callable[[], float] = random.random
    """Returns a random number from 0 to 1."""

    def now(self) -> Now:
        """Read both clocks."""
        return Now(self.wall(), self.mono(), os.getpid())


SYSTEM_CLOCK = Clock()


Source: TypeAlias = Callable[[dict[str, Any], AccessToken | None], Any]


class Waiter(Protocol):
    """What a driver waits with."""

    def wake(self) -> bool:
        """Make it check again, and return whether it goes on waiting. Thread-safe."""
        ...


class Snapshot:
    """A state, and what ``get_token`` needs of it; it is current until it has a successor."""

    __slots__ = ("fast", "next", "state")

    def __init__(self, state: State, clock: Clock, *, is_fast: bool = True) -> None:
        self.state = state
        self.next: dict[str, Snapshot] = {}
        fresh_on = fresh_at = -INFINITY
        if state.token is not None and is_fast:
            # Floats, because comparing a float with an int takes twice as long.
            fresh_on = float(state.token.expires_on - state.next_left)
            fresh_at = INFINITY if state.static else state.deadline_at - state.next_left
        self.fast: Fast = (clock.wall, clock.mono, fresh_on, fresh_at, state.token)


Fast: TypeAlias = tuple[Callable[[], float], Callable[[], float], float, float, AccessToken | None]
"""Both clocks, the time on each until which the token is returned without consulting the rules, and
the token. One tuple, because that is fastest to read.
"""


class TokenCache:
    """The token of one credential. Thread-safe; never blocks.

    :param token: The first token, in any form that a credential takes.
    :param source: Called for a new token, with options and the valid token, if there is one; its
        result may have to be awaited. None for a static token.
    :type source: callable or None
    :keyword bool proactive: Whether the background refreshes the token.
    :keyword lifetime: The lifetime in seconds of a token whose expiry cannot be read.
    :paramtype lifetime: float or None
    :keyword ~azure.communication.common._cache.Clock clock: The source of time.
    :keyword on_change: Called with this cache when the background has to check it again.
    :paramtype on_change: callable
    :raises TypeError: If the token has a wrong type.
    :raises ValueError: If its expiry cannot be read.
    """

    __slots__ = (
        "__weakref__",
        "_lifetime",
        "_process",
        "clock",
        "entry",
        "loop",
        "on_change",
        "snapshot",
        "source",
        "waiters",
    )

    def __init__(
        self,
        token: Any = None,
        source: Source | None = None,
        *,
        proactive: bool = False,
        lifetime: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_change: Callable[["TokenCache"], object] | None = None,
    ) -> None:
        self.source = source
        self.clock = clock
        self.waiters: dict[object, Waiter] = {}
        self.entry = 0
        """The number of its live entry in a schedule, 0 if it has none."""
        self.loop: Callable[[], Any] | None = None
        """The event loop on whose schedule it is, as a weak reference; None for the thread's."""
        self._lifetime = lifetime
        self.on_change = on_change if proactive else None
        self._process = os.getpid()
        state = State(proactive=proactive, static=source is None)
        if token is not None:
            now = clock.now()
            state = _refresh.start(state, read_token(token, now.wall, lifetime, "token"), now)
        self.snapshot = Snapshot(state, clock)

    @property
    def state(self) -> State:
        """All that is known about the token."""
        return self._latest().state

    @property
    def is_inherited(self) -> bool:
        """Whether it is the parent process's, and this is a child that has not used it yet."""
        return self._process != os.getpid()

    def begin(self, request: Refresh, waited: Refresh | None = None) -> Decision:
        """Tell a caller what to do, and record its refresh as in progress if it is to lead it.

        Afterwards, the caller has to call :meth:`complete` with ``request``, whatever happens; it
        may do so even if it led nothing.

        :param Refresh request: What the caller asks for. It is in progress if it is to be led.
        :param waited: The refresh that the caller has led or waited for before.
        :type waited: Refresh or None
        :return: What to do.
        :rtype: Decision
        """
        is_child = self.is_inherited
        while True:
            now = self.clock.now()
            snapshot = self._latest()
            decision = _refresh.decide(snapshot.state, now, request, waited, REFRESHING.get())
            if decision.action is not Action.LEAD:
                request.deadline_at = INFINITY  # it may have been set when another was faster
                break
            if self._follow(snapshot, _refresh.lead(snapshot.state, now, request)):
                break
        if is_child:
            # In this order, so that after an interrupt the next call does it again.
            self.changed()
            self._replace(lambda state: state, anyway=True)  # undoes look_after_fork()
            self._process = now.process
        if snapshot.state.static:
            self._report_static(snapshot.state)
        return decision

    def complete(self, refresh: Refresh, outcome: Outcome) -> None:
        """Record how a refresh has ended, wake all waiters, and have the next timer set.

        A refresh that was never in progress is ignored. Calling it again only wakes the waiters
        again; drivers do so, so that no interrupt leaves a waiter asleep.

        :param Refresh refresh: The refresh.
        :param outcome: A token, an error, or None if the refresh was abandoned.
        :type outcome: ~azure.core.credentials.AccessToken or Exception or None
        """
        if refresh.deadline_at == INFINITY:
            return
        now = self.clock.now()
        before = after = self.state
        if not refresh.is_complete:
            jitter = self.clock.rand()
            before, after = self._replace(
                lambda state: _refresh.complete(state, now, refresh, outcome, jitter)
            )
            refresh.is_complete = True
        self.changed()
        self.wake_all()
        if before is not after:
            self._report(after, now, refresh)

    def invalidate(self, token: str) -> None:
        """Drop a token that the service refused, if it is the current one."""
        jitter, now = self.clock.rand(), self.clock.now()
        before = self.state

        def refuse(state: State) -> State:
            held = state.token
            if state.static or held is None or held.token != token:
                return state
            return _refresh.refuse(state, now, jitter)

        def drop() -> None:
            self._replace(refuse)
            if self.state is not before:
                self.changed()

        _do_surely(drop)

    def close(self) -> None:
        """Forget the token for good, and notify all waiters."""

        def close() -> None:
            self._replace(lambda state: state if state.closed else State(closed=True))
            self.wake_all()
            self.changed()

        _do_surely(close)

    def is_in_progress(self, refresh: Refresh) -> bool:
        """Return whether a refresh has not ended yet."""
        return refresh in self.state.refreshes

    def wake_all(self) -> None:
        """Make all waiters check again."""
        for key, waiter in list(self.waiters.items()):
            if not waiter.wake():
                self.waiters.pop(key, None)

    def changed(self) -> None:
        """Have the background set its timer according to the current state."""
        if self.on_change is not None:
            self.on_change(self)

    def look_after_fork(self) -> None:
        """Make the next caller notice that this is a new process. Called in the child."""
        self._replace(lambda state: state, anyway=True, is_fast=False)

    def request(self, options: dict[str, Any]) -> Any:
        """Call the source of tokens; its result may have to be awaited."""
        assert self.source is not None
        asked = {name: options[name] for name in _ENTRA_OPTIONS if options.get(name)}
        return self.source(asked, self.valid_token())

    def valid_token(self) -> AccessToken | None:
        """Return the token if it is valid."""
        state = self.state
        return state.token if _refresh.life_left(state, self.clock.now()) > 0 else None

    def read(self, value: Any) -> AccessToken | Exception:
        """Turn what the source returned into a token, or the error that says what is wrong."""
        try:
            return read_token(
                value, self.clock.wall(), self._lifetime, "The result of token_refresher"
            )
        except (TypeError, ValueError) as error:
            return error.with_traceback(None)  # its frames hold the token

    def info(self, token: AccessToken) -> RedactedAccessTokenInfo:
        """Return a token with the time at which to ask again."""
        refresh_on = _refresh.refresh_on(self.state, token, self.clock.now())
        return RedactedAccessTokenInfo(token.token, token.expires_on, refresh_on=refresh_on)

    def _latest(self) -> Snapshot:
        snapshot = self.snapshot
        while snapshot.next:
            # Another thread in this loop might put the old one back for a moment.
            wall, mono, *_ = snapshot.fast
            snapshot.fast = (wall, mono, -INFINITY, -INFINITY, None)
            snapshot = self.snapshot = snapshot.next["next"]
        return snapshot

    def _follow(self, snapshot: Snapshot, state: State, *, is_fast: bool = True) -> bool:
        """Make a state the successor of a snapshot; return whether no other thread was faster."""
        successor = Snapshot(state, self.clock, is_fast=is_fast)
        if snapshot.next.setdefault("next", successor) is not successor:
            return False
        self._latest()  # ends the one before
        return True

    def _replace(
        self, change: Callable[[State], State], *, anyway: bool = False, is_fast: bool = True
    ) -> tuple[State, State]:
        """Replace the state with what a function makes of it; return both."""
        while True:
            snapshot = self._latest()
            state = change(snapshot.state)
            if state is snapshot.state and not anyway:
                return state, state
            if self._follow(snapshot, state, is_fast=is_fast):
                return snapshot.state, state

    def _report_static(self, state: State) -> None:
        """Log once that a static token has expired."""
        assert state.token is not None
        if self.clock.wall() < state.token.expires_on:
            return
        before, after = self._replace(lambda s: s if s.reported else replace(s, reported=True))
        if before is after:
            return
        _LOGGER.warning(
            "The token has expired and cannot be refreshed, so requests will be refused: pass a "
            "token_refresher to the credential, or create a new one with a new token"
        )

    def _report(self, state: State, now: Now, refresh: Refresh) -> None:
        left = _refresh.life_left(state, now)
        if refresh.token is not None:
            _LOGGER.debug("The token is valid for another %.0f seconds", left)
        elif refresh.error is not None and left > 0 and refresh.claims is None:
            _LOGGER.warning(
                "Token refresh failed; the token is valid for another %.0f seconds, and the next "
                "attempt is in %.0f seconds",
                left,
                left - state.next_left,
                exc_info=refresh.error,
            )
        elif refresh.error is not None and refresh.ahead:
            _LOGGER.warning(
                "Token refresh failed, and the token has expired", exc_info=refresh.error
            )


class CachedTokenCredential:
    """What both credentials have in common. A credential has a cache but is not one."""

    __slots__ = ("__weakref__", "_cache")

    _cache: TokenCache
    _clock: Clock = SYSTEM_CLOCK

    def invalidate_token(self, token: str) -> None:
        """Drop a token that the service refused, so that the next call fetches another.

        This has no effect unless the credential holds that very token: if ten clients are refused
        the same token, one refresh follows. A token that is refused within 30 seconds of its issue
        counts as a failure; after several in a row, the next refresh is held back for up to 30
        seconds, and until then ``get_token`` raises a
        :class:`~azure.core.exceptions.ClientAuthenticationError`. A static token cannot be
        replaced, so it is kept. Does not block; may be called from any thread.

        :param str token: The token that was sent.
        """
        self._cache.invalidate(token)

    def __repr__(self) -> str:
        cache = getattr(self, "_cache", None)  # missing if the constructor has failed
        if cache is None:
            status = "not constructed"
        elif cache.state.closed:
            status = "closed"
        elif cache.state.token is None:
            status = "no token yet"
        else:
            status = f"expires_on={cache.state.token.expires_on}"
        return f"<{type(self).__name__}: {status}>"

    def __reduce__(self) -> NoReturn:
        msg = (
            f"A {type(self).__name__} cannot be pickled or copied: it holds a secret. Create one "
            "in each process; within a process, share the object itself"
        )
        raise TypeError(msg)


def _do_surely(step: Callable[[], None]) -> None:
    """Do something that may be repeated, and do it again if an interrupt cut it short."""
    try:
        step()
    except BaseException:
        step()
        raise


def nowhere() -> None:
    """Stand in for the loop reference of a cache that is on no loop's schedule."""


def error_to_raise(decision: Decision, led: Refresh | None) -> Exception:
    """Return the error that a caller raises: the leader the original, others a copy of their own.

    :param Decision decision: What the caller was told.
    :param led: The refresh that the caller has led, if it has led one.
    :type led: Refresh or None
    :return: The error.
    :rtype: Exception
    """
    assert decision.error is not None
    if decision.refresh is not None:
        if decision.refresh is led:
            return decision.error
        error = detached(decision.error)
        set_field(error, "__cause__", decision.error)
        return error
    if decision.retry_in is None:
        return decision.error
    error = detached(decision.error)
    # As add_note(), which Python 3.10 does not have, and a class may refuse.
    notes = vars(error).setdefault("__notes__", [])
    notes.append(f"The next refresh attempt is in {decision.retry_in:.1f} seconds.")
    return error
