"""FastAPI on uvicorn, started as the README says."""

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


def test_messages_while_tokens_roll_over() -> None:
    """Requests for four users, from eight threads, while the tokens of each roll over twice: no
    401, and no token that was issued for nothing or before half of the last one's life.
    """
    with LocalService(token_lifetime=4) as service:
        users = add_users(service, ACCOUNTS)
        settings = {**settings_of(service), "COMMUNICATION_SERVICES_USERS": json.dumps(users)}
        with server("uvicorn", settings) as running:
            url = running.wait_for(r"running on (http://\S+)")[1]
            given: set[str] = set()

            def call(account: str, session: requests.Session) -> None:
                post(session, f"{url}/threads/{THREAD}/messages", account, {"content": "Hello"})
                given.add(f"Bearer {post(session, f'{url}/token', account)['token']}")

            crowd = Crowd([partial(call, account) for account in ACCOUNTS * 2])
            seconds = crowd.stop_when(lambda: all(service.issued[u] >= 3 for u in users.values()))
    assert service.statuses[401] == 0
    assert service.statuses[201] == crowd.calls
    assert len(tokens_sent(service) | given) == service.issued.total()
    assert max(service.issued.values()) <= 1 + seconds / 2


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of an app whose service has one user."""
    with LocalService() as service:
        users = add_users(service, ["alice"])
        settings = {**settings_of(service), "COMMUNICATION_SERVICES_USERS": json.dumps(users)}
        with server("uvicorn", settings) as running:
            yield running.wait_for(r"running on (http://\S+)")[1]
    assert set(service.statuses) <= {200, 201, 404}


@pytest.mark.parametrize("headers", [{}, {"X-MS-CLIENT-PRINCIPAL-ID": "mallory"}])
@pytest.mark.parametrize("path", ["token", f"threads/{THREAD}/messages"])
def test_sign_in(url: str, path: str, headers: dict[str, str]) -> None:
    """Whoever has not signed in gets nothing."""
    answer = requests.post(f"{url}/{path}", json={"content": "x"}, headers=headers, timeout=10)
    assert answer.status_code == 401


def test_token_is_not_cached(url: str) -> None:
    """No cache between may keep a token."""
    assert_token_is_not_cached(url)


@pytest.mark.parametrize(
    ("thread", "body", "status"),
    [
        (THREAD, b"", 422),
        (THREAD, b"{", 422),
        (THREAD, b"[" * 100_000, 400),
        (THREAD, b'{"content": ""}', 422),
        (THREAD, b'{"content": "\\ud800"}', 422),
        ("19:other@thread.v2", b'{"content": "Hello"}', 404),
        ("%2e%2e", b'{"content": "Hello"}', 422),
        ("19:a%00b", b'{"content": "Hello"}', 422),
    ],
)
def test_request_that_is_not_valid(url: str, thread: str, body: bytes, status: int) -> None:
    """It is the caller's mistake."""
    assert status_for(url, thread, body) == status
