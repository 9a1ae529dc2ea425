"""Every Python block of the README, and of the migration guide, runs as it stands.

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
FILES = ["README.md", "samples/migrate_from_shared/README.md"]
TEXTS = {file: (ROOT / file).read_text(encoding="utf-8") for file in FILES}
BLOCKS = [
    pytest.param(block[1], id=f"{file} line {text.count(chr(10), 0, block.start()) + 1}")
    for file, text in TEXTS.items()
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize("file", FILES)
def test_there_are_python_blocks(file: str) -> None:
    """The file shows code, and every fence that opens is closed."""
    blocks = [block for block in BLOCKS if str(block.id).startswith(f"{file} ")]
    assert len(blocks) == len(re.findall(r"^ *```python", TEXTS[file], re.MULTILINE)) > 0
