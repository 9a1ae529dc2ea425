"""A pytest plugin for the SDKs' own tests: it stands in for what they need and PyPI does not have.

Those tests import ``devtools_testutils``, which plays back recordings that no source distribution
holds. So files whose tests need recordings are left out, unless the stand-in for the service takes
the place of the recordings: then the SDK believes that it runs live, and those files run alone.

Two things are mended, in both worlds, so that the tests show what they are meant to show.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import azure.identity.aio
import pytest
from azure.core.credentials import AccessToken

EXPIRY = 4102444800


def is_live() -> bool:
    return "ENTRA_TOKEN" in os.environ


class AzureRecordedTestCase:
    is_live = property(lambda self: is_live())

    def is_playback(self) -> bool:
        return not is_live()


class EntraCredential:
    """A token credential for the resource, in place of what azure-identity finds on a machine."""

    def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return AccessToken(os.environ["ENTRA_TOKEN"], EXPIRY)


class AsyncEntraCredential:
    async def get_token(self, *scopes: str, **options: object) -> AccessToken:
        return EntraCredential().get_token()

    async def __aenter__(self) -> "AsyncEntraCredential":
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...


azure.identity.DefaultAzureCredential = EntraCredential  # type: ignore[assignment,misc]
azure.identity.aio.DefaultAzureCredential = AsyncEntraCredential  # type: ignore[assignment,misc]


@pytest.fixture(scope="session")
def test_proxy() -> None:
    """Stand in for the fixture of that name, which starts a proxy that plays recordings back."""


class StandIn(ModuleType):
    """A module that has every name it is asked for: a function that does nothing, if not set."""

    def __init__(self, name: str, **members: object) -> None:
        super().__init__(name)
        vars(self).update(members, __path__=[])
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **keywords: None


StandIn(
    "devtools_testutils",
    AzureRecordedTestCase=AzureRecordedTestCase,
    is_live=is_live,
    recorded_by_proxy=lambda test: test,
    test_proxy=test_proxy,
)
StandIn("devtools_testutils.aio", recorded_by_proxy_async=lambda test: test)
StandIn("devtools_testutils.fake_credentials", FakeTokenCredential=EntraCredential)
StandIn("devtools_testutils.fake_credentials_async", AsyncFakeCredential=AsyncEntraCredential)
StandIn("azure_devtools")
StandIn("azure_devtools.scenario_tests", RecordingProcessor=object)

OUTCOMES: dict[str, tuple[str, str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, help="where to write what came of each test")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if collection_path.is_file() and collection_path.name.startswith("test_"):
        needs_recordings = "recorded_by_proxy" in collection_path.read_text("utf-8")
        return needs_recordings is not is_live()
    return None


def pytest_collection(session: pytest.Session) -> None:
    """Take the line end and the blanks out of the tokens that the SDKs' helper makes.

    The published credential does not notice them, but no header could carry them.
    """
    sys.path.insert(0, os.getcwd())
    path = Path("_shared", "helper.py")
    if path.is_file() and "def generate_token" in path.read_text("utf-8"):
        helper: Any = importlib.import_module("_shared.helper")
        generate = helper.generate_token_with_custom_expiry_epoch
        helper.generate_token_with_custom_expiry_epoch = lambda expiry: "".join(
            generate(expiry).split()
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take from credentials that are mocks the method that came into azure-core after them."""
    for module in {item.module for item in items if isinstance(item, pytest.Function)}:
        credential = getattr(module, "credential", None)
        if isinstance(credential, Mock):
            del credential.get_token_info


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        OUTCOMES[report.nodeid] = ("error", str(report.longrepr).splitlines()[-1])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the outcome of a test: passed if all of it passes, else how it failed first."""
    if report.nodeid not in OUTCOMES or OUTCOMES[report.nodeid][0] == "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else str(report.longrepr or "")
        OUTCOMES[report.nodeid] = (report.outcome, why.partition("\n")[0])


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.option.outcomes.write_text(json.dumps(OUTCOMES), "utf-8")
