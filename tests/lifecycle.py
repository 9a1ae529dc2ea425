"""What happens to a token over time: scenarios that hold for the rules and for both credentials.

A scenario starts with a token named T0 that lives for ``life`` seconds, or with none. A step says
what is done, what the issuer would answer if it were asked, how often it is asked, and what the
caller gets. Times are seconds since the start.
"""

from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError


@dataclass(frozen=True)
class Issue:
    """An answer of the issuer: a token with that name and the lifetime from then on."""

    name: str
    life: float


@dataclass(frozen=True)
class Step:
    """One step, and what must come of it."""

    do: str
    by: float = 0.0
    claims: str | None = None
    token: str | None = None
    issuer: Any = None
    calls: int = 0
    gets: Any = None
    refresh_on: float | None = None


@dataclass(frozen=True)
class Scenario:
    """Steps in order, from one initial state."""

    name: str
    life: float | None
    steps: tuple[Step, ...]
    proactive: bool = False


def ask(gets, *, issuer=None, calls=None, refresh_on=None, claims=None):
    """A caller asks; unless said otherwise, the issuer is called if it has an answer."""
    calls = int(issuer is not None) if calls is None else calls
    return Step("ask", claims=claims, issuer=issuer, calls=calls, gets=gets, refresh_on=refresh_on)


def background(issuer=None):
    """The background looks; the issuer is called if it has an answer."""
    return Step("background", issuer=issuer, calls=int(issuer is not None))


def wait(seconds):
    """Time passes."""
    return Step("wait", by=seconds)


def suspend(seconds):
    """The machine sleeps, and its monotonic clock with it."""
    return Step("suspend", by=seconds)


def set_clock(seconds):
    """The wall clock is moved."""
    return Step("set_clock", by=seconds)


def refuse(token):
    """The service refuses a token."""
    return Step("refuse", token=token)


def close():
    """The credential is closed."""
    return Step("close")


def busy(retry_after):
    """An HTTP error that says when to come back."""
    failure = HttpResponseError("busy")
    failure.response = type("Response", (), {"headers": {"Retry-After": str(retry_after)}})()
    return failure


DOWN = ConnectionError("down")
EXPIRED = Issue("old", -1)

SCENARIOS = [
    Scenario(
        "a fresh token is returned until two minutes before expiry",
        3600,
        (
            ask("T0", refresh_on=3480),
            wait(3479),
            ask("T0"),
            wait(1),
            ask("A", issuer=Issue("A", 3600), refresh_on=3480 + 3480),
            ask("A"),
        ),
    ),
    Scenario(
        "a short-lived token is refreshed half-way, not on every call",
        90,
        (ask("T0", refresh_on=15), wait(44), ask("T0"), wait(1), ask("A", issuer=Issue("A", 90))),
    ),
    Scenario(
        "without an initial token the first caller gets one",
        None,
        (ask("A", issuer=Issue("A", 3600), refresh_on=3480), ask("A")),
    ),
    Scenario(
        "a failure while the token is valid reaches nobody and is spaced",
        3600,
        (
            wait(3480),
            ask("T0", issuer=DOWN, refresh_on=3525),  # 3540, but the policy may be 60 s late
            ask("T0"),
            wait(59.9),
            ask("T0"),
            wait(0.1),
            ask("T0", issuer=DOWN),
            wait(30),
            ask("T0", issuer=DOWN),
            wait(15),
            ask("A", issuer=Issue("A", 3600)),
        ),
    ),
    Scenario(
        "tries for a valid token are at least five seconds apart",
        3600,
        (
            wait(3594),
            ask("T0", issuer=DOWN),
            wait(4.9),
            ask("T0"),
            wait(0.2),
            ask("T0", issuer=DOWN),
            wait(0.8),
            ask("T0"),
            wait(0.1),
            ask(ConnectionError, issuer=DOWN),
        ),
    ),
    Scenario(
        "an issuer that returns the same token is not asked again at once",
        3600,
        (
            wait(3480),
            ask("T0", issuer=Issue("T0", 120), refresh_on=3525),
            ask("T0"),
            wait(60),
            ask("T0", issuer=Issue("T0", 60)),
            wait(30),
            ask("A", issuer=Issue("A", 3600)),
        ),
    ),
    Scenario(
        "a token that expires sooner does not replace a valid one",
        3600,
        (wait(3480), ask("T0", issuer=Issue("A", 60)), ask("T0")),
    ),
    Scenario(
        "without a valid token the failure is the caller's, and tries are held apart",
        100,
        (
            wait(100),
            ask(ConnectionError, issuer=DOWN),
            ask(ConnectionError, issuer=DOWN),
            ask(ConnectionError),
            wait(0.5),
            ask(ValueError, issuer=ValueError("other")),
            ask(ValueError),
            wait(0.9),
            ask(ValueError),
            wait(0.1),
            ask("A", issuer=Issue("A", 3600)),
            wait(3600),
            ask(ConnectionError, issuer=DOWN),
            ask("B", issuer=Issue("B", 3600)),
        ),
    ),
    Scenario(
        "an issuer that says when to come back is not asked sooner",
        None,
        (
            ask(HttpResponseError, issuer=busy(20)),
            wait(19.9),
            ask(HttpResponseError),
            wait(0.1),
            ask("A", issuer=Issue("A", 3600)),
        ),
    ),
    Scenario(
        "an expired token is never returned, whatever the issuer does",
        10,
        (
            wait(10),
            ask(ValueError, issuer=EXPIRED),
            ask(TypeError, issuer=None, calls=1),
            wait(0.5),
            ask(TypeError, issuer=5),
            wait(1),
            ask(ValueError, issuer="garbage"),
            wait(2),
            ask(ValueError, issuer=""),
            wait(4),
            ask("A", issuer=Issue("A", 1)),
            wait(1),
            ask("B", issuer=Issue("B", 1)),
        ),
    ),
    Scenario(
        "an unusable answer leaves a valid token alone",
        100,
        (
            wait(50),
            ask("T0", issuer=EXPIRED),
            wait(25),
            ask("T0", issuer=5),
            wait(12.5),
            ask("T0", issuer="garbage"),
        ),
    ),
    Scenario(
        "a suspended machine does not serve the token that expired meanwhile",
        3600,
        (suspend(10_800), ask("A", issuer=Issue("A", 3600))),
    ),
    Scenario(
        "a wall clock that is set back does not prolong a token",
        3600,
        (wait(3000), set_clock(-3600), wait(480), ask("A", issuer=Issue("A", 7200))),
    ),
    Scenario(
        "a clock that is set forward ends a token early",
        3600,
        (set_clock(3600), ask("A", issuer=Issue("A", 3600))),
    ),
    Scenario(
        "a small step back between two looks cannot carry a token past its end",
        8,
        (wait(3.9), set_clock(-3.8), wait(4.05), ask("A", issuer=Issue("A", 8))),
    ),
    Scenario(
        "a refused token is replaced at once, an older one is ignored",
        3600,
        (
            wait(60),
            refuse("T0"),
            ask("A", issuer=Issue("A", 600)),
            refuse("T0"),
            ask("A"),
        ),
    ),
    Scenario(
        "the refused token is not taken back",
        3600,
        (
            wait(60),
            refuse("T0"),
            ask(ValueError, issuer=Issue("T0", 3540)),
            ask("A", issuer=Issue("A", 3600)),
        ),
    ),
    Scenario(
        "a refusal ends the hold of a valid token",
        3600,
        (wait(3480), ask("T0", issuer=DOWN), refuse("T0"), ask("A", issuer=Issue("A", 3600))),
    ),
    Scenario(
        "a service that refuses every token is not fed with new ones",
        3600,
        (
            refuse("T0"),
            ask("A", issuer=Issue("A", 3600)),
            refuse("A"),
            ask(ClientAuthenticationError),
            wait(0.5),
            ask("B", issuer=Issue("B", 3600)),
            refuse("B"),
            wait(0.9),
            ask(ClientAuthenticationError),
            wait(0.1),
            ask("C", issuer=Issue("C", 3600)),
            wait(30),
            refuse("C"),
            ask("D", issuer=Issue("D", 3600)),
        ),
    ),
    Scenario(
        "claims force one new token",
        3600,
        (
            ask("A", claims="c", issuer=Issue("A", 1800)),
            ask("A", claims="c"),
            ask("A"),
            ask("B", claims="d", issuer=Issue("B", 1800)),
            wait(30),
            ask("C", claims="d", issuer=Issue("C", 1800)),
        ),
    ),
    Scenario(
        "claims that cannot be met are the caller's failure, and no one else's",
        3600,
        (
            ask(ConnectionError, claims="c", issuer=DOWN),
            ask("T0"),
            ask(ConnectionError, claims="c", issuer=DOWN),
            ask("A", claims="c", issuer=Issue("A", 1800)),
        ),
    ),
    Scenario(
        "claims do not break through a Retry-After",
        3600,
        (
            ask(HttpResponseError, claims="c", issuer=busy(20)),
            ask(HttpResponseError, claims="c"),
            ask("T0"),
            wait(20),
            ask("A", claims="c", issuer=Issue("A", 1800)),
        ),
    ),
    Scenario(
        "a closed credential says so",
        3600,
        (close(), ask(RuntimeError), close(), ask(RuntimeError, claims="c"), refuse("T0")),
    ),
    Scenario(
        "a closed credential is not refreshed in the background",
        3600,
        (close(), wait(3000), background()),
        proactive=True,
    ),
    Scenario(
        "the background refreshes ten minutes before expiry, and callers never notice",
        3600,
        (
            ask("T0", refresh_on=3000),
            wait(2999),
            background(),
            wait(1),
            background(Issue("A", 3600)),
            ask("A", refresh_on=6000),
            wait(3000),
            background(Issue("B", 3600)),
            ask("B"),
        ),
        proactive=True,
    ),
    Scenario(
        "the background fetches the first token",
        None,
        (background(Issue("A", 3600)), background(), ask("A")),
        proactive=True,
    ),
    Scenario(
        "the background tries again half-way to expiry",
        3600,
        (
            wait(3000),
            background(DOWN),
            background(),
            ask("T0", refresh_on=3300),
            wait(300),
            background(Issue("T0", 300)),
            wait(150),
            background(DOWN),
            wait(30),
            ask("T0"),
            wait(45),
            background(Issue("A", 3600)),
            ask("A"),
        ),
        proactive=True,
    ),
    Scenario(
        "the background goes on after expiry",
        600,
        (
            wait(600),
            background(DOWN),
            wait(4.9),
            background(),
            wait(0.2),
            background(DOWN),
            wait(5),
            background(Issue("A", 3600)),
            ask("A"),
        ),
        proactive=True,
    ),
    Scenario(
        "a caller refreshes in the last two minutes if the background has not",
        3600,
        (
            wait(3479),
            ask("T0"),
            wait(1),
            ask("A", issuer=Issue("A", 3600)),
            background(),
            wait(3000),
            background(Issue("B", 3600)),
        ),
        proactive=True,
    ),
    Scenario(
        "the background wakes up after a suspended machine",
        3600,
        (wait(10), suspend(10_800), background(Issue("A", 3600)), ask("A")),
        proactive=True,
    ),
    Scenario(
        "the background keeps its time when the wall clock is set back",
        3600,
        (
            wait(10),
            background(),
            set_clock(-3600),
            wait(2989),
            background(),
            wait(1),
            background(Issue("A", 7200)),
            ask("A"),
        ),
        proactive=True,
    ),
]

SCENARIOS += [
    Scenario(
        f"a life of {life} seconds costs one call per period",
        life,
        (
            ask("T0"),
            wait(life - window - 0.125),
            ask("T0"),
            wait(0.125),
            ask("A", issuer=Issue("A", life)),
            wait(life - window - 0.125),
            ask("A"),
            wait(0.125),
            ask("B", issuer=Issue("B", life)),
        ),
    )
    for life in (
        2,
        8,
        90,
        118,
        120,
        122,
        598,
        602,
        1198,
        3600,
        86_400,
        40 * 86_400,
        100 * 365 * 86_400,
    )
    for window in (min(120, life / 2),)
]
