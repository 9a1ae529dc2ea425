"""What arrives from the swapped clients, at stand-ins that check each credential."""

from typing import Any

import pytest

from adoption.conftest import VERSIONS, Environment

# Its asynchronous clients do not say that they are asynchronous, so as published the first request
# fails with an AttributeError.
NO_ENTRA = {"messages aio Entra": ["TypeError", ""]}


def test_signed_requests(environment: Environment) -> None:
    """Requests of all eight clients that authenticate by key or Entra token are accepted."""
    report = environment.report(environment.swapped, "signed_requests.py")
    assert {case.partition(" ")[0] for case in report} == set(VERSIONS) - {"chat"}
    assert len(report) == 8 * 2 * 3 - 2  # jobrouter takes no token
    refused = {case: found for case, found in report.items() if found[0] not in (200, 201)}
    assert refused == NO_ENTRA
    for case, (_, header) in report.items():
        assert header == ("" if case.endswith("Entra") else "true"), case


def test_signed_requests_as_published(environment: Environment) -> None:
    """As published, a path with a colon is signed wrongly for aiohttp, and Messages fails too."""
    report = environment.report(environment.published, "signed_requests.py")
    refused = {case: found[0] for case, found in report.items() if found[0] not in (200, 201)}
    assert refused == {
        "callautomation aio connection string": 401,
        "callautomation aio key": 401,
        "messages aio Entra": "AttributeError",
    }


@pytest.fixture(scope="module")
def recordings(environment: Environment) -> dict[tuple[str, str, str], Any]:
    """Return the result of each case, and what arrived at the two listeners."""
    report = environment.report(environment.swapped, "recordings.py")
    return {(one["case"], one["with"], one["way"]): one for one in report}


@pytest.mark.parametrize("way", ["sync", "aio"])
@pytest.mark.parametrize("credential", ["key", "Entra"])
@pytest.mark.parametrize(
    ("case", "result"),
    [
        ("download", 100),
        ("download a part", [10, 11, 12]),
        ("delete", "deleted"),
        ("download from Teams", 100),
        ("redirect to us.asm.skype.com", 100),
    ],
)
def test_recordings(
    recordings: dict[tuple[str, str, str], Any],
    case: str,
    result: object,
    credential: str,
    way: str,
) -> None:
    """They are downloaded and deleted, also behind a redirect, and each request is authorized."""
    found = recordings[case, credential, way]
    assert found["result"] == result
    assert len(found["seen"]) == (2 if "redirect" in case else 1)
    for request in found["seen"]:
        assert request["listener"] == "storage"
        assert request["authorized"]
        assert request["resource"] == "contoso.communication.azure.com"


def test_redirects_to_other_storage_hosts(recordings: dict[tuple[str, str, str], Any]) -> None:
    """azure-core takes the credential off a request that a redirect sends to another host."""
    for host in ("eu.asm.skype.com", "a.asyncgw.teams.microsoft.com"):
        for credential in ("key", "Entra"):
            for way in ("sync", "aio"):
                found = recordings[f"redirect to {host}", credential, way]
                assert found["result"] == "ClientAuthenticationError"
                first, *rest = found["seen"]
                assert first["authorized"]
                assert rest
                assert not any(request["credential"] for request in rest)


def test_no_credential_elsewhere(recordings: dict[tuple[str, str, str], Any]) -> None:
    """Another host gets no credential, and a redirect to one that is not listed no request."""
    for (case, _, _), found in recordings.items():
        for request in found["seen"]:
            assert not request["credential"] or request["listener"] == "storage"
        if case == "redirect to evil.example":
            assert found["result"] != 100
            assert [request["listener"] for request in found["seen"]] == ["storage"]


PICKLE = """
import json, pickle
from azure.communication import callautomation, chat
from interop.matrix import KINDS
found = [
    [pickle.dumps(one, protocol).hex(), one.raw_id]
    for kit in (callautomation, chat)
    for kind, make in KINDS.items()
    if kit is callautomation or "extension" not in kind
    for one in make(kit)
    for protocol in (2, 5)
]
print(json.dumps(found))
"""

UNPICKLE = """
import json, pickle, sys
from azure.communication import common
for text, raw_id in json.load(open(sys.argv[1])):
    one = pickle.loads(bytes.fromhex(text))
    assert type(one).__module__.startswith("azure.communication.common"), type(one)
    again = common.identifier_from_raw_id(raw_id)
    assert one == again, (one, again)
    assert one.raw_id == raw_id
    assert pickle.loads(pickle.dumps(one)) == one
"""


def test_pickles(environment: Environment) -> None:
    """Identifiers that the published SDKs pickled are read, as ours."""
    pickled = environment.run(environment.published, "-W", "ignore", "-c", PICKLE)
    assert pickled.returncode == 0, pickled.stderr
    file = environment.work / "pickles.json"
    file.write_text(pickled.stdout, "utf-8")
    run = environment.run(environment.swapped, "-c", UNPICKLE, file)
    assert run.returncode == 0, run.stderr
