"""Flask on gunicorn with two workers forked from one process, started as the README says."""

import json
from collections.abc import Iterator
from functools import partial

import pytest
import requests

from local_service import LocalService
from web.servers import (
    THREAD,
    Crowd,
    add_users,
    assert_token_is_not_cached,
    post,
    server,
    settings_of,
    status_for,
    tokens_sent,
)

ACCOUNTS = [f"account-{number}" for number in range(4)]


def settings_for(service: LocalService, users: dict[str, str]) -> dict[str, str]:
    """Return the settings of an app whose own user is the first one."""
    accounts = {name: user for name, user in users.items() if name != "app"}
    return {
        **settings_of(service),
        "COMMUNICATION_SERVICES_USERS": json.dumps(accounts),
        "COMMUNICATION_SERVICES_USER_ID": users["app"],
    }


def test_workers_start_with_the_token_of_before_the_fork() -> None:
    """Both workers announce with the one token that was fetched before they were forked, although
    no connection was.
    """
    with LocalService() as service:
        users = add_users(service, ["app", "alice"])
        with server("gunicorn", settings_for(service, users)) as running:
            url = running.wait_for(r"Listening at: (http://\S+)")[1]
            running.wait_for("Booting worker", 2)
            assert service.issued == {users["app"]: 1}
            processes: list[int] = []

            def announce(session: requests.Session) -> None:
                session.headers["Connection"] = "close"  # so that either worker may take it
                target = f"{url}/threads/{THREAD}/announcements"
                processes.append(post(session, target, "alice", {"content": "Hello"})["process"])

            Crowd([announce] * 4).stop_when(lambda: len({*processes}) == 2)
    assert service.issued == {users["app"]: 1}
    assert service.statuses == {200: 1, 201: len(processes)}
    assert len(tokens_sent(service)) == 1


def test_messages_while_tokens_roll_over() -> None:
    """Requests for the app and four users while the tokens of each roll over in both workers: no
    401, and no token that was issued for nothing or before half of the last one's life.
    """
    with LocalService(token_lifetime=4) as service:
        users = add_users(service, ["app", *ACCOUNTS])
        with server("gunicorn", settings_for(service, users)) as running:
            url = running.wait_for(r"Listening at: (http://\S+)")[1]
            given: set[str] = set()

            def call(account: str, session: requests.Session) -> None:
                session.headers["Connection"] = "close"
                for kind in ("messages", "announcements"):
                    post(session, f"{url}/threads/{THREAD}/{kind}", account, {"content": "Hello"})
                given.add(f"Bearer {post(session, f'{url}/token', account)['token']}")

            crowd = Crowd([partial(call, account) for account in ACCOUNTS * 2])
            seconds = crowd.stop_when(lambda: all(service.issued[u] >= 5 for u in users.values()))
    assert service.statuses[401] == 0
    assert service.statuses[201] == 2 * crowd.calls
    # Unless the app had the token of before the fork for too short a time to send it.
    assert len(tokens_sent(service) | given) in (service.issued.total() - 1, service.issued.total())
    for user in users.values():  # each worker its own
        assert service.issued[user] <= 1 + 2 * (1 + seconds / 2)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of an app whose service has one user."""
    with LocalService() as service:
        users = add_users(service, ["app", "alice"])
        with server("gunicorn", settings_for(service, users)) as running:
            yield running.wait_for(r"Listening at: (http://\S+)")[1]
    assert set(service.statuses) <= {200, 201, 404}


@pytest.mark.parametrize("headers", [{}, {"X-MS-CLIENT-PRINCIPAL-ID": "app"}])
@pytest.mark.parametrize("path", ["token", "threads/t/messages", "threads/t/announcements"])
def test_sign_in(url: str, path: str, headers: dict[str, str]) -> None:
    """Whoever has not signed in gets nothing, and the app's own user is nobody's account."""
    answer = requests.post(f"{url}/{path}", json={"content": "x"}, headers=headers, timeout=10)
    assert answer.status_code == 401


def test_token_is_not_cached(url: str) -> None:
    """No cache between may keep a token."""
    assert_token_is_not_cached(url)


@pytest.mark.parametrize(
    ("thread", "body", "status"),
    [
        (THREAD, b"", 400),
        (THREAD, b"{", 400),
        (THREAD, b"[" * 100_000, 400),
        (THREAD, b'{"content": ""}', 400),
        (THREAD, b'{"content": "\\ud800"}', 400),
        ("19:other@thread.v2", b'{"content": "Hello"}', 404),
        ("%2e%2e", b'{"content": "Hello"}', 404),
        ("19:a%00b", b'{"content": "Hello"}', 404),
    ],
)
def test_request_that_is_not_valid(url: str, thread: str, body: bytes, status: int) -> None:
    """It is the caller's mistake."""
    assert status_for(url, thread, body) == status
