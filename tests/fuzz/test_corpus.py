"""The fuzzer's targets, on what it begins with and on a few inputs of any kind.

The corpus also has what the fuzzer once found. ``python tests/fuzz`` goes on from here.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_corpus_keeps_the_promises(path: Path) -> None:
    """Each of its files is read, or refused as documented."""
    assert TARGETS[path.parent.name](path.read_bytes()) is None


def test_every_target_has_a_corpus() -> None:
    """A fuzzer that begins with nothing takes long to get anywhere."""
    assert {path.parent.name for path in CORPUS} == {*TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_keep_the_promises(name: str) -> None:
    """Alone, and behind the beginning of something that is well-formed."""
    seeds = [path.read_bytes() for path in CORPUS if path.parent.name == name]
    whole_or_part = st.builds(
        lambda seed, at: seed[:at], st.sampled_from(seeds), st.integers(0, 200)
    )

    @settings(max_examples=50, deadline=None)
    @given(whole_or_part, st.binary(max_size=20))
    def check(beginning: bytes, rest: bytes) -> None:
        TARGETS[name](beginning + rest)

    check()
