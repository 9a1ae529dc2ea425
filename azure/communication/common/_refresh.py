"""The rules: when to refresh a token, and what becomes of the outcome. Time is an argument.

Theory of operation
-------------------
All that a credential knows about its token is one immutable :class:`State`. Whoever changes it has
the next one computed here. Nothing in this module knows about threads, loops, locks or clocks, so
both credentials share it, and a model check can explore all that may happen.

How long a token is still *valid* is the lifetime left by the wall clock or by the monotonic clock,
whichever is less: a suspended machine stops the second, a corrected clock moves the first, and
either alone would be wrong. For the same reason no time of a refresh is kept as a moment:
``next_left`` is the lifetime that will be left then, and :func:`due` turns it into seconds from
now.

What a caller does (:func:`decide`):

====================  =====================  =====================  =========================
the token             no refresh             on hold                a refresh in progress
====================  =====================  =====================  =========================
valid                 return it; in the      return it              return it
                      window, lead a refresh
none, or expired      lead a refresh         raise the last error   wait for it
valid, new claims     lead a refresh         raise the last error   wait, if it is for the same
====================  =====================  =====================  =========================

What a refresh changes (:func:`complete`):

=============================  ================================  ===============================
outcome                        with a valid token                without one
=============================  ================================  ===============================
a token that expires later     it is the token                   it is the token
one that expires no later      keep the token, try again later   it is the token
an error, an unusable token    keep the token, try again later   the callers' error; the second
                                                                 in a row begins a hold
nothing: it was abandoned      the background tries again soon   the next caller tries at once
late: another was started      counts only if it expires later   counts if it is a token
=============================  ================================  ===============================

A token that the service refused is dropped (:func:`refuse`) and never returned again. One that is
refused soon after its issue counts as a failure, or else a service that refuses every token would
cause a refresh for each request.
"""

import enum
import itertools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from ._errors import asked_by_refresher, closed, made, overdue, to_keep

INFINITY = float("inf")

ON_DEMAND_WINDOW_SECONDS = 120  # callers refresh at T-2 min, as the .NET and Python libraries do
PROACTIVE_WINDOW_SECONDS = 600  # and the background at T-10 min
REFRESH_SECONDS = 60  # longer than three attempts of ten seconds with their back-off
LONGEST_SPREAD_SECONDS = 3600  # after expiry, of what fails in an outage
RETRY_FLOOR_SECONDS = 5  # between attempts that no caller waits for
FIRST_HOLD_SECONDS, LONGEST_HOLD_SECONDS = 0.5, 30
LONGEST_RETRY_AFTER_SECONDS = 120
PATIENCE_SECONDS = 10  # for a refresh that the caller has started while its token is still valid
# azure-core's policy may keep a token for 60 s past its refresh_on; 15 s remain for the request.
POLICY_MARGIN_SECONDS = 75
# A token that is refused, or asked for again with the same claims, this soon after its issue shows
# that another one will not help.
YOUNG_SECONDS = 30

_numbers = itertools.count(1)


class Now(NamedTuple):
    """One reading of both clocks, in seconds, and the process that reads them."""

    wall: float
    mono: float
    process: int = 0


class Refresh:
    """One refresh, from the request for it to its outcome.

    It is *in progress* while it is one of the state's ``refreshes``. Then it has a leader: a
    thread, or a task of an event loop.

    :param claims: The claims that the token has to carry.
    :type claims: str or None
    :keyword bool ahead: Whether the background asks, before callers have to.
    """

    __slots__ = (
        "ahead",
        "claims",
        "deadline_at",
        "error",
        "expires_at",
        "is_complete",
        "number",
        "process",
        "token",
    )

    def __init__(self, claims: str | None = None, *, ahead: bool = False) -> None:
        self.claims = claims
        self.ahead = ahead
        self.number = next(_numbers)  # what running code remembers of the refresh it is part of
        self.deadline_at = INFINITY
        """When it is overdue, by the monotonic clock. Infinite if it never was in progress."""
        self.process = 0
        self.is_complete = False
        self.token: AccessToken | None = None
        """What it brought, for callers that asked for its claims."""
        self.expires_at = -INFINITY
        """The expiry of ``token`` by the monotonic clock."""
        self.error: Exception | None = None
        """What its waiters are told, unless there is a token for them."""

    def is_lost(self, now: Now) -> bool:
        """Return whether its leader is gone: a thread or loop that a forked child does not have."""
        return self.process != now.process

    def is_overdue(self, now: Now) -> bool:
        """Return whether it has taken longer than a refresh may."""
        return now.mono >= self.deadline_at

    def is_worth_waiting_for(self, now: Now) -> bool:
        """Return whether it can be expected to end; if not, another caller may start a new one."""
        return not self.is_overdue(now) and not self.is_lost(now)


class Refused(NamedTuple):
    """The hash of a token that the service refused, and until when it could be valid."""

    digest: int
    expires_on: float
    deadline_at: float


@dataclass(frozen=True, slots=True)
class State:
    """All that is known about the token of one credential. Times are seconds.

    ``*_on`` is wall-clock time, ``*_at`` monotonic time, ``*_left`` life of the token.
    """

    proactive: bool = False
    static: bool = False
    closed: bool = False
    token: AccessToken | None = None
    deadline_at: float = -INFINITY
    """The token's expiry by the monotonic clock."""
    obtained_at: float = -INFINITY
    window: float = 0.0
    """The lifetime left at which callers start a refresh."""
    next_left: float = 0.0
    """The lifetime left at which a caller or the background may try next."""
    earliest_left: float = 0.0
    """The same for the background, where many are due together; at the earliest."""
    latest_left: float = 0.0
    """At the latest; less than 0 if that is after the token's expiry."""
    claims: str | None = None
    claims_at: float = -INFINITY
    """When a refresh last brought a token for ``claims``."""
    refreshes: tuple[Refresh, ...] = ()
    """Those in progress."""
    hung: tuple[Refresh, ...] = ()
    """Overdue ones of the background that callers have replaced. Each may occupy a worker yet."""
    hold_until: float = -INFINITY
    """Until then ``error`` is raised where there is no valid token, by the monotonic clock."""
    background_at: float = -INFINITY
    """The background does not try before this time, by the monotonic clock."""
    error: Exception | None = None
    failures: int = 0
    """How many refreshes in a row failed with no valid token at hand."""
    refused: tuple[Refused, ...] = ()
    refusals: int = 0
    """How many tokens in a row were refused while they were young."""
    reported: bool = False
    """Whether the expiry of a static token has been logged."""


class Action(enum.Enum):
    """What a caller does next."""

    RETURN = enum.auto()
    LEAD = enum.auto()
    WAIT = enum.auto()
    RAISE = enum.auto()
    NOTHING = enum.auto()


class Decision(NamedTuple):
    """What a caller does next, and with what."""

    action: Action
    token: AccessToken | None = None
    refresh: Refresh | None = None
    """The refresh to lead or to wait for."""
    patience: float = 0.0
    """How many seconds to wait before asking again."""
    error: Exception | None = None
    retry_in: float | None = None
    """The seconds until the end of the hold, during which ``error`` is raised."""


NOTHING = Decision(Action.NOTHING)

Outcome: TypeAlias = AccessToken | Exception | None
"""What a refresh ends with; None if it was abandoned, as by an interrupt."""


class Due(NamedTuple):
    """How many seconds from now the background should refresh, unless too many are due then."""

    earliest: float
    preferred: float
    latest: float


def life_left(state: State, now: Now) -> float:
    """Return how many seconds the token is still valid; 0 or less if it is not, or is missing."""
    if state.token is None:
        return 0.0
    return min(state.token.expires_on - now.wall, state.deadline_at - now.mono)


def start(state: State, token: AccessToken, now: Now, claims: str | None = None) -> State:
    """Return the state in which ``token`` is the current one.

    :param State state: What was known before.
    :param ~azure.core.credentials.AccessToken token: The new token.
    :param Now now: The time.
    :param claims: The claims that it was obtained for.
    :type claims: str or None
    :return: The new state.
    :rtype: State
    """
    life = token.expires_on - now.wall
    window = min(ON_DEMAND_WINDOW_SECONDS, life / 2)
    ahead = min(PROACTIVE_WINDOW_SECONDS, life / 2) if state.proactive else window
    was_accepted = state.token is not None and now.mono >= state.obtained_at + YOUNG_SECONDS
    return State(
        proactive=state.proactive,
        static=state.static,
        token=token,
        deadline_at=now.mono + life,
        obtained_at=now.mono,
        window=window,
        next_left=0.0 if state.static else ahead,
        earliest_left=life / 2,
        latest_left=ahead,
        claims=claims,
        claims_at=now.mono,
        refreshes=state.refreshes,
        hung=state.hung,
        refused=state.refused,
        refusals=0 if was_accepted else state.refusals,
    )


def decide(
    state: State,
    now: Now,
    request: Refresh,
    waited: Refresh | None = None,
    inside: frozenset[int] = frozenset(),
) -> Decision:
    """Decide what a caller does next.

    :param State state: What is known about the token.
    :param Now now: The time.
    :param Refresh request: What the caller asks for; the refresh to lead, if it is to lead one.
    :param waited: The refresh that the caller has led or waited for. It may have ended, or not.
    :type waited: Refresh or None
    :param inside: The numbers of the refreshes that the caller is part of.
    :type inside: frozenset[int]
    :return: What to do.
    :rtype: Decision
    """
    if state.static and not state.closed:
        return Decision(Action.RETURN, state.token)
    if request.ahead:
        return _decide_ahead(state, now, request)
    if state.closed:
        return Decision(Action.RAISE, error=closed())
    left = life_left(state, now)
    valid = state.token if left > 0 else None
    decision = _decide(state, now, request, waited, valid)
    if decision.action in (Action.LEAD, Action.WAIT) and any(
        refresh.number in inside and not refresh.is_lost(now) for refresh in state.refreshes
    ):  # a refresher must not wait for itself
        if valid is None:
            return Decision(Action.RAISE, error=asked_by_refresher())
        return Decision(Action.RETURN, valid)
    if decision.action is Action.LEAD and valid is not None and request.claims is None:
        return decision._replace(patience=min(PATIENCE_SECONDS, left / 2))
    return decision


def _decide(
    state: State, now: Now, request: Refresh, waited: Refresh | None, valid: AccessToken | None
) -> Decision:
    claims = request.claims
    in_progress = find_in_progress(state, now, claims)
    if claims is None and valid is not None:
        is_early = life_left(state, now) > min(state.window, state.next_left)
        if is_early or in_progress is not None or waited is not None:
            return Decision(Action.RETURN, valid)
        return _to_lead(request)
    if waited is not None and waited not in state.refreshes:
        if waited.error is not None:
            return Decision(Action.RAISE, refresh=waited, error=waited.error)
        if claims is not None and is_usable(state, now, waited):
            return Decision(Action.RETURN, waited.token)
    is_met = claims is not None and claims == state.claims and valid is not None
    if is_met and now.mono < state.claims_at + YOUNG_SECONDS:
        return Decision(Action.RETURN, valid)
    if in_progress is not None:
        return Decision(
            Action.WAIT, refresh=in_progress, patience=in_progress.deadline_at - now.mono
        )
    if waited is not None and waited in state.refreshes and not waited.is_lost(now):
        # Another one might hang as well: this caller may be part of it, on a thread that the
        # refresher started and that is not known here.
        return Decision(Action.RAISE, error=overdue(REFRESH_SECONDS))
    if now.mono < state.hold_until and state.error is not None:
        return Decision(Action.RAISE, error=state.error, retry_in=state.hold_until - now.mono)
    return _to_lead(request)


def _to_lead(request: Refresh) -> Decision:
    return Decision(Action.LEAD, refresh=request, patience=REFRESH_SECONDS)


def _decide_ahead(state: State, now: Now, request: Refresh) -> Decision:
    """Decide for the background: lead a refresh, or do nothing; a timer asks again."""
    if state.closed or now.mono < max(state.hold_until, state.background_at):
        return NOTHING
    left = life_left(state, now)
    if left > max(state.earliest_left, state.next_left):  # a caller was faster
        return NOTHING
    return NOTHING if _blocked_until(state, now) > now.mono else _to_lead(request)


def _blocked_until(state: State, now: Now) -> float:
    """Return when the background need no longer consider the refreshes in progress.

    An overdue one that it leads itself may occupy a worker forever, so it does not start another.
    """
    times = [
        max(refresh.deadline_at, now.mono + REFRESH_SECONDS if refresh.ahead else -INFINITY)
        for refresh in (*state.refreshes, *state.hung)
        if not refresh.is_lost(now)
    ]
    return max(times, default=-INFINITY)


def find_in_progress(state: State, now: Now, claims: str | None) -> Refresh | None:
    """Return a refresh that is worth waiting for; one with claims also serves callers without."""
    for refresh in state.refreshes:
        if claims in (None, refresh.claims) and refresh.is_worth_waiting_for(now):
            return refresh
    return None


def is_usable(state: State, now: Now, refresh: Refresh) -> bool:
    """Return whether what a refresh brought may still be returned."""
    token = refresh.token
    return (
        token is not None
        and token.expires_on > now.wall
        and refresh.expires_at > now.mono
        and not is_refused(state, token)
    )


def lead(state: State, now: Now, refresh: Refresh) -> State:
    """Return the state with a refresh in progress, without those not worth waiting for."""
    refresh.deadline_at = now.mono + REFRESH_SECONDS
    refresh.process = now.process
    others = tuple(r for r in state.refreshes if r.is_worth_waiting_for(now))
    hung = tuple(r for r in state.refreshes if r.ahead and r.is_overdue(now))
    return replace(state, refreshes=(*others, refresh), hung=(*state.hung, *hung))


def complete(state: State, now: Now, refresh: Refresh, outcome: Outcome, jitter: float) -> State:
    """Return the state after a refresh has ended, and record in it what its waiters are told.

    Completing it again changes nothing, because it then counts as late.

    :param State state: What was known before.
    :param Now now: The time.
    :param Refresh refresh: The refresh.
    :param outcome: What it ended with: a token, an error, or None if it was abandoned.
    :type outcome: ~azure.core.credentials.AccessToken or Exception or None
    :param float jitter: A random number from 0 to 1 that shortens a hold by up to a fifth.
    :return: The new state.
    :rtype: State
    """
    if state.closed:
        refresh.error = closed()
        return state
    is_late = refresh not in state.refreshes
    before = state
    if not is_late or refresh in state.hung:
        state = replace(
            state,
            refreshes=tuple(r for r in state.refreshes if r is not refresh),
            hung=tuple(r for r in state.hung if r is not refresh),
        )
    if isinstance(outcome, AccessToken):
        outcome = _check_token(before, outcome, now)
    if isinstance(outcome, AccessToken):
        refresh.token, refresh.error = outcome, None
        refresh.expires_at = now.mono + outcome.expires_on - now.wall
        if before.token is not None and before.token.token == outcome.token:
            # The clock may have been set back since it was issued; if its expiry is later, it is a
            # new one.
            is_prolonged = outcome.expires_on > before.token.expires_on
            refresh.expires_at = refresh.expires_at if is_prolonged else before.deadline_at
        return _succeed(state, outcome, now, None if is_late else refresh.claims, is_late=is_late)
    if outcome is None:
        return state if is_late else _abandon(state, now)
    refresh.token, refresh.error = None, outcome
    return state if is_late else _fail(state, outcome, now, refresh.claims, jitter)


def _check_token(state: State, token: AccessToken, now: Now) -> AccessToken | ValueError:
    """Return the token if it can be used, and otherwise what is wrong with it."""
    held = state.token
    is_held = held and token.token == held.token and token.expires_on <= held.expires_on
    if token.expires_on <= now.wall or (is_held and life_left(state, now) <= 0):
        return ValueError(
            f"token_refresher returned a token that has expired (expires_on {token.expires_on}, "
            f"local clock {now.wall:.0f}): return a newly issued token, and check the clock"
        )
    if is_refused(state, token):
        return ValueError(
            "token_refresher returned a token that the service rejected: bypass any cache in "
            "front of the issuer, and return a newly issued token"
        )
    return token


def _succeed(
    state: State, token: AccessToken, now: Now, claims: str | None, *, is_late: bool
) -> State:
    """Return the state after a refresh that brought a usable token.

    One that expires no later than the current token is no improvement: the current one stays, and
    the next attempt comes as if this one had failed. An issuer with its own cache returns the same
    token until shortly before it expires.
    """
    left = life_left(state, now)
    if state.token is not None and left > 0 and token.expires_on <= state.token.expires_on:
        if claims is None:
            return state if is_late else _postpone(state, left, 0)
        if token.token == state.token.token:
            return replace(state, claims=claims, claims_at=now.mono)
    return start(state, token, now, claims)


def _fail(state: State, error: Exception, now: Now, claims: str | None, jitter: float) -> State:
    left, wait = life_left(state, now), retry_after(error)
    if left > 0:
        if wait:
            hold_until = max(state.hold_until, now.mono + wait)
            state = replace(state, hold_until=hold_until, error=to_keep(error))
        # Claims that cannot be met say nothing about the valid token.
        if claims is not None:
            return state
        return replace(_postpone(state, left, wait), latest_left=-LONGEST_SPREAD_SECONDS)
    failures = state.failures + 1
    hold = max(_hold(failures, jitter), wait)
    return replace(
        state,
        failures=failures,
        hold_until=max(state.hold_until, now.mono + hold),  # another may have set a longer hold
        background_at=now.mono + max(RETRY_FLOOR_SECONDS, hold),
        error=to_keep(error),
    )


def _abandon(state: State, now: Now) -> State:
    """Return the state after a refresh that was abandoned: the background tries again soon."""
    return replace(state, background_at=now.mono + RETRY_FLOOR_SECONDS)


def _postpone(state: State, left: float, wait: float) -> State:
    """Return the state in which a valid token is kept and the next attempt comes later."""
    until_due = left - state.next_left  # more than 0 if the token was still fresh
    pause = max(until_due, min(max(RETRY_FLOOR_SECONDS, left / 2, wait), left))
    next_left = left - pause
    return replace(state, next_left=next_left, earliest_left=next_left, latest_left=0.0)


def refuse(state: State, now: Now, jitter: float) -> State:
    """Return the state after the service did not accept the current token.

    :param State state: What is known; its token is the refused one.
    :param Now now: The time.
    :param float jitter: A random number from 0 to 1 that shortens a hold by up to a fifth.
    :return: The new state, without a token.
    :rtype: State
    """
    token = state.token
    assert token is not None
    is_young = now.mono < state.obtained_at + YOUNG_SECONDS
    refusals = state.refusals + 1 if is_young else 1
    hold = _hold(refusals, jitter)
    error: Exception | None = state.error
    if hold:
        msg = (
            f"The service rejected {refusals} tokens in a row, each within {YOUNG_SECONDS} "
            "seconds of its issue: check that they are issued by the resource that the client "
            "talks to, for an existing user and with the scopes it needs"
        )
        error = made(ClientAuthenticationError, msg)
    refused = Refused(hash(token.token), token.expires_on, state.deadline_at)
    return State(
        proactive=state.proactive,
        refreshes=state.refreshes,
        hung=state.hung,
        refused=(*_still_valid(state.refused, now), refused),
        refusals=refusals,
        hold_until=max(state.hold_until, now.mono + hold),
        background_at=now.mono + max(RETRY_FLOOR_SECONDS, hold),
        error=error,
    )


def is_refused(state: State, token: AccessToken) -> bool:
    """Return whether it is a token that the service has refused."""
    digest = hash(token.token)
    return any(refused.digest == digest for refused in state.refused)


def _still_valid(refused: tuple[Refused, ...], now: Now) -> tuple[Refused, ...]:
    return tuple(r for r in refused if r.expires_on > now.wall or r.deadline_at > now.mono)


def due(state: State, now: Now) -> Due | None:
    """Return when the background should refresh next, or None if it never should.

    Where many are due together, a valid token may be refreshed earlier, from half of its lifetime
    on. What failed before may be tried later, up to an hour after the token's expiry, because
    callers refresh for themselves by then.
    """
    if state.closed or not state.proactive:
        return None
    hold_until = max(state.hold_until, state.background_at, _blocked_until(state, now))
    hold = max(hold_until - now.mono, 0.0)
    left = life_left(state, now)
    if left > 0:
        preferred = max(left - state.next_left, hold)
        earliest = max(left - max(state.earliest_left, state.next_left), hold)
        latest = max(left - state.latest_left, preferred)
        return Due(earliest, preferred, latest)
    has_failed = state.background_at > -INFINITY
    return Due(hold, hold, hold + LONGEST_SPREAD_SECONDS if has_failed else hold)


def refresh_on(state: State, token: AccessToken, now: Now) -> int | None:
    """Return when azure-core's policy should ask for the token again, in Unix seconds."""
    if state.static:
        return None
    latest = float(token.expires_on - POLICY_MARGIN_SECONDS)
    if state.token is token:
        by_mono = now.wall + (state.deadline_at - now.mono) - state.next_left
        # Both say the same unless a clock was set; rounded, as their sums differ in the last bit.
        latest = min(latest, token.expires_on - state.next_left, round(by_mono, 3))
    return int(latest)


def _hold(nth: int, jitter: float) -> float:
    """Return for how many seconds nobody tries after the nth failure in a row."""
    if nth < 2:
        return 0.0  # the user's own retry comes first
    longest = min(LONGEST_HOLD_SECONDS, FIRST_HOLD_SECONDS * 2.0 ** min(nth - 2, 10))
    return longest * (1 - jitter / 5)


def retry_after(error: Exception) -> float:
    """Return the seconds that an HTTP error asks to wait (RFC 9110, section 10.2.3), or 0."""
    response: Any
    try:
        response = error.response  # type: ignore[attr-defined]
        wait = int(response.headers.get("Retry-After", 0))
    except Exception:  # noqa: BLE001 - not an HTTP error, or an HTTP date
        return 0.0
    return float(min(max(wait, 0), LONGEST_RETRY_AFTER_SECONDS))
