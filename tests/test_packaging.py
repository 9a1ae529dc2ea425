"""What users see before any of the code: names, versions, and the cost of an import.

``tests/packaging`` has what is checked of wheel and sdist where they are built.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from azure.communication import common
from azure.communication.common import aio

PUBLIC = {
    common: [
        "AzureCommunicationTokenCredential",
        "CommunicationCloudEnvironment",
        "CommunicationIdentifier",
        "CommunicationIdentifierKind",
        "CommunicationTokenCredential",
        "CommunicationUserIdentifier",
        "CommunicationUserProperties",
        "HMACCredentialsPolicy",
        "MicrosoftTeamsAppIdentifier",
        "MicrosoftTeamsAppProperties",
        "MicrosoftTeamsUserIdentifier",
        "MicrosoftTeamsUserProperties",
        "PhoneNumberIdentifier",
        "PhoneNumberProperties",
        "TeamsExtensionUserIdentifier",
        "TeamsExtensionUserProperties",
        "UnknownIdentifier",
        "__version__",
        "deserialize_identifier",
        "get_authentication_policy",
        "identifier_from_raw_id",
        "parse_client_arguments",
        "parse_connection_string",
        "serialize_identifier",
    ],
    aio: [
        "AzureCommunicationTokenCredential",
        "CommunicationTokenCredential",
        "HMACCredentialsPolicy",
        "get_authentication_policy",
    ],
}
BOTH = pytest.mark.parametrize("module", [common, aio], ids=["common", "aio"])


def in_fresh_interpreter(code: str) -> str:
    """Run code in another interpreter and return what it printed."""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter loads for some code."""
    output = in_fresh_interpreter(
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "loaded = set(sys.modules) - before; import json; print(json.dumps(list(loaded)))"
    )
    return set(json.loads(output))


def test_version() -> None:
    """The package, its metadata and the newest entry of the CHANGELOG tell the same version."""
    changelog = Path(__file__).parents[1] / "CHANGELOG.md"
    entries = re.findall(r"^## (.*)$", changelog.read_text(encoding="utf-8"), re.MULTILINE)
    version = re.fullmatch(r"(\S+) \((?:\d{4}-\d{2}-\d{2}|Unreleased)\)", entries[0])
    assert version is not None
    assert version[1] == common.__version__ == metadata.version("azure-communication-common")


def test_the_oldest_dependencies_are_tested() -> None:
    """What the tox environment "oldest" installs are the lower bounds of what the package needs."""
    oldest = Path(__file__).parent / "packaging" / "oldest.txt"
    tested = oldest.read_text(encoding="utf-8").splitlines()[1:]
    needed = metadata.requires("azure-communication-common") or []
    assert sorted(tested) == sorted(requirement.replace(">=", "==") for requirement in needed)


def test_type_information_is_there() -> None:
    """Type checkers find the marker without which they would ignore our annotations."""
    assert Path(common.__file__).with_name("py.typed").is_file()


@BOTH
def test_public_names(module: ModuleType) -> None:
    """The public names are these, sorted, and each is there with a documentation of its own."""
    assert module.__all__ == PUBLIC[module]
    for name in set(module.__all__) - {"__version__"}:
        value = getattr(module, name)
        assert value.__module__.startswith("azure.communication.common.")
        assert value.__doc__
        assert getattr(module, name) is value


@BOTH
def test_type_checkers_see_the_public_names(module: ModuleType) -> None:
    """What is imported for type checkers is what is resolved on first use."""
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.asname or alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(PUBLIC[module]) - {"__version__"}


@pytest.mark.parametrize("name", ["azure.communication.common", "azure.communication.common.aio"])
def test_dir_lists_names_that_are_not_loaded_yet(name: str) -> None:
    """Completion in a fresh interpreter offers every public name."""
    listed = in_fresh_interpreter(f"import {name} as module; print(*module.__dir__())").split()
    assert listed == sorted(listed)
    assert set(listed) > set(PUBLIC[importlib.import_module(name)])


@BOTH
def test_a_star_import_brings_the_public_names(module: ModuleType) -> None:
    """``from ... import *`` brings all of them and nothing else."""
    namespace: dict[str, object] = {}
    exec(f"from {module.__name__} import *", namespace)
    assert sorted(namespace.keys() - {"__builtins__"}) == PUBLIC[module]


@BOTH
def test_unknown_name(module: ModuleType) -> None:
    """A name that is not there is an ``AttributeError`` that tells which, and where."""
    with pytest.raises(AttributeError) as caught:
        _ = module.ComunicationUserIdentifier
    assert str(caught.value) == (
        f"module '{module.__name__}' has no attribute 'ComunicationUserIdentifier'"
    )
    assert not hasattr(module, "_identifier")


def test_asynchronous_names_are_the_synchronous_ones() -> None:
    """Changing to ``aio`` changes an import: the classes differ, the signing policy is the same."""
    assert set(aio.__all__) < set(common.__all__)
    assert aio.HMACCredentialsPolicy is common.HMACCredentialsPolicy
    for module in (common, aio):
        credential = module.CommunicationTokenCredential
        assert credential is module.AzureCommunicationTokenCredential
    for name in ("CommunicationTokenCredential", "get_authentication_policy"):
        assert getattr(common, name) is not getattr(aio, name)


@pytest.mark.parametrize(
    "order",
    [
        "azure.communication.chat azure.communication.common",
        "azure.communication.common azure.communication.chat",
        "azure.communication.common.aio azure.core azure.communication.chat.aio",
    ],
)
def test_the_namespace_is_shared_with_siblings(order: str) -> None:
    """A Communication library can be imported before ours and after it."""
    check = (
        f"import sys, importlib\nfor name in {order.split()}: importlib.import_module(name)\n"
        "import azure, azure.communication\n"
        "print(azure.__file__, azure.communication.__file__)\n"
        "from azure.communication.chat import ChatClient\n"
        "from azure.communication.common import CommunicationUserIdentifier\n"
        "print(ChatClient.__name__, CommunicationUserIdentifier.__name__)"
    )
    assert in_fresh_interpreter(check).split() == [
        *("None", "None"),
        *("ChatClient", "CommunicationUserIdentifier"),
    ]


@pytest.mark.parametrize("name", ["azure.communication.common", "azure.communication.common.aio"])
def test_importing_the_package_is_light(name: str) -> None:
    """An import loads nothing but the two files of names, and starts no thread."""
    loaded = loaded_by(f"import {name}\nimport threading; assert threading.active_count() == 1")
    heavy = {"azure.core", "jwt", "requests", "aiohttp", "asyncio", "cryptography", "pydantic"}
    assert not loaded & heavy
    ours = {module for module in loaded if module.startswith("azure.communication.common.")}
    assert ours <= {"azure.communication.common._version", "azure.communication.common.aio"}


def test_importing_identifiers_is_light() -> None:
    """Reading an identifier loads neither azure-core nor PyJWT nor typing_extensions."""
    loaded = loaded_by(
        "from azure.communication.common import CommunicationUserIdentifier as User, "
        "identifier_from_raw_id\n"
        "assert identifier_from_raw_id('8:acs:u').properties == User('8:acs:u').properties"
    )
    heavy = {"azure.core", "jwt", "asyncio", "pydantic"}
    if sys.version_info >= (3, 11):
        heavy |= {"typing_extensions", "dataclasses"}
    assert not loaded & heavy
    ours = {module for module in loaded if module.startswith("azure.communication.common.")}
    assert ours == {
        "azure.communication.common._identifiers",
        "azure.communication.common._version",
    }


@pytest.mark.parametrize(
    ("package", "protocols", "allowed"),
    [
        ("azure.communication.common", "azure.core.credentials", set()),
        ("azure.communication.common.aio", "azure.core.credentials_async", {"asyncio"}),
    ],
    ids=["sync", "aio"],
)
def test_importing_the_credential_is_light(package: str, protocols: str, allowed: set[str]) -> None:
    """The credential adds to azure-core's import no other distribution, and asyncio in aio only."""
    loaded = loaded_by(f"from {package} import CommunicationTokenCredential")
    added = loaded - loaded_by(f"import {protocols}")
    roots = {name.partition(".")[0] for name in added}
    assert roots - sys.stdlib_module_names <= {"azure"}
    assert all(
        name.startswith("azure.communication") for name in added if name.startswith("azure.")
    )
    assert roots & {"asyncio", "ssl", "http"} <= allowed
