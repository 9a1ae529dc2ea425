"""A pytest plugin that delays threads at random lines, to find tests and code that count on luck.

Run by ``tox run -e delays``; by hand ``PYTHONPATH=tests python -m pytest -p delays``. Whatever
fails only then would fail one day on a slow machine. ``--delays-seed`` gives other delays.
"""

import random
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest

RATE = 0.02
PER_TEST = 60  # more would let deadlines pass
SECONDS = (0.001, 0.01, 0.05)
WHERE = ("/azure/communication/common/", "/tests/", "/threading.py")


class Delays:
    """Traces all threads of one test, and makes some lines take longer."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._left = PER_TEST
        self._before = threading.active_count()

    def enter(self, frame: FrameType, event: str, arg: object) -> Any:
        """Decide whether the lines of a function that is entered may be delayed."""
        if self._left > 0 and any(part in frame.f_code.co_filename for part in WHERE):
            return self._delay(frame, event, arg)
        return None

    def _delay(self, frame: FrameType, event: str, arg: object) -> Any:
        if self._left > 0 and self._random.random() < RATE and self._is_concurrent():
            self._left -= 1
            time.sleep(self._random.choice(SECONDS))
        return self._delay

    def _is_concurrent(self) -> bool:
        return threading.active_count() > self._before


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the seed."""
    parser.addoption("--delays-seed", default="1", help="what the random delays begin with")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test with delays."""
    delays = Delays(item.config.getoption("--delays-seed") + item.nodeid)
    threading.settrace(delays.enter)
    sys.settrace(delays.enter)
    try:
        return (yield)
    finally:
        threading.settrace(None)  # type: ignore[arg-type]
        sys.settrace(None)
