"""Every Python block of the README, and of the migration guide, runs as it is.

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
FILES = [
    "README.md",
    "samples/README.md",
    "samples/azure_functions/README.md",
    "samples/migrate_from_shared/README.md",
    "samples/shared_token_cache/README.md",
]
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


def test_all_python_blocks_are_found() -> None:
    """Every fence that opens is closed, and indented ones would not run."""
    opened = sum(len(re.findall(r"^ *```python", text, re.MULTILINE)) for text in TEXTS.values())
    assert len(BLOCKS) == opened > 10


def anchors(text: str) -> set[str]:
    """Return what a link may point to within a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("file", [*FILES, "samples/web/README.md", "tests/benchmarks/README.md"])
def test_links(file: str) -> None:
    """Links within the repository lead to files and headings that there are."""
    page = ROOT / file
    text = page.read_text(encoding="utf-8")
    defined = set(re.findall(r"^\[([^]]+)\]: ", text, re.MULTILINE))
    plain = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"\]\[([^]]+)\]", plain)) <= defined
    for target in re.findall(r"\]\(([^)]+)\)", plain):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            if anchor:
                assert anchor in anchors(found.read_text(encoding="utf-8")), target


def test_the_readme_can_be_read_to_its_end() -> None:
    """Details are documented next to what they describe."""
    assert len(TEXTS["README.md"].splitlines()) <= 350
