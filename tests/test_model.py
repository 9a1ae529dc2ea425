"""A model check of the cache: all short sequences of what may happen, and long random ones."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from model import HOUR, World, explore, in_silence, possible


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with in_silence():
        yield


@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "proactive"])
@pytest.mark.parametrize("life", [None, HOUR], ids=["no token", "a token"])
def test_all_short_sequences(life: float | None, proactive: bool) -> None:
    """Whatever happens in whatever order, the properties hold; longer ones are in tests/scale."""
    assert explore(World(life, proactive=proactive), 10_000) >= 4


def test_all_short_sequences_while_the_background_hangs() -> None:
    """Its refresher never returns, and a caller has fetched the next token."""
    world = World(HOUR, proactive=True)
    world.pass_time(HOUR - 600)
    world.tick()
    world.pass_time(599)
    world.ask()
    world.end("fresh", HOUR, index=1)
    assert len(world.state.hung) == 1
    assert explore(world, 5_000) >= 3


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


@pytest.mark.usefixtures("silence")
class TestRandomSequences(RandomSequences.TestCase):  # type: ignore[misc, name-defined]
    """Whatever happens in whatever order and for however long, the properties hold."""

    settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
