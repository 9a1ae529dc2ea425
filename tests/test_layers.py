"""Who may import whom within the package, as a table.

Every module has its place in it, and its name says what it is about: there is no ``utils``.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from azure.communication import common

# From the top down.
LAYERS = {
    "doors": ["__init__", "__main__", "aio", "_sync"],
    "hooks": ["_pydantic"],
    "drivers": [
        "_sync._credential", "_sync._entra", "_sync._policies", "_sync._scheduler",
        "aio._credential", "aio._entra", "aio._policies", "aio._scheduler",
    ],
    "state": ["_cache", "_schedule"],
    "rules": ["_refresh", "_errors", "_exchange", "_bearer", "_hmac", "_serialization"],
    "values": ["_identifiers", "_token", "_connection", "_arguments", "_version"],
}  # fmt: skip
RANKS = {name: rank for rank, names in enumerate(LAYERS.values()) for name in names}

# pydantic calls from below, long after both modules have been loaded.
UPWARD = {("_identifiers", "_pydantic")}

# The pipeline hands a policy no time, so signing has a clock of its own, which `now` replaces.
HAS_A_CLOCK = {"_hmac"}

ROOT = Path(common.__file__).parent
PACKAGE = "azure.communication.common"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", ""): path
    for path in ROOT.rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Return the full name of all that a module imports, anywhere in its text."""
    folder = module.partition(".")[0]
    package = [*PACKAGE.split("."), *([folder] if folder in ("aio", "_sync") else [])]
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def siblings(module: str) -> set[str]:
    """Return the modules of the package that a module imports, as the table names them."""
    found = set()
    for name in imports(module):
        if name.startswith(f"{PACKAGE}."):
            parts = name.removeprefix(f"{PACKAGE}.").split(".")
            candidates = (".".join(parts[:length]) for length in (2, 1))
            found.add(next((one for one in candidates if one in RANKS), "__init__"))
    return found


def test_every_module_has_a_layer() -> None:
    """The table names the modules that there are, and no other."""
    assert sorted(FILES) == sorted(RANKS)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module: str) -> None:
    """A module imports from its own layer and those below it."""
    upward = {name for name in siblings(module) if RANKS[name] < RANKS[module]}
    assert {(module, name) for name in upward} <= UPWARD


def test_no_module_imports_itself_by_a_detour() -> None:
    """Within a layer, too, there is an order."""
    graph = {
        module: {name for name in siblings(module) if (module, name) not in UPWARD}
        for module in FILES
    }
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("_refresh") < order.index("_cache") < order.index("_sync._credential")


@pytest.mark.parametrize("module", LAYERS["drivers"])
def test_the_drivers_are_twins_and_strangers(module: str) -> None:
    """No synchronous driver imports an asynchronous one, and no asynchronous a synchronous one."""
    is_async = module.startswith("aio.")
    drivers = siblings(module).intersection(LAYERS["drivers"])
    assert all(name.startswith("aio.") == is_async for name in drivers)


@pytest.mark.parametrize("module", [*LAYERS["rules"], *LAYERS["values"]])
def test_rules_neither_wait_nor_look_at_a_clock(module: str) -> None:
    """Rules and values know no thread, loop, socket or clock: the time is an argument."""
    roots = {name.partition(".")[0] for name in imports(module)}
    forbidden = {"asyncio", "concurrent", "queue", "sched", "select", "socket", "threading"}
    if module not in HAS_A_CLOCK:
        forbidden |= {"time"}
    assert not roots & forbidden
