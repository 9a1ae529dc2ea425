"""The exhaustive model check of tests/test_model.py, continued: five times as many states."""

import pytest

from model import HOUR, World, explore, in_silence


@pytest.mark.parametrize("proactive", [False, True], ids=["on demand", "proactive"])
@pytest.mark.parametrize("life", [None, HOUR], ids=["no token", "a token"])
def test_all_sequences(life: float | None, proactive: bool) -> None:
    """Whatever happens in whatever order, the properties hold after each step."""
    with in_silence():
        assert explore(World(life, proactive=proactive), 50_000) >= 4
