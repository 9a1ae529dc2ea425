"""A model check of the cache: all short sequences of what may happen, and long random ones."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from model import HOUR, World


@pytest.fixture(autouse=True)
def in_silence() -> Iterator[None]:
    """Failures are what this is about; to log each would take most of the time."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


ACTIONS: dict[str, Callable[[World], Any]] = {
    "ask": lambda world: world.ask(),
    "ask for claims": lambda world: world.ask("c"),
    "ask for others": lambda world: world.ask("d"),
    "tick": lambda world: world.tick(),
    "a second": lambda world: world.end("fresh", 1),
    "a minute": lambda world: world.end("fresh", 60),
    "an hour": lambda world: world.end("fresh", HOUR),
    "a day": lambda world: world.end("fresh", 24 * HOUR),
    "the same": lambda world: world.end("same"),
    "an older one": lambda world: world.end("older"),
    "an expired one": lambda world: world.end("expired"),
    "a refused one": lambda world: world.end("refused"),
    "failure": lambda world: world.end("failure"),
    "busy": lambda world: world.end("busy"),
    "abandoned": lambda world: world.end("abandoned"),
    "the second one ends, twice": lambda world: world.end("fresh", HOUR, 1, 2),
    "the second one fails, twice": lambda world: world.end("failure", index=1, times=2),
    "a waiter wakes late": lambda world: world.wake(),
    "a waiter gives up": lambda world: world.give_up_waiting(),
    "the leader is lost": lambda world: world.lose(),
    "refuse": lambda world: world.refuse(),
    "fork": lambda world: world.fork(),
    "clock + 1 h": lambda world: world.set_clock(HOUR),
    "clock - 1 h": lambda world: world.set_clock(-HOUR),
    "suspend": lambda world: world.suspend(2 * HOUR),
    "before it is due": lambda world: world.go_to("due", -0.001),
    "when it is due": lambda world: world.go_to("due", 0.001),
    "before the window": lambda world: world.go_to("window", -0.001),
    "in the window": lambda world: world.go_to("window", 0.001),
    "before expiry": lambda world: world.go_to("expiry", -0.001),
    "after expiry": lambda world: world.go_to("expiry", 0.001),
    "after the hold": lambda world: world.go_to("hold", 0.001),
    "after the deadline": lambda world: world.go_to("deadline", 0.001),
    "half a minute": lambda world: world.pass_time(30),
    "close": lambda world: world.close(),
}


ENOUGH = 26_000  # states for each of four beginnings
STATES = 0


@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "proactive"])
@pytest.mark.parametrize("life", [None, HOUR], ids=["no token", "a token"])
def test_all_sequences_up_to_a_depth(life: float | None, proactive: bool) -> None:
    """Whatever happens in whatever order, the properties hold after each step."""
    global STATES
    first = World(life, proactive=proactive)
    seen: set[Any] = {first.key()}
    todo: deque[tuple[tuple[str, ...], World]] = deque([((), first)])
    while len(seen) < ENOUGH:
        names, world = todo.popleft()
        for name, act in ACTIONS.items():
            after = world.copy()
            try:
                act(after)
            except AssertionError as error:
                msg = f"after {(*names, name)}: {error}"
                raise AssertionError(msg) from error
            key = after.key()
            if key not in seen:
                seen.add(key)
                todo.append(((*names, name), after))
    assert len(names) >= 3
    STATES += len(seen)


def test_there_are_many_states() -> None:
    """A check that met few states would say little."""
    if STATES:  # not if this test was selected alone
        assert STATES >= 100_000
