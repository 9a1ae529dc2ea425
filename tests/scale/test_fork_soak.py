"""Four hundred forks of a process whose background threads import and refresh."""

import os

import pytest

from test_forks import TESTS, run


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("how", ["with-hook", "without-hook"])
def test_no_child_of_four_hundred_hangs(how: str) -> None:
    """However often it forks, every child gets a token at once."""
    assert run(str(TESTS / "forks.py"), "400", how) == "400 forks, 0 hung, background: True\n"
