"""The SDKs' own tests, out of their source distributions, as published and with ours.

``OFFLINE`` and ``LIVE`` say how many there are, ``EXCEPTIONS`` which come out differently, and why.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from adoption.adapters import count_lines
from adoption.conftest import GUIDE, VERSIONS, Environment
from local_service import LocalService

Outcomes = dict[str, list[str]]  # by test: passed, failed, skipped or error, and why


class Counts(NamedTuple):
    """How many tests run, how many of them pass as published, and how many with ours."""

    run: int
    published: int
    ours: int


# The files that need no recordings; three SDKs have none of these.
OFFLINE = {
    "callautomation": Counts(104, 104, 102),
    "chat": Counts(65, 65, 65),
    "email": Counts(0, 0, 0),
    "identity": Counts(68, 68, 51),
    "jobrouter": Counts(0, 0, 0),
    "messages": Counts(0, 0, 0),
    "phonenumbers": Counts(58, 58, 37),
    "rooms": Counts(2, 2, 0),
    "sms": Counts(10, 10, 8),
}
# The files that do, with samples/local_service.py in place of the recordings. It knows neither
# typing notices nor read receipts nor requests that are repeated: eight tests fail, with both.
LIVE = {"chat": Counts(41, 33, 33), "identity": Counts(98, 98, 98)}


class Differs(NamedTuple):
    """Tests that pass as published and not with ours."""

    sdk: str
    tests: str  # a pattern that matches the ids of all of them, and of no other that differs
    count: int
    error: str  # a pattern that each one's error matches
    why: str


EXCEPTIONS = [
    Differs(
        "callautomation",
        r"test_ops_create_call$",
        2,
        "app_id must be a str, not NoneType",
        "the answer in the test has 'app_id' for 'appId', so the app's id is missing from it",
    ),
    Differs(
        "identity",
        r"bot_(identifier|kind)$",
        2,
        "_MicrosoftBotIdentifier|DID NOT WARN",
        "names that are deprecated, and gone from here",
    ),
    Differs(
        "identity",
        r"test_identifier_from_raw_id$",
        1,
        "assert 2 == 1",
        "a raw id with three parts is a Teams extension user's, as in Call Automation",
    ),
    Differs(
        "identity",
        r"throws_if_proactive_refresh_enabled_without_token_refresher$",
        2,
        "^TypeError: proactive_refresh needs a token_refresher",
        "arguments that do not go together are a TypeError, not a ValueError",
    ),
    Differs(
        "identity",
        r"test_(exit_|fractional_|proactive_refresher_(keeps|should.*after|should_not.*before))",
        12,
        "'_timer'|'get_current_utc_as_int'",
        "the test looks into the credential, or replaces its clock",
    ),
    Differs(
        "phonenumbers",
        r"test_phone_number_models\.py::",
        8,
        "has no attribute '[A-Z_]+_PREFIX'",
        "the test builds raw ids from private constants",
    ),
    Differs(
        "phonenumbers",
        r"credential_close$",
        2,
        "'_is_closed'",
        "the test looks into the credential",
    ),
    Differs(
        "phonenumbers",
        r"proactive_refresh_but_no_token_refresher$",
        2,
        "^TypeError: proactive_refresh needs a token_refresher",
        "arguments that do not go together are a TypeError, not a ValueError",
    ),
    Differs(
        "phonenumbers",
        r"utils\.py::test_(create_access_token|get_current_utc_as_int|get_current_utc_time)",
        3,
        "_shared.utils",
        "the test replaces functions inside of the helper that it tests",
    ),
    Differs(
        "phonenumbers",
        r"test_parse_connection_str_valid$",
        1,
        "'https://resource.azure.com' == 'resource.azure.com'",
        "the endpoint keeps its scheme, which the clients would add again",
    ),
    Differs(
        "phonenumbers",
        r"test_(parse_connection_str_none|get_authentication_policy_no_credential)$",
        2,
        "^TypeError: .* not NoneType",
        "None is a TypeError, not a ValueError",
    ),
    Differs(
        "phonenumbers",
        r"test_phone_number_utils_async\.py::",
        3,
        "utils_async",
        "tests of a private timer, which nothing needs any more",
    ),
    Differs(
        "rooms",
        r"test_hmac\.py::",
        2,
        "not a base64 access key",
        "the key of the set-up is the placeholder 'fake===', which is not base64",
    ),
    Differs(
        "sms",
        r"test_hmac\.py::",
        2,
        "'_compute_hmac'",
        "the test calls a private method",
    ),
]


def run_tests(environment: Environment, sdk: str, *, ours: bool, **variables: str) -> Outcomes:
    """Run an SDK's tests, as published or with ours, and return what came of each."""
    sources = environment.sources / sdk
    folder = next(each for each in (sources / "tests", sources / "test") if each.is_dir())
    outcomes = environment.work / f"{sdk}.json"
    options = {
        "-p": "suites",
        "-c": "/dev/null",
        "--rootdir": folder,
        "-W": "ignore",  # their warnings are their own
        "--tb": "short",
        "--outcomes": outcomes,
        "-o": "cache_dir=/dev/null",
    }
    run = environment.run(
        environment.for_tests if ours else environment.published,
        *["-m", "pytest", "--continue-on-collection-errors", "."],
        *(text for option in options.items() for text in map(str, option)),
        cwd=folder,
        variables=variables,
    )
    assert run.returncode in (0, 1, 5), run.stdout + run.stderr  # passed, failed, no tests
    found: Outcomes = json.loads(outcomes.read_text("utf-8"))
    outcomes.unlink()
    return found


def count_passed(outcomes: Outcomes) -> int:
    return sum(outcome == "passed" for outcome, _ in outcomes.values())


def differences(published: Outcomes, ours: Outcomes) -> Iterator[tuple[str, str]]:
    """Yield each test that comes out differently, and why it fails with ours."""
    for test, (outcome, _) in published.items():
        file = test.partition("::")[0]  # whose tests are not found if it cannot be imported
        actual, why = ours.get(test) or ours[file]
        if actual != outcome:
            yield test, why


@pytest.mark.parametrize("sdk", sorted(VERSIONS))
def test_offline(environment: Environment, sdk: str) -> None:
    """Tests that need no recordings come out as published, but for the exceptions."""
    published = run_tests(environment, sdk, ours=False)
    ours = run_tests(environment, sdk, ours=True)
    expected = [each for each in EXCEPTIONS if each.sdk == sdk]
    counts = dict.fromkeys(expected, 0)
    for test, error in differences(published, ours):
        matching = [each for each in expected if re.search(each.tests, test)]
        assert len(matching) == 1, (test, error)
        assert re.search(matching[0].error, error), (test, error)
        counts[matching[0]] += 1
    assert counts == {each: each.count for each in expected}
    found = Counts(len(published), count_passed(published), count_passed(ours))
    assert found == OFFLINE[sdk]


@pytest.mark.parametrize("sdk", sorted(LIVE))
def test_live(environment: Environment, sdk: str) -> None:
    """Tests that need the service come out as published, and no request is refused."""
    outcomes = []
    for ours in (False, True):
        with LocalService() as service:
            outcomes.append(
                run_tests(
                    environment,
                    sdk,
                    ours=ours,
                    COMMUNICATION_LIVETEST_DYNAMIC_CONNECTION_STRING=service.connection_string,
                    ENTRA_TOKEN=service.entra_token(["https://communication.azure.com//.default"]),
                    REQUESTS_CA_BUNDLE=service.ca_path,
                    SSL_CERT_FILE=service.ca_path,
                    SKIP_INT_IDENTITY_EXCHANGE_TOKEN_TEST="true",
                )
            )
            assert service.statuses.total() > 50
            assert service.statuses[401] == 0
    assert [*differences(*outcomes)] == []
    assert Counts(len(outcomes[0]), *map(count_passed, outcomes)) == LIVE[sdk]


def test_every_exception_says_why() -> None:
    """Each exception is of an SDK that is tried, and accounts for all that do not pass."""
    assert {each.sdk for each in EXCEPTIONS} < set(VERSIONS)
    assert all(each.why and each.count for each in EXCEPTIONS)
    for sdk, counts in OFFLINE.items():
        excepted = sum(each.count for each in EXCEPTIONS if each.sdk == sdk)
        assert counts.published - counts.ours == excepted, sdk


def test_guide_has_the_counts() -> None:
    """The migration guide's table says for each SDK how many tests run, and how many pass."""
    guide = GUIDE.read_text("utf-8")
    rows = {tuple(line.strip("| ").split(" | ")) for line in guide.splitlines()}
    last = {(row[0], *row[2:]) for row in rows if len(row) == 6}
    for sdk, counts in OFFLINE.items():
        assert (sdk, str(count_lines(sdk)), *map(str, counts)) in last
    for sdk, counts in LIVE.items():
        assert f"{counts.ours} of {counts.run} tests of {sdk} pass, as published" in guide
