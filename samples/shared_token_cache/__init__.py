"""One token for each user of a whole fleet: refreshers that share tokens through Redis.

Each process that issues a token of its own for a user spends the identity service's quota. Here one
process issues it, the others take it from Redis, and none of them depends on Redis::

    cache = SharedTokenCache(os.environ["REDIS_URL"], os.environ["SHARED_TOKEN_CACHE_KEYS"])
    refresher = cache.refresher(user_id, lambda: identity_client.get_token(user, scopes).token)
    credential = CommunicationTokenCredential(token_refresher=refresher)

*How it works.* A credential calls its refresher when it wants another token than the one it has:
that one comes to its end, or was refused. So a refresher never returns the same token twice. It
takes what it finds in Redis if that is another one whose refresh window has not opened. If not, the
process that gets the lock issues a token and stores it, and the others wait for that.

*Refused tokens.* A refresher that is asked again before the window of its last token has opened
takes that token for refused, or for short of some claims, which comes to the same. It drops what
Redis holds, unless that was issued in place of this very token: the tokens of a user are revoked
all at once, and another one that is older than the refusal would be refused, too.

*Faults.* The lock saves issues, nothing else rests on it. When it expires under a slow holder, two
processes issue, and the one that is late to store finds that the value has changed and leaves it.
Redis takes no more than a second of any request, and no request fails through it: after the first
error tokens are issued directly for a while.

*Clocks.* Each process compares times with its own clock. While that is wrong by less than the
refresh window, only the moment of refreshes changes. Values expire by the clock of Redis.

*Two drivers.* The steps are a generator, which yields the result of each call that may have to be
awaited; what to decide is left to plain functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken, AccessTokenInfo
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from redis.exceptions import LockError

__all__ = ["AsyncSharedTokenCache", "SharedTokenCache"]

_LOGGER = logging.getLogger(__name__)

# How long before expiry credentials refresh, on demand and proactively. At half of a shorter life.
REFRESH_WINDOW_SECONDS, PROACTIVE_WINDOW_SECONDS = 120, 600
LOCK_SECONDS = 10  # after which the others take a holder for dead
WAIT_SECONDS = 20  # for others to issue: one of them may die meanwhile
POLL_SECONDS = 0.05
BREAK_SECONDS = 30  # for which Redis is left alone after an error
PROBE_SECONDS = 2  # for which, after that, one request tries it

# Neither script changes another value than the one that its caller has read.
DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
STORE = """
local found = redis.call('GET', KEYS[1])
if not found or found == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
"""

T = TypeVar("T")
Steps = Generator[Any, Any, T]
TokenLike = str | AccessToken | AccessTokenInfo


@dataclass(frozen=True)
class Record:
    """A token as Redis holds it, encrypted."""

    key: str  # where it belongs, or somebody could move it to another user's key
    token: str = field(repr=False)
    expires_on: int
    refresh_on: float
    instead_of: str | None  # the refused token, as its digest, that it was issued in place of


class Given(NamedTuple):
    """What a refresher remembers of the token that it returned last."""

    digest: str
    refresh_on: float


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def refresh_on(expires_on: float, now: float, window: float) -> float:
    return expires_on - min(window, (expires_on - now) / 2)


def is_answer(record: Record, given: Given | None, refused: str | None, now: float) -> bool:
    """Tell whether a refresher may return what it found in Redis."""
    is_another = record.instead_of == refused if refused else True
    is_another = is_another and (given is None or given.digest != digest(record.token))
    return is_another and now < record.refresh_on


def seal(keys: MultiFernet, record: Record) -> bytes:
    return keys.encrypt(json.dumps(astuple(record)).encode())


def unseal(keys: MultiFernet, key: str, value: bytes) -> Record | None:
    """Return the record stored under a key, or None if it is not one that we stored there."""
    try:
        record = Record(*json.loads(keys.decrypt(value)))
    except (InvalidToken, TypeError, ValueError):
        return None
    return record if record.key == key else None


def read_keys(keys: str) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key.strip()) for key in keys.split(",")])
    except ValueError:
        msg = "keys must be Fernet keys with commas between them; Fernet.generate_key() makes one"
        raise ValueError(msg) from None  # without what it says about the key


@dataclass
class _Visit:
    """What one call of a refresher knows so far."""

    key: str
    given: Given | None
    refused: str | None
    lock: Any
    has_lock: bool = False
    seen: bytes | None = None  # the value that a new one may replace
    spent: float = 0.0  # seconds that Redis has taken


class _Cache:
    _wall, _mono = staticmethod(time.time), staticmethod(time.monotonic)  # for tests to replace
    _client_type: Any
    _sleep: Any

    def __init__(self, url: str, keys: str, *, timeout: float = 0.2, **options: Any) -> None:
        self._keys, self._timeout = read_keys(keys), timeout
        # No retries, for one can do without Redis; RESP2, which connects in fewer round trips.
        bounds = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": None}
        options = {**bounds, "protocol": 2, **options}
        try:
            self._client = self._client_type.from_url(url, **options)
        except ValueError:
            msg = "url must be one that redis-py can read, its password percent-encoded"
            raise ValueError(msg) from None  # without the part of it that is not understood
        self._retry_at = 0.0  # when to try Redis again; 0 if it works

    def _steps(self, user_id: str, issue: Callable[[], Any]) -> Callable[[], Steps[AccessToken]]:
        """Return what a refresher does, in steps. They may be gone more than once at a time."""
        key = f"acs-token:{digest(user_id)}"
        given: Given | None = None

        def steps() -> Steps[AccessToken]:
            nonlocal given
            refused = given.digest if given and self._wall() < given.refresh_on else None
            lock = self._client.lock(f"{key}:lock", timeout=LOCK_SECONDS)
            visit = _Visit(key, given, refused, lock)
            record = yield from self._unless_down(self._find(visit))
            if record is None:
                record = yield from self._issue(visit, issue)
            window = refresh_on(record.expires_on, self._wall(), PROACTIVE_WINDOW_SECONDS)
            given = Given(digest(record.token), window)
            return AccessToken(record.token, record.expires_on)

        return steps

    def _find(self, visit: _Visit) -> Steps[Record | None]:
        """Return a token from Redis, or None for the caller to issue one."""
        refused, give_up_at = visit.refused, self._mono() + WAIT_SECONDS
        while True:
            visit.seen = yield from self._ask(visit, self._client.get, visit.key)
            record = unseal(self._keys, visit.key, visit.seen) if visit.seen else None
            if record and is_answer(record, visit.given, refused, self._wall()):
                yield from self._unlock(visit)
                return record
            if visit.seen and (refused or not record):
                if not record:
                    _LOGGER.warning("Redis held a value that none of the keys decrypts; dropped.")
                yield from self._ask(visit, self._client.eval, DROP, 1, visit.key, visit.seen)
                visit.seen = None
            refused = None  # what comes from now on is newer than the refusal
            if visit.has_lock or self._mono() >= give_up_at:
                return None
            visit.has_lock = yield from self._ask(visit, visit.lock.acquire, blocking=False)
            if not visit.has_lock:
                yield self._sleep(POLL_SECONDS)
                visit.spent = 0.0  # what delays the caller now is not Redis

    def _issue(self, visit: _Visit, issue: Callable[[], Any]) -> Steps[Record]:
        try:
            # A static credential reads tokens of every form.
            token = CommunicationTokenCredential((yield issue())).get_token()
        except Exception:
            yield from self._unless_down(self._unlock(visit))
            raise
        window = refresh_on(token.expires_on, self._wall(), REFRESH_WINDOW_SECONDS)
        record = Record(visit.key, token.token, token.expires_on, window, visit.refused)
        yield from self._unless_down(self._store(visit, record))
        return record

    def _store(self, visit: _Visit, record: Record) -> Steps[None]:
        milliseconds = int((record.refresh_on - self._wall()) * 1000)
        if milliseconds > 0:
            values = visit.seen or b"", seal(self._keys, record), milliseconds
            yield from self._ask(visit, self._client.eval, STORE, 1, visit.key, *values)
        yield from self._unlock(visit)

    def _unlock(self, visit: _Visit) -> Steps[None]:
        if visit.has_lock:
            visit.has_lock = False
            with contextlib.suppress(LockError):  # it has expired, and may be another's
                yield from self._ask(visit, visit.lock.release)

    def _ask(
        self, visit: _Visit, operation: Callable[..., Any], *args: Any, **options: Any
    ) -> Steps[Any]:
        began = self._mono()
        answer = yield operation(*args, **options)
        visit.spent += self._mono() - began
        if visit.spent > 2 * self._timeout:
            raise TimeoutError("Redis is too slow")
        return answer

    def _unless_down(self, steps: Steps[T]) -> Steps[T | None]:
        """Go the steps unless Redis has failed shortly before; if it fails now, do without."""
        if self._mono() < self._retry_at:
            return None
        if self._retry_at:  # others need not be delayed, too, by finding out
            self._retry_at = self._mono() + PROBE_SECONDS
        try:
            result = yield from steps
        except Exception as error:  # noqa: BLE001 - a cache has no faults that concern the caller
            self._retry_at = self._mono() + BREAK_SECONDS
            _LOGGER.warning(
                "Redis failed, so tokens are issued without it for %d seconds. %s: %s",
                BREAK_SECONDS,
                type(error).__name__,
                error,
            )
            return None
        self._retry_at = 0.0
        return result


class SharedTokenCache(_Cache):
    """The tokens of a fleet, for :class:`azure.communication.common.CommunicationTokenCredential`.

    One for each process; thread-safe. Constructing it does no I/O.

    :param str url: Where Redis is, as redis-py's ``Redis.from_url`` takes it.
    :param str keys: Fernet keys with commas between them. The first encrypts, all of them decrypt.
    :keyword float timeout: For how many seconds to wait for one answer of Redis. All its answers
        may take about five times as long, then a request goes on without it.
    :keyword options: Other options of redis-py's client, such as ``credential_provider``.
    :raises ValueError: If the URL or a key cannot be used.
    """

    _client_type = redis.Redis
    _sleep = staticmethod(time.sleep)

    def refresher(self, user_id: str, issue: Callable[[], TokenLike]) -> Callable[[], AccessToken]:
        """Return a ``token_refresher`` for one credential. Every credential needs its own.

        :param str user_id: Whose token it is. If a user has tokens of different scopes, add the
            scopes to it. Redis sees a hash of it.
        :param issue: Issues a new token. It should take less than ten seconds.
        :type issue: ~collections.abc.Callable[[], str or ~azure.core.credentials.AccessToken]
        :return: The refresher. It raises what ``issue`` raises.
        :rtype: ~collections.abc.Callable[[], ~azure.core.credentials.AccessToken]
        """
        steps = self._steps(user_id, issue)
        return lambda: _run(steps())

    def close(self) -> None:
        """Close the connections to Redis."""
        self._client.close()


class AsyncSharedTokenCache(_Cache):
    """The same for :class:`azure.communication.common.aio.CommunicationTokenCredential`.

    One for each event loop, for redis-py's connections belong to one.
    """

    _client_type = redis.asyncio.Redis
    _sleep = staticmethod(asyncio.sleep)

    def refresher(
        self, user_id: str, issue: Callable[[], TokenLike | Awaitable[TokenLike]]
    ) -> Callable[[], Coroutine[Any, Any, AccessToken]]:
        """Return a ``token_refresher`` for one credential; ``issue`` may be ``async def``."""
        steps = self._steps(user_id, issue)

        async def refresh() -> AccessToken:
            return await _run_async(steps())

        return refresh

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._client.aclose()


def _run(steps: Steps[T]) -> T:
    result = None
    try:
        while True:
            result = steps.send(result)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _run_async(steps: Steps[T]) -> T:
    result, error = None, None
    try:
        while True:
            step = steps.throw(error) if error else steps.send(result)
            result, error = None, None
            try:
                result = await step if inspect.isawaitable(step) else step
            except Exception as exc:  # noqa: BLE001 - for the steps to deal with
                error = exc
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
