"""Thousands of callers and credentials at once, and what waiting costs; it takes real seconds.

Not part of the default run: ``python -m pytest tests/scale``.
"""

import threading
import time
import weakref
from typing import Any

import pytest

from fake_transport import WAYS, Way, outcome
from scaffolding import (
    Clock,
    Issuer,
    armed_caches,
    count_waiting,
    make_token,
    manual_scheduler,
    on_clock,
    run_all_due,
    run_async,
    state_of,
    turn_until,
    wait_until,
)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def clock() -> Clock:
    return Clock(wall=time.time())  # which the loops' timers go by


def many(way: Way) -> int:
    return 500 if way is WAYS["sync"] else 10_000


def test_all_share_one_refresh(way: Way, clock: Clock) -> None:
    """However many threads or coroutines meet an expired token, the refresher is called once."""
    credential_type, counted = count_waiting(on_clock(way.Credential, clock))
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=way.refresher(issuer))
    with way.callers() as callers:
        calls = callers.start_many(many(way), credential.get_token)
        counted.wait_for(many(way))
        issuer.release()
        assert len({outcome(call).token for call in calls}) == 1
    assert issuer.calls == 1


def test_waiting_uses_no_cpu(way: Way, clock: Clock) -> None:
    """They wait for a second at next to no cost."""
    credential_type, counted = count_waiting(on_clock(way.Credential, clock))
    issuer = Issuer(wall=clock.wall)
    issuer.hold()
    credential = credential_type(token_refresher=way.refresher(issuer))
    with way.callers() as callers:
        calls = callers.start_many(many(way), credential.get_token)
        counted.wait_for(many(way))
        wait_until(lambda: issuer.calls == 1)
        before = time.process_time()
        assert not threading.Event().wait(1)
        assert time.process_time() - before < 0.1
        issuer.release()
        assert len({outcome(call).token for call in calls}) == 1


def test_credentials_that_are_dropped_without_close_are_collected(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand leave no entry behind and call no refresher."""
    scheduler = manual_scheduler(monkeypatch, clock)
    issuer = Issuer(wall=clock.wall)
    credential_type = on_clock(WAYS["sync"].Credential, clock)
    token = make_token(clock.wall() + 3_600)
    credentials = [
        credential_type(token, token_refresher=issuer, proactive_refresh=True)
        for _ in range(10_000)
    ]
    kept = credentials[7]
    references = [weakref.ref(credential) for credential in credentials]
    del credentials
    assert [reference() for reference in references if reference() is not None] == [kept]
    run_all_due(scheduler)
    assert len(scheduler.schedule) == 1
    clock.advance(3_000)
    scheduler.run_due()
    issuer.wait_for_call(1)
    wait_until(lambda: not state_of(kept).refreshes)
    assert issuer.calls == 1
    kept.close()


def test_aio_credentials_that_are_dropped_without_close_are_collected(clock: Clock) -> None:
    """On an event loop as well."""
    issuer = Issuer(wall=clock.wall)
    credential_type = on_clock(WAYS["aio"].Credential, clock)
    token = make_token(clock.wall() + 3_600)

    async def main() -> None:
        credentials: list[Any] = [
            credential_type(token, token_refresher=issuer.issue, proactive_refresh=True)
            for _ in range(10_000)
        ]
        await turn_until(lambda: len(armed_caches()) == 10_000)
        references = [weakref.ref(credential) for credential in credentials]
        del credentials
        assert not any(reference() for reference in references)
        assert armed_caches() == []

    run_async(main())
    assert issuer.calls == 0
