"""The worker refuses apps that could be imported, and says why: the host would find these faults.

They are the mistakes that are easily made with identifiers and credentials in an app.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import azure.functions as func
from azure.communication.common import *

app = func.FunctionApp()
"""
DURABLE_APP = """
import azure.durable_functions as df
from azure.communication.common import *

app = df.DFApp()
"""
HTTP = APP + '@app.route("x")\n'
EVENT = APP + '@app.event_grid_trigger("event")\n'
ACTIVITY = DURABLE_APP + '@app.activity_trigger("who")\n'

FAULTS = {
    "missing module": ("import azure.communication.nothing", "No module named"),
    "no app": ("", "Could not find top level function app instances"),
    "two apps": (APP + "again = func.FunctionApp()", "More than one"),
    "other parameter name": (EVENT + "def f(message): ...", "FunctionLoadError.*{'message'}"),
    "hint that only type checkers can read": (
        "from __future__ import annotations\n" + HTTP + "def f(req: Request) -> str: ...",
        "NameError: name 'Request'",
    ),
    "event as a dict": (EVENT + "def f(event: dict): ...", "FunctionLoadError.*event"),
    "event as an identifier": (
        EVENT + "def f(event: CommunicationUserIdentifier): ...",
        "FunctionLoadError.*event",
    ),
    "identifier as an answer": (
        HTTP + "def f(req) -> CommunicationUserIdentifier: ...",
        "FunctionLoadError.*return",
    ),
    "one of two identifiers": (
        ACTIVITY + "def f(who: CommunicationUserIdentifier | PhoneNumberIdentifier): ...",
        "FunctionLoadError.*who.*non-type annotation",
    ),
    "list of identifiers": (
        ACTIVITY + "def f(who: list[CommunicationUserIdentifier]): ...",
        "FunctionLoadError.*who.*non-type annotation",
    ),
}


@pytest.mark.parametrize(("source", "reason"), FAULTS.values(), ids=FAULTS)
def test_faulty_app_is_not_loaded(worker: Any, tmp_path: Path, source: str, reason: str) -> None:
    """The worker names the fault when it starts, before any invocation."""
    (tmp_path / "function_app.py").write_text(source)
    with pytest.raises(worker.WorkerError, match=reason), worker.FunctionsHost(tmp_path):
        pytest.fail("it was loaded")


@pytest.mark.parametrize(
    "annotation", ["str", "CommunicationIdentifier", "CommunicationUserIdentifier"]
)
def test_activity_may_take_text_or_one_class(worker: Any, tmp_path: Path, annotation: str) -> None:
    """What the faults above can be changed to is loaded."""
    (tmp_path / "function_app.py").write_text(ACTIVITY + f"def f(who: {annotation}): ...")
    with worker.FunctionsHost(tmp_path) as host:
        assert list(host.functions) == ["f"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("COMMUNICATION_SERVICES_USER_ID", None, "KeyError: 'COMMUNICATION_SERVICES_USER_ID'"),
        (
            "COMMUNICATION_SERVICES_CONNECTION_STRING",
            "endpoint=https://contoso.communication.azure.com/;accesskey=s3cret!",
            "ValueError: the accesskey in .* is not a base64 access key",
        ),
    ],
    ids=["missing", "malformed"],
)
def test_wrong_setting_is_named_without_its_value(
    worker: Any,
    sample: Path,
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str | None,
    reason: str,
) -> None:
    """The sample does not load with a setting missing or malformed, and shows no secret."""
    if value is None:
        del settings[name]
    else:
        settings[name] = value
    with pytest.raises(worker.WorkerError, match=reason) as caught:
        worker.FunctionsHost(sample, settings).__enter__()
    assert "s3cret" not in str(caught.value)
