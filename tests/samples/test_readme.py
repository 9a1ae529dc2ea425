"""Every Python block of the README runs as it stands.

Each is a program of its own: it runs in an interpreter and an empty folder of its own, where the
modules of ``samples/``, such as ``local_service``, can be imported.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    pytest.param(block[1], id=f"line {README.count(chr(10), 0, block.start()) + 1}")
    for block in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("block", BLOCKS)
def test_python_block(block: str, tmp_path: Path) -> None:
    """It ends within 30 seconds, in success, and without a warning."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "samples")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stdout


def test_there_are_python_blocks() -> None:
    """The README shows code, and every fence that opens is closed."""
    assert len(BLOCKS) == len(re.findall(r"^ *```python", README, re.MULTILINE)) > 0
