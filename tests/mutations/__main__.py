"""Break the package on purpose, one line at a time, and see that a test fails each time.

``tox run -e mutation`` runs all of ``mutations.toml``; arguments choose the files of the package to
break: ``tox run -e mutation -- _hmac.py``. It ends in failure if a mutation survives its tests, if
its text is not there exactly once, or if the tests fail without it.
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = Path("azure", "communication", "common")
COPIED = ["azure", "tests", "samples", "pyproject.toml", "README.md", "CHANGELOG.md"]
AT_A_TIME = 2
SECONDS = 600  # what takes longer hangs, which no test run would overlook

Mutation = dict[str, str]


def copy_tree(target: Path) -> Path:
    """Copy what the tests need, so that what is broken is never the tree itself."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, target / name)
    return target


def run_tests(tree: Path, tests: str) -> int | None:
    """Run tests in a copy of the tree, and return pytest's exit code, or None after a hang."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    selection = [f"tests/{test}" for test in tests.split()]
    # Bytecode is not written, for it would outlive a change within a second and of no other size.
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(
            [*command, *selection],
            cwd=tree,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def outcome(tree: Path, mutation: Mutation) -> str:
    """Return ``killed``, or what is wrong."""
    path = tree / PACKAGE / mutation["file"]
    text = path.read_text("utf-8")
    count = text.count(mutation["from"])
    if count != 1:
        return f"its text is there {count} times"
    changed = text.replace(mutation["from"], mutation["to"])
    compile(changed, path, "exec")  # or any test would fail
    path.write_text(changed, "utf-8")
    try:
        code = run_tests(tree, mutation["tests"])
    finally:
        path.write_text(text, "utf-8")
    if code in (1, 2, None):  # a failure, one while the tests were collected, a hang
        return "killed"
    return "SURVIVED" if code == 0 else f"the tests did not run: pytest ended with {code}"


def main(files: list[str]) -> int:
    """Try the mutations of these files, or all, and return 1 if one is not killed."""
    table = tomllib.loads((Path(__file__).parent / "mutations.toml").read_text("utf-8"))
    mutations: list[Mutation] = [
        mutation for mutation in table["mutations"] if not files or mutation["file"] in files
    ]
    trees: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def whole(tests: str) -> str:
        tree = trees.get()
        code = run_tests(tree, tests)
        trees.put(tree)
        return "pass" if code == 0 else f"FAIL: pytest ended with {code}"

    def broken(mutation: Mutation) -> str:
        tree = trees.get()
        result = outcome(tree, mutation)
        trees.put(tree)
        return result

    bad = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_A_TIME) as pool:
        for _ in range(AT_A_TIME):
            trees.put(copy_tree(Path(tempfile.mkdtemp(dir=folder))))
        selections = sorted({mutation["tests"] for mutation in mutations})
        for tests, result in zip(selections, pool.map(whole, selections), strict=True):
            print(f"{tests} without a mutation: {result}", flush=True)
            bad += result != "pass"
        if bad:
            return 1
        for mutation, result in zip(mutations, pool.map(broken, mutations), strict=True):
            change = f"{mutation['from'].strip()}  ->  {mutation['to'].strip() or 'nothing'}"
            print(f"{result}: {mutation['file']}: {change}", flush=True)
            bad += result != "killed"
    print(f"{len(mutations) - bad} of {len(mutations)} mutations killed")
    return int(bad > 0 or not mutations)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
