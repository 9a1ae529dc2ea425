"""Every script in ``samples/`` runs to its end, and shows nobody a token."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local_service import LocalService

SAMPLES = Path(__file__).parents[2] / "samples"
PYPROJECT = (SAMPLES.parent / "pyproject.toml").read_text(encoding="utf-8")
SERVER = "local_service.py"  # serves until it is stopped
QUICKSTARTS = ["quickstart.py", "quickstart_async.py"]


def run(name: str, *arguments: str, cwd: Path, seconds: float, **environment: str) -> str:
    """Run a script, which has to end in time and in success, and return what it said."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", SAMPLES / name, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert not re.search(r"eyJ[A-Za-z0-9_-]+\.", ended.stdout)
    return ended.stdout


SCRIPTS = [*SAMPLES.glob("*.py"), SAMPLES / "migrate_from_shared" / "migrate.py"]


@pytest.mark.parametrize(
    "name", sorted(str(path.relative_to(SAMPLES)) for path in SCRIPTS if path.name != SERVER)
)
def test_sample(name: str, tmp_path: Path) -> None:
    """It ends within 30 seconds, a quickstart within 20, and has said something."""
    assert run(name, cwd=tmp_path, seconds=20 if name in QUICKSTARTS else 30)


@pytest.mark.parametrize("name", QUICKSTARTS)
def test_quickstart_with_a_resource(name: str, tmp_path: Path) -> None:
    """With a connection string, the same messages are sent to that resource with one token."""
    with LocalService() as service:
        said = run(
            name,
            f"--connection-string={service.connection_string}",
            cwd=tmp_path,
            seconds=20,
            REQUESTS_CA_BUNDLE=service.ca_path,
            SSL_CERT_FILE=service.ca_path,
        )
        assert service.statuses[401] == 0
        assert [*service.issued.values()] == [1]
    assert "Fetched token 1 for Alice" in said
    assert "Listed 2 participants and 8 messages of Alice." in said


def test_group_has_what_the_scripts_import() -> None:
    """The dependency group "samples" is what the scripts import when they start, and no more."""
    modules = {}
    for path in SCRIPTS:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules |= dict.fromkeys(names)
    local = {"__future__", "local_service", *sys.stdlib_module_names}
    imported = {name for name in modules if name.partition(".")[0] not in local}
    of_azure = {".".join(name.split(".")[:3]) for name in imported if name.startswith("azure.comm")}
    needed = {name.replace(".", "-") for name in of_azure - {"azure.communication.common"}}
    # azure-core and PyJWT come with the package, and requests is what azure-core's clients need.
    own = {name for name in imported if not name.startswith(("azure.", "jwt"))}
    group = re.search(r"^samples = \[(.*?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert group
    assert sorted(re.findall(r'"([a-z-]+)', group[1])) == sorted({*needed, *own, "requests"})


@pytest.mark.parametrize("guide", sorted(SAMPLES.rglob("README.md")))
def test_files_that_are_to_be_run(guide: Path) -> None:
    """Each file that a README of the samples has one run is there."""
    for file in re.findall(r"python (\w+/[\w/.]+\.py)", guide.read_text(encoding="utf-8")):
        assert (SAMPLES.parent / file).is_file(), file


def test_table_has_each_sample() -> None:
    """The README of the samples links each folder, and each script with its command."""
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    scripts = sorted(str(path.relative_to(SAMPLES)) for path in SCRIPTS)
    assert sorted(re.findall(r"\| `python samples/(\S+)` \|", text)) == scripts
    folders = [
        path.name for path in SAMPLES.iterdir() if path.is_dir() and path.name[0] not in "._"
    ]
    top = {each.partition("/")[0] for each in [*scripts, *folders]}
    assert {
        each.partition("/")[0] for each in re.findall(r"^\| \[.*?\]\((\S+)\)", text, re.MULTILINE)
    } == top


def test_there_are_samples() -> None:
    """The folder was found, and the tests above have run something."""
    assert (SAMPLES / "quickstart.py").is_file()
