"""Every script in ``samples/`` runs to its end, and shows nobody a token."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[1] / "samples"
SERVER = "local_service.py"  # serves until it is stopped


@pytest.mark.parametrize(
    "name", sorted(path.name for path in SAMPLES.glob("*.py") if path.name != SERVER)
)
def test_sample(name: str, tmp_path: Path) -> None:
    """It ends within 30 seconds, in success, and has said something that holds no token."""
    run = subprocess.run(
        [sys.executable, "-W", "error", SAMPLES / name],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert run.stdout
    assert not re.search(r"eyJ[A-Za-z0-9_-]+\.", run.stdout)


def test_there_are_samples() -> None:
    """The folder was found, and the test above has run something."""
    assert (SAMPLES / "quickstart.py").is_file()
