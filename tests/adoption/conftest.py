"""The environment of the adoption tests: the nine SDKs as published, and with ``_shared`` replaced.

It is built once, in the folder for temporary files, and kept there until the versions of the SDKs
or the Python change: a virtual environment with what the SDKs and their tests need, the SDKs in a
folder beside it, and their source distributions, for the tests in these. What depends on this
package (the replaced folders and its own code) is written anew for each run.

A program runs in one of two worlds, which differ in a single entry of ``PYTHONPATH``.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from azure.communication import common

from adoption.adapters import ADAPTERS, FOR_THEIR_TESTS, TEST_HELPERS

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "samples" / "migrate_from_shared" / "README.md"
INSIDE = Path(__file__).parent / "inside"
# The group "interop" names a version of each, as ``tests/interop`` has been written for.
VERSIONS = dict(
    re.findall(
        r'"azure-communication-(\w+)==([\d.]+)"', (ROOT / "pyproject.toml").read_text("utf-8")
    )
)
REQUIREMENTS = [f"azure-communication-{sdk}=={number}" for sdk, number in VERSIONS.items()]
# What they depend on, this package does, the programs in inside/ do, and the SDKs' own tests do.
NEEDED = [
    f"azure-core=={version('azure-core')}",
    f"pyjwt=={version('pyjwt')}",
    "typing-extensions>=4.6.1",
    "isodate>=0.6.1",
    "msrest>=0.7.1",
    "azure-identity>=1.19",
    "aiohttp>=3.13",
    "requests>=2.32",
    "trustme>=1.2",
    "pytest>=9",
    "pytest-asyncio>=1",
    "aiounittest",
    "python-dateutil",
]


class Environment:
    """Where the SDKs are, and how to run a program with them."""

    def __init__(self, kept: Path, work: Path) -> None:
        self.python = kept / "env" / "bin" / "python"
        self.sources = kept / "sources"
        self.published = kept / "published"
        self.swapped = work / "swapped"
        self.for_tests = work / "for-tests"
        self.package = work / "package"
        self.work = work

    def run(
        self,
        world: Path,
        *arguments: str | Path,
        cwd: Path | None = None,
        seconds: float = 120,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python on a program, with the SDKs of a folder."""
        path = [world, self.package, INSIDE, ROOT / "tests", ROOT / "samples"]
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.work,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))},
                "PYTHONPATH": os.pathsep.join(map(str, path)),
                "PYTHONDONTWRITEBYTECODE": "1",
                **(variables or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def report(self, world: Path, program: str, *arguments: str) -> Any:
        """Run a program of ``inside/`` that has to succeed, and return the JSON that it prints."""
        run = self.run(world, INSIDE / program, *arguments)
        assert run.returncode == 0, run.stdout + run.stderr
        return json.loads(run.stdout)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    kept, work = built(), tmp_path_factory.mktemp("adoption")
    environment = Environment(kept, work)
    place = Path("azure", "communication")
    ours = Path(common.__file__).parent
    shutil.copytree(ours, environment.package / place / "common")
    for world in (environment.swapped, environment.for_tests):
        shutil.copytree(environment.published, world)
        for sdk, adapter in ADAPTERS.items():
            files = adapter
            if world is environment.for_tests:
                utils = FOR_THEIR_TESTS["utils.py"] + TEST_HELPERS
                files = {**FOR_THEIR_TESTS, **adapter, "utils.py": utils}
            replace(world / place / sdk / "_shared", files)
    return environment


def replace(shared: Path, files: Mapping[str, str]) -> None:
    shutil.rmtree(shared)
    shared.mkdir()
    for name, text in {"__init__.py": "", **files}.items():
        (shared / name).write_text(text, "utf-8")


def built() -> Path:
    """Return the folder that holds what pip brings, filled if it was not there."""
    wanted = json.dumps([REQUIREMENTS, NEEDED, sys.version]).encode()
    digest = hashlib.sha256(wanted).hexdigest()[:16]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    kept = Path(tempfile.gettempdir()) / f"azure-communication-adoption-{user}-{digest}"
    if not kept.exists():
        building = Path(tempfile.mkdtemp(prefix=f"{kept.name}-"))
        try:
            build(building)
            building.rename(kept)  # at once, so that no run meets half of it
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            if not kept.exists():  # nor has another run been faster
                raise
    return kept


def build(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    pip = [folder / "env" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", *NEEDED], check=True)
    apart = ["--no-deps", "--target", folder / "published"]
    subprocess.run([*pip, "install", *apart, *REQUIREMENTS], check=True)
    sources = folder / "sources"
    source_only = ["--no-deps", "--no-binary", ":all:", "--dest", sources]
    subprocess.run([*pip, "download", *source_only, *REQUIREMENTS], check=True)
    for archive in sources.glob("*.tar.gz"):
        sdk = next(sdk for sdk in VERSIONS if sdk in archive.name)
        with tarfile.open(archive) as tar:
            tar.extractall(sources, filter="data")
        name = archive.name.removesuffix(".tar.gz")
        (sources / name).rename(sources / sdk)
