"""The rules: when to refresh a token, and what becomes of the outcome. Time is an argument.

Theory of operation
-------------------
Everything that a credential knows about its token is one immutable :class:`State`. Callers read it
once; whoever changes it computes the next one here and stores it in a single assignment. Nothing in
this module knows a thread, a loop, a lock or a clock, so the synchronous and the asynchronous
credential share it and its tests need no sleep.

A token is *valid* while it has life left by both the wall clock and the monotonic clock: a
suspended machine stops the second, a corrected clock moves the first, and either alone would be
wrong.

=============  ========================  ============================  =======================
token          nothing under way         on hold                       refresh under way
=============  ========================  ============================  =======================
valid          return it; in the window  return it                     return it
               start a refresh
none, expired  start a refresh           raise the last failure again  wait for it
with claims    start a refresh           raise the last failure again  wait for one of the
                                         (with no valid token)         same claims
=============  ========================  ============================  =======================

A failed refresh of a valid token is nobody's business but the log's: the token stays, and the next
try comes after half of the life that is left. Without a valid token the caller gets the failure;
the next call may try at once, later ones are spaced. A token that the service refused is dropped,
and one that is refused soon after it was issued counts as a failure, or a service that refuses
every token would have us fetch one for each request.
"""

import copy
import enum
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

INFINITY = float("inf")

ON_DEMAND_WINDOW_SECONDS = 120  # callers refresh at T-2 min, as the .NET and Python libraries do
PROACTIVE_WINDOW_SECONDS = 600  # and the background at T-10 min
FLIGHT_SECONDS = 60  # longer than three tries of ten seconds with their back-off
RETRY_FLOOR_SECONDS = 5  # between tries that no caller waits for
FIRST_HOLD_SECONDS, LONGEST_HOLD_SECONDS = 0.5, 30
LONGEST_RETRY_AFTER_SECONDS = 120
CLOCK_CHECK_SECONDS = 30  # how long a suspended machine or a clock that was set goes unnoticed
PATIENCE_SECONDS = 10  # that the caller who started a refresh waits with a valid token in hand
# azure-core's policy may keep a token for 60 s past its refresh_on; 15 s remain for the request.
POLICY_MARGIN_SECONDS = 75
# A token that is refused, or asked for again with the same claims, so soon after its issue tells
# that another one will not help.
YOUNG_SECONDS = 30


class Now(NamedTuple):
    """One reading of both clocks, in seconds."""

    wall: float
    mono: float


@dataclass(frozen=True, slots=True)
class State:
    """All that is known about the token of one credential. Times are seconds.

    ``*_on`` is wall-clock time, ``*_at`` monotonic time.
    """

    token: AccessToken | None = None
    deadline_at: float = -INFINITY
    """The token's expiry by the monotonic clock."""
    window: float = 0.0
    """How long before expiry callers start a refresh."""
    ask_on: float = -INFINITY
    ask_at: float = -INFINITY
    """Until this moment by both clocks a valid token is returned without another thought."""
    due_on: float = INFINITY
    """When the background should refresh it."""
    obtained_at: float = -INFINITY
    claims: str | None = None
    """The claims that the token was obtained for."""
    refused: int | None = None
    """The hash of the last token that the service did not accept; the text is no longer needed."""
    refusals: int = 0
    """How many tokens in a row were refused while they were young."""
    failures: int = 0
    """How many refreshes in a row failed with no valid token at hand."""
    retry_at: float = -INFINITY
    error: Exception | None = None
    """What is raised until ``retry_at``."""
    closed: bool = False


CLOSED = State(closed=True)


class Flight:
    """One refresh under way, and its result once it is over.

    A flight that was given up (its caller was interrupted, its loop closed) ends with neither token
    nor error, and those who waited for it decide anew.
    """

    __slots__ = ("ahead", "claims", "error", "started_at", "token")

    def __init__(self, claims: str | None, started_at: float, *, ahead: bool) -> None:
        self.claims = claims
        self.started_at = started_at
        self.ahead = ahead  # started by the background, so that no caller learns of a failure
        self.token: AccessToken | None = None
        self.error: Exception | None = None

    def is_lost(self) -> bool:
        """Tell whether it can never end, so that nobody should wait for it."""
        return False

    def is_overdue(self, now: Now) -> bool:
        """Tell whether a newcomer may start another one."""
        return now.mono >= self.started_at + FLIGHT_SECONDS or self.is_lost()


class Failure(NamedTuple):
    """Why a refresh failed, and for how many seconds the issuer asked to be left alone."""

    error: Exception
    wait: float = 0.0


class Action(enum.Enum):
    """What a caller does next."""

    RETURN = enum.auto()
    REFRESH = enum.auto()
    WAIT = enum.auto()
    RAISE = enum.auto()


def life_left(state: State, now: Now) -> float:
    """Return how many seconds the token is still valid; at most 0 if it is not or there is none."""
    if state.token is None:
        return 0.0
    return min(state.token.expires_on - now.wall, state.deadline_at - now.mono)


def decide(
    state: State,
    now: Now,
    *,
    claims: str | None = None,
    ahead: bool = False,
    under_way: bool = False,
) -> Action:
    """Decide what a caller does next.

    :param State state: What is known about the token.
    :param Now now: The time.
    :keyword claims: Claims that the token has to carry.
    :paramtype claims: str or None
    :keyword bool ahead: True for the background, which refreshes before callers have to.
    :keyword bool under_way: Whether a refresh that would serve this caller is under way.
    :return: What to do.
    :rtype: Action
    """
    if state.closed:
        return Action.RAISE
    left = life_left(state, now)
    if claims is None and left > 0:
        on_hold = now.wall < state.ask_on and now.mono < state.ask_at
        early = not ahead and (on_hold or left > state.window)
        return Action.RETURN if early or under_way else Action.REFRESH
    is_young = now.mono < state.obtained_at + YOUNG_SECONDS
    if claims is not None and claims == state.claims and left > 0 and is_young:
        return Action.RETURN
    if under_way:
        return Action.WAIT
    return Action.RAISE if now.mono < state.retry_at else Action.REFRESH


def start(state: State, token: AccessToken, now: Now, *, proactive: bool) -> State:
    """Return the state in which ``token`` is the current one.

    :param State state: What was known before; its count of refusals goes on.
    :param ~azure.core.credentials.AccessToken token: The new token.
    :param Now now: The time.
    :keyword bool proactive: Whether the background should refresh it.
    :return: The new state.
    :rtype: State
    """
    life = token.expires_on - now.wall
    window = min(ON_DEMAND_WINDOW_SECONDS, life / 2)
    ahead = min(PROACTIVE_WINDOW_SECONDS, life / 2) if proactive else window
    ask_on = float(token.expires_on - ahead)  # comparing a float with an int takes twice as long
    return State(
        token=token,
        deadline_at=now.mono + life,
        window=window,
        ask_on=ask_on,
        ask_at=now.mono + (ask_on - now.wall),
        due_on=ask_on if proactive else INFINITY,
        obtained_at=now.mono,
        refused=state.refused,
        refusals=state.refusals,
    )


def due_range(state: State, now: Now) -> tuple[float, float]:
    """Return the earliest and the latest time for the background to refresh a token.

    The latest is when it is due; the earliest, for the sake of many that are due together, is at
    half of the life that is left.

    :param State state: What is known about the token.
    :param Now now: The time.
    :return: Both as Unix time in seconds, infinite if the background has nothing to do.
    :rtype: tuple[float, float]
    """
    left = life_left(state, now)
    half = now.wall + left / 2 if left > 0 else INFINITY
    return min(half, state.due_on), state.due_on


def check_result(state: State, token: AccessToken, now: Now) -> None:
    """Check that a refresh brought a token that can be used.

    :raises ValueError: If it has expired, or is the one that the service refused.
    """
    held = state.token
    is_held = held and token.token == held.token and token.expires_on <= held.expires_on
    if token.expires_on <= now.wall or (is_held and life_left(state, now) <= 0):
        msg = (
            f"the refresh returned a token that has expired (its expires_on is {token.expires_on}, "
            f"the local clock says {now.wall:.0f}). Return a newly issued token, and check the "
            "clock."
        )
        raise ValueError(msg)
    if hash(token.token) == state.refused:
        msg = (
            "the refresh returned the very token that the service has refused. Return a newly "
            "issued one: a cache in front of the issuer must not answer here."
        )
        raise ValueError(msg)


def succeed(
    state: State, token: AccessToken, now: Now, claims: str | None, *, proactive: bool
) -> State:
    """Return the state after a refresh that brought a usable token.

    One that expires no later than the current token is no progress: the current one stays, and the
    next try comes as if this one had failed. An issuer with a cache of its own hands out the same
    token until shortly before it expires.
    """
    left = life_left(state, now)
    if state.token is not None and left > 0 and token.expires_on <= state.token.expires_on:
        if claims is None:
            return _postpone(state, left, now)
        if token.token == state.token.token:
            return replace(state, claims=claims, obtained_at=now.mono)
    return replace(start(state, token, now, proactive=proactive), claims=claims)


def fail(
    state: State, failure: Failure, now: Now, claims: str | None, *, jitter: float, proactive: bool
) -> State:
    """Return the state after a failed refresh.

    :param State state: What was known before.
    :param Failure failure: Why it failed.
    :param Now now: The time.
    :param claims: The claims it was for. Their failure says nothing about a valid token.
    :type claims: str or None
    :keyword float jitter: A random number from 0 to 1 that shortens a hold by up to a fifth.
    :keyword bool proactive: Whether the background goes on trying.
    :return: The new state.
    :rtype: State
    """
    left = life_left(state, now)
    error, wait = failure
    if left > 0:
        if wait:
            state = replace(state, retry_at=now.mono + wait, error=error)
        return state if claims is not None else _postpone(state, left, now, wait)
    failures = state.failures + 1
    hold = max(_hold(failures, jitter), wait)
    return replace(
        state,
        failures=failures,
        retry_at=now.mono + hold,
        error=error,
        due_on=now.wall + max(RETRY_FLOOR_SECONDS, hold) if proactive else INFINITY,
    )


def give_up(state: State, now: Now) -> State:
    """Return the state after a refresh that ended in nothing: the background tries again soon."""
    soon = now.wall + RETRY_FLOOR_SECONDS
    return state if state.due_on >= soon else replace(state, due_on=soon)


def refuse(state: State, now: Now, *, jitter: float) -> State:
    """Return the state after the service did not accept the current token.

    :param State state: What is known; its token is the refused one.
    :param Now now: The time.
    :keyword float jitter: A random number from 0 to 1 that shortens a hold by up to a fifth.
    :return: The new state, without a token.
    :rtype: State
    """
    assert state.token is not None
    young = now.mono < state.obtained_at + YOUNG_SECONDS
    refusals = state.refusals + 1 if young else 1
    hold = _hold(refusals, jitter)
    error: Exception | None = state.error
    if hold:
        error = ClientAuthenticationError(
            message=f"The service has refused {refusals} tokens in a row, each within "
            f"{YOUNG_SECONDS} seconds of its issue. Check that they are issued by the resource "
            "that the client talks to, for an existing user and with the scopes it needs."
        )
    return State(
        refused=hash(state.token.token),
        refusals=refusals,
        retry_at=max(state.retry_at, now.mono + hold),
        error=error,
    )


def refresh_on(state: State, token: AccessToken) -> int:
    """Return when azure-core's policy should ask for the token again, in Unix seconds."""
    latest = token.expires_on - POLICY_MARGIN_SECONDS
    return int(min(state.ask_on, latest)) if state.token is token else latest


def read_failure(error: Exception) -> Failure:
    """Return what is kept of a refresher's exception. It runs code of the user's."""
    return Failure(detached(error), _retry_after(error))


def detached(error: Exception) -> Exception:
    """Return a copy of an exception without its traceback, to keep or to raise elsewhere.

    Raising one object from several threads would have each of them lengthen the same traceback, and
    a kept traceback holds every variable of its frames alive.
    """
    twin: Exception
    for duplicate in (copy.copy, _copy_without_constructor):
        try:
            twin = duplicate(error)
            if type(twin) is type(error) and str(twin) == str(error):
                break
        except Exception:  # noqa: BLE001, S112 - it cannot be copied so, or not even be printed
            continue
    else:
        twin = ClientAuthenticationError(message=_describe(error))
    twin.__traceback__ = None
    notes = vars(twin).get("__notes__")
    if notes is not None:  # or a note on one would be a note on all
        vars(twin)["__notes__"] = list(notes)
    return twin


def _copy_without_constructor(error: Exception) -> Exception:
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin


def _describe(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a mistake in the user's exception class
        return type(error).__name__


def _postpone(state: State, left: float, now: Now, wait: float = 0.0) -> State:
    """Return the state in which a valid token is kept and the next try comes later."""
    quiet = min(state.ask_on - now.wall, state.ask_at - now.mono)  # of a token that is fresh
    pause = max(quiet, min(max(RETRY_FLOOR_SECONDS, left / 2, wait), left))
    ask_on = now.wall + pause
    return replace(
        state,
        ask_on=ask_on,
        ask_at=now.mono + pause,
        due_on=INFINITY if state.due_on == INFINITY else now.wall + max(pause, wait),
    )


def _hold(nth: int, jitter: float) -> float:
    """Return for how many seconds nobody tries after the nth failure in a row."""
    if nth < 2:
        return 0.0  # the user's own retry comes first
    longest = min(LONGEST_HOLD_SECONDS, FIRST_HOLD_SECONDS * 2.0 ** min(nth - 2, 10))
    return longest * (1 - jitter / 5)


def _retry_after(error: Exception) -> float:
    """Return the seconds that an HTTP error asks to wait (RFC 9110, section 10.2.3), or 0."""
    response: Any
    try:
        response = error.response  # type: ignore[attr-defined]
        wait = int(response.headers.get("Retry-After", 0))
    except Exception:  # noqa: BLE001 - no HTTP error at all, or an HTTP date
        return 0.0
    return min(max(wait, 0), LONGEST_RETRY_AFTER_SECONDS)
