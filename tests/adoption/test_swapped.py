"""The nine SDKs with their ``_shared`` folders replaced: their classes, requests and results."""

import ast
from pathlib import Path
from typing import Any

import pytest

from adoption.adapters import ADAPTERS, count_lines
from adoption.conftest import GUIDE, ROOT, VERSIONS, Environment


@pytest.mark.parametrize("sdk", sorted(VERSIONS))
def test_adapter(environment: Environment, sdk: str) -> None:
    """An adapter has two to ten lines in place of 840 and more, and nothing else is changed."""
    place = Path("azure", "communication", sdk)
    published, swapped = environment.published / place, environment.swapped / place
    assert 2 <= count_lines(sdk) <= 10
    assert sum(len(path.read_text("utf-8").splitlines()) for path in shared(published)) > 840
    assert {path.name: path.read_text("utf-8") for path in shared(swapped)} == {
        "__init__.py": "",
        **ADAPTERS[sdk],
    }
    for path in published.rglob("*.py"):
        if path.parent.name != "_shared":
            same = swapped / path.relative_to(published)
            assert same.read_bytes() == path.read_bytes()


def shared(package: Path) -> list[Path]:
    return [*package.glob("_shared/*.py")]


@pytest.mark.filterwarnings("ignore:invalid escape sequence:SyntaxWarning")
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("sdk", sorted(VERSIONS))
def test_adapter_has_what_the_sdk_imports(environment: Environment, sdk: str) -> None:
    """Every name that a module of the SDK imports from ``_shared`` is there, in functions too."""
    package = environment.swapped / "azure" / "communication" / sdk
    wanted = {
        (node.module.rpartition("_shared.")[2], name.name)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and "_shared." in node.module
        for name in node.names
    }
    assert wanted
    program = "import importlib; print('[]')"
    for module, name in sorted(wanted):
        full = f"azure.communication.{sdk}._shared.{module}"
        program += f"; getattr(importlib.import_module({full!r}), {name!r})"
    run = environment.run(environment.swapped, "-c", program)
    assert run.returncode == 0, run.stderr


def test_guide_shows_the_adapters() -> None:
    """The guide shows maintainers what is tested here, word by word, and for which SDKs."""
    guide = GUIDE.read_text("utf-8")
    for sdk, files in ADAPTERS.items():
        names = ", ".join(f"`{name}`" for name in files)
        assert f"| {sdk} | {names} | {count_lines(sdk)} |\n" in guide
        for name, text in files.items():
            users = ", ".join(one for one in ADAPTERS if ADAPTERS[one].get(name) == text)
            block = f"`_shared/{name}`, for {users}:\n\n```py\n{text}```\n"
            assert guide.count(block) == 1, (sdk, name)


@pytest.fixture(scope="module")
def recorded(environment: Environment) -> dict[str, tuple[Any, Any]]:
    """Return what came of each case of the matrix, as published and with ours."""
    published = environment.report(environment.published, "record_requests.py")
    swapped = environment.report(environment.swapped, "record_requests.py")
    assert published.keys() == swapped.keys()
    return {case: (published[case], swapped[case]) for case in published}


def test_requests(recorded: dict[str, tuple[Any, Any]]) -> None:
    """Every method that takes or returns an identifier sends what it sends as published."""
    assert len(recorded) > 1500
    sent = 0
    for case, (published, swapped) in recorded.items():
        assert swapped["sent"] == published["sent"], case
        assert swapped["error"] == published["error"], case
        sent += len(published["sent"])
    assert sent == len(recorded)


# Where the identifiers in a result differ, as the guide's tables say.
DETAILS = {
    ("callautomation", "cloud"),
    ("callautomation", "is_anonymous"),
    ("chat", "cloud"),
    ("chat", "is_anonymous"),
    ("chat", "is_anonymous asserted_id"),
    ("rooms", "is_anonymous"),
    ("rooms", "is_anonymous asserted_id"),
    ("rooms", "kind"),
}


def test_results(recorded: dict[str, tuple[Any, Any]]) -> None:
    """It returns the identifiers that it returns as published, but for a few details."""
    details = set()
    for case, (published, swapped) in recorded.items():
        assert len(published["found"]) == len(swapped["found"]), case
        for theirs, ours in zip(published["found"], swapped["found"], strict=True):
            if ours != theirs:
                details.add((case.partition(" ")[0], detail(theirs, ours)))
    assert details == DETAILS


def detail(theirs: Any, ours: Any) -> str:
    """Return what differs in two identifiers with the same raw id."""
    raw_id, kind, properties = theirs
    assert ours[0] == raw_id
    if ours[1] != kind:  # a raw id with three parts behind "8:acs:"
        assert (kind, ours[1]) == ("communication_user", "teams_extension_user")
        return "kind"
    changed = [name for name, value in ours[2].items() if value != properties.get(name)]
    for name in changed:
        if name == "cloud":
            assert ours[2][name] == (properties[name] or "public").upper()
        else:
            assert properties.get(name) is None
    return " ".join(changed)


def test_matrix(environment: Environment) -> None:
    """The SDKs accept our own objects as well as those under their names, which are now the
    same.
    """
    run = environment.run(environment.swapped, ROOT / "tests" / "interop" / "matrix.py")
    assert run.returncode == 0, run.stderr
    outcomes = [line for line in run.stdout.splitlines() if "equal: " in line]
    assert len(outcomes) == 2 * (6 + 6 + 1 + 6)
