"""A model check of the cache: all short sequences of what may happen, and long random ones."""

import functools
import gc
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from model import HOUR, World


@pytest.fixture(autouse=True)
def in_silence() -> Iterator[None]:
    """Failures are what this is about; to log each would take most of the time.

    To look through all worlds for garbage would take a part of the rest.
    """
    logging.disable()
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 50, 100)
    yield
    gc.set_threshold(*thresholds)
    logging.disable(logging.NOTSET)


AT_ANY_TIME: dict[str, Callable[[World], Any]] = {
    "ask": lambda world: world.ask(),
    "ask for claims": lambda world: world.ask("c"),
    "ask for others": lambda world: world.ask("d"),
    "tick": lambda world: world.tick(),
    "a waiter wakes late": lambda world: world.wake(),
    "refuse": lambda world: world.refuse(),
    "fork": lambda world: world.fork(),
    "clock + 1 h": lambda world: world.set_clock(HOUR),
    "clock - 1 h": lambda world: world.set_clock(-HOUR),
    "suspend": lambda world: world.suspend(2 * HOUR),
    "half a minute": lambda world: world.pass_time(30),
    "close": lambda world: world.close(),
}

# And how many refreshes it takes.
WITH_REFRESHES: dict[str, tuple[int, Callable[[World], Any]]] = {
    "a second": (1, lambda world: world.end("fresh", 1)),
    "a minute": (1, lambda world: world.end("fresh", 60)),
    "an hour": (1, lambda world: world.end("fresh", HOUR)),
    "a day": (1, lambda world: world.end("fresh", 24 * HOUR)),
    "the same": (1, lambda world: world.end("same")),
    "an older one": (1, lambda world: world.end("older")),
    "an expired one": (1, lambda world: world.end("expired")),
    "a refused one": (1, lambda world: world.end("refused")),
    "failure": (1, lambda world: world.end("failure")),
    "busy": (1, lambda world: world.end("busy")),
    "abandoned": (1, lambda world: world.end("abandoned")),
    "the second one ends, twice": (2, lambda world: world.end("fresh", HOUR, 1, 2)),
    "the second one fails, twice": (2, lambda world: world.end("failure", index=1, times=2)),
    "a waiter gives up": (1, lambda world: world.give_up_waiting()),
    "the leader is lost": (1, lambda world: world.lose()),
}

MOMENTS: dict[str, tuple[str, float]] = {
    "before it is due": ("due", -0.001),
    "when it is due": ("due", 0.001),
    "before the window": ("window", -0.001),
    "in the window": ("window", 0.001),
    "before expiry": ("expiry", -0.001),
    "after expiry": ("expiry", 0.001),
    "after the hold": ("hold", 0.001),
    "after the deadline": ("deadline", 0.001),
}


def possible(world: World) -> Iterator[tuple[str, Callable[[World], Any]]]:
    """Return what may happen next, by name."""
    yield from AT_ANY_TIME.items()
    for name, (needed, act) in WITH_REFRESHES.items():
        if len(world.running) >= needed:
            yield name, act
    for name, (moment, offset) in MOMENTS.items():
        seconds = world.until(moment) + offset
        if 0 < seconds < 240 * HOUR:
            yield name, functools.partial(World.pass_time, seconds=seconds)


ENOUGH = 26_000  # different states for each of four beginnings


@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "proactive"])
@pytest.mark.parametrize("life", [None, HOUR], ids=["no token", "a token"])
def test_all_sequences_up_to_a_depth(life: float | None, proactive: bool) -> None:
    """Whatever happens in whatever order, the properties hold after each step."""
    first = World(life, proactive=proactive)
    seen: set[Any] = {first.key()}
    todo: deque[tuple[tuple[str, ...], World]] = deque([((), first)])
    while len(seen) < ENOUGH:
        names, world = todo.popleft()
        for name, act in possible(world):
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


class RandomSequences(RuleBasedStateMachine):
    """What the exhaustive check does with a few lives and steps, with any, and for longer."""

    @initialize(
        life=st.none() | st.integers(1, 24 * HOUR),
        proactive=st.booleans(),
        jitter=st.floats(0, 1, exclude_max=True),
    )
    def start(self, life: float | None, proactive: bool, jitter: float) -> None:
        self.world = World(life, proactive=proactive, jitter=jitter)

    @rule(data=st.data())
    def act(self, data: Any) -> None:
        actions = dict(possible(self.world))
        actions.pop("close")  # or little would follow it
        actions[data.draw(st.sampled_from(sorted(actions)))](self.world)

    @precondition(lambda self: self.world.running)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(sorted(World.OUTCOMES)),
        life=st.integers(1, 24 * HOUR),
        times=st.integers(1, 2),
    )
    def end(self, data: Any, outcome: str, life: int, times: int) -> None:
        index = data.draw(st.integers(0, len(self.world.running) - 1))
        self.world.end(outcome, life, index, times)

    @rule(seconds=st.floats(0.001, 3 * HOUR))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.integers(-24 * HOUR, 24 * HOUR))
    def set_clock(self, seconds: float) -> None:
        self.world.set_clock(seconds)

    @precondition(lambda self: not self.world.closed)
    @rule()
    def rest(self) -> None:
        self.world.let_an_hour_pass()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            self.world.ask()


@pytest.mark.usefixtures("in_silence")
class TestRandomSequences(RandomSequences.TestCase):  # type: ignore[misc, name-defined]
    """Whatever happens in whatever order and for however long, the properties hold."""

    settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
