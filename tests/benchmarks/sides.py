"""The two sides that are compared: this package, and the copy that a Communication library carries.

The copy is imported without the library around it, whose clients would add half a second to its
imports; so it is measured at its best.
"""

import sys
import time
import types
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import jwt

OURS, THEIRS = "ours", "theirs"
DISTRIBUTIONS = {
    OURS: "azure-communication-common",
    THEIRS: "azure-communication-callautomation",
}
LIBRARY = "azure.communication.callautomation"


def versions() -> dict[str, str]:
    """Return the version of each side; leave with the remedy if one is not installed."""
    try:
        return {side: version(name) for side, name in DISTRIBUTIONS.items()}
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install . --group benchmark --group test")


def path_of_library() -> str:
    """Return the folder of the library that carries the copy."""
    spec = find_spec(LIBRARY)
    assert spec is not None, f"{LIBRARY} is not installed"
    assert spec.submodule_search_locations
    return next(iter(spec.submodule_search_locations))


def load(side: str, ours: str, theirs: str) -> Any:
    """Import a module of one side, named in the package or in the copy."""
    if side == OURS:
        return import_module(f"azure.communication.common{ours}")
    if LIBRARY not in sys.modules:
        library = types.ModuleType(LIBRARY)
        library.__path__ = [path_of_library()]
        sys.modules[LIBRARY] = library
    return import_module(f"{LIBRARY}._shared.{theirs}")


def make_token(life: float) -> str:
    """Return a JWT that expires in so many seconds."""
    claims = {"exp": int(time.time() + life), "skypeid": "acs:0000", "acsScope": "chat,voip"}
    return jwt.encode(claims, "a key of thirty-two bytes or more", algorithm="HS256")


def unused() -> Any:
    """Be a refresher that nobody should call."""
    raise AssertionError
