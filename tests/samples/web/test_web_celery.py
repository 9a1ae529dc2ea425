"""A Celery worker on a real Redis, started as the README says."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from local_service import LocalService
from shared_cache.fleet import RedisServer, why_not
from web.servers import (
    SAMPLE,
    THREAD,
    add_users,
    command_of,
    server,
    settings_of,
    tokens_sent,
    wait_for,
)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A Redis server of the test's own, on a port of the loopback interface."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), tcp=True)
        server.start()
        yield server
        server.stop()


def send(service: LocalService, settings: dict[str, str], users: list[str]) -> None:
    """Have a message sent by each of these users, as an application does, and wait for the last."""
    expected = service.statuses[201] + len(users)
    script = Path(__file__).with_name("send_messages.py")
    sending = subprocess.run(
        [sys.executable, script, THREAD],
        cwd=SAMPLE,
        env={**os.environ, **settings, **command_of("celery")[1]},
        input=json.dumps(users),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert sending.returncode == 0, sending.stderr
    wait_for(lambda: service.statuses[201] >= expected, "the last message", 180)


def settings_for(service: LocalService, redis: RedisServer) -> dict[str, str]:
    """Return the settings of the worker, and of who has it work."""
    keys = Fernet.generate_key().decode()
    return {**settings_of(service), "REDIS_URL": redis.url, "SHARED_TOKEN_CACHE_KEYS": keys}


def test_messages_of_thousands_of_users(redis: RedisServer) -> None:
    """For 2,000 users, of whom each of two processes keeps 100, one token each is issued, whichever
    process sends their next message.
    """
    with LocalService() as service:
        users = [*add_users(service, [f"user-{number}" for number in range(2000)]).values()]
        settings = settings_for(service, redis)
        with server("celery", settings):
            send(service, settings, [*users, *users[:200]])
    assert service.statuses == {200: 2000, 201: 2200}
    assert service.issued == dict.fromkeys(users, 1)
    assert len(tokens_sent(service)) == 2000


def test_messages_while_tokens_roll_over(redis: RedisServer) -> None:
    """While the tokens of five users roll over twice, both processes together need one for each
    period, and no request is answered with 401.
    """
    with LocalService(token_lifetime=4) as service:
        users = [*add_users(service, [f"user-{number}" for number in range(5)]).values()]
        settings = settings_for(service, redis)
        with server("celery", settings):
            began = time.monotonic()
            while min(service.issued[user] for user in users) < 3:
                send(service, settings, users * 10)
            seconds = time.monotonic() - began
    assert service.statuses.keys() == {200, 201}
    assert service.statuses[200] == service.issued.total()
    assert len(tokens_sent(service)) == service.issued.total()
    assert max(service.issued.values()) <= 1 + seconds / 2
