"""One token for each user of a whole fleet: refreshers that share tokens through Redis.

Each process that issues a token of its own for a user spends the identity service's quota. Here one
process issues it, the others take it from Redis, and none of them depends on Redis::

    cache = SharedTokenCache(os.environ["REDIS_URL"], os.environ["SHARED_TOKEN_CACHE_KEYS"])
    refresher = cache.refresher(user_id, lambda: identity_client.get_token(user, scopes).token)
    credential = CommunicationTokenCredential(token_refresher=refresher)

*How it works.* A credential calls its refresher when it wants another token than the one it has:
that one is about to expire, or was refused. So a refresher never returns the same token twice. It
returns what it finds in Redis if that is a later one whose refresh window has not opened. If not,
the process that gets the lock issues a token and stores it, and the others wait for that.

*Refused tokens.* A refresher that is asked again before the window of its last token has opened
concludes that it was refused, or lacks some claims, which comes to the same. Since all tokens
of a user are revoked at once, it then accepts a token only if that was issued in place of this very
one, or after it was asked. It drops whatever else Redis holds.

*Faults.* The lock only saves issues. When it expires under a slow holder, two processes issue, and
the one that is late to store finds that the value has changed and leaves it. Redis takes no more
than a second of any request, and no request fails because of it: after the first error, tokens are
issued directly for a while.

*Who can write to Redis* can neither read a token, nor give a user another user's token, nor keep a
user from a fresh one: values are encrypted, tell where they belong and when they were issued, and
the names of keys do not tell whose they are. What cannot be read is dropped, and concerns no other
key.

*Clocks.* Each process compares times with its own clock. While that is wrong by less than the
refresh window, only the moment of refreshes changes. Values expire by the clock of Redis.

*Two drivers.* The steps are a generator, which yields the result of each call that may have to be
awaited. Plain functions decide.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio
from azure.communication.common import CommunicationTokenCredential
from azure.core.credentials import AccessToken, AccessTokenInfo
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

__all__ = ["AsyncSharedTokenCache", "SharedTokenCache"]

_LOGGER = logging.getLogger(__name__)

# How long before expiry credentials refresh, on demand and proactively. At half of a shorter life.
REFRESH_WINDOW_SECONDS, PROACTIVE_WINDOW_SECONDS = 120, 600
LOCK_SECONDS = 10  # after which the others assume that a holder has died
WAIT_SECONDS = 20  # for others to issue: one of them may die meanwhile
POLL_SECONDS = 0.05
BREAK_SECONDS = 30  # for which Redis is left alone after an error
PROBE_SECONDS = 2  # for which, after that, one request tries it
MAX_BYTES = 16384  # of a value; a token has two thousand

# A value of another type or of any size is not an error, which would end the use of Redis for all
# users.
READ = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return false end
if kind == 'string' and redis.call('STRLEN', KEYS[1]) <= tonumber(ARGV[1]) then
  return redis.call('GET', KEYS[1])
end
redis.call('UNLINK', KEYS[1])
return ''
"""
# These two only change the value that the caller has read.
DROP = "if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('UNLINK', KEYS[1]) end"
STORE = """
local found = redis.pcall('GET', KEYS[1])
if not found or found == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
"""
# A lock that would not expire in time is not one of ours.
LOCK = """
local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left <= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
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
    issued_on: float  # or later; or somebody could put an older one in place of a newer
    instead_of: str | None  # the refused token, as its digest, that it was issued in place of

    @property
    def refresh_on(self) -> float:
        return refresh_on(self.expires_on, self.issued_on, REFRESH_WINDOW_SECONDS)


class Given(NamedTuple):
    """What a refresher remembers of the token that it returned last."""

    digest: str
    issued_on: float
    asked_on: float  # when the refresher was asked for it
    refresh_on: float  # by the proactive window, which opens first

    def is_refused(self, asked_on: float) -> bool:
        """Return whether a request for another one at that time is due to a refusal."""
        return asked_on < self.refresh_on


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def refresh_on(expires_on: float, now: float, window: float) -> float:
    return expires_on - min(window, (expires_on - now) / 2)


def is_answer(record: Record, given: Given | None, asked_on: float, now: float) -> bool:
    """Return whether a refresher, asked at some time, may return what it found in Redis now."""
    if now >= record.refresh_on:
        return False
    if given is None:
        return True
    if given.digest == digest(record.token):
        return False
    if not given.is_refused(asked_on):
        return record.issued_on > given.issued_on
    if record.instead_of == given.digest:
        return record.issued_on >= given.asked_on  # earlier ones were refused, too, as was that
    return record.issued_on > asked_on


def seal(keys: MultiFernet, record: Record) -> bytes:
    return keys.encrypt(json.dumps(astuple(record)).encode())


def unseal(keys: MultiFernet, key: str, value: bytes) -> Record | None:
    """Return the record stored under a key, or None if it is not one that we stored there."""
    try:
        record = Record(*json.loads(keys.decrypt(value)))
        kinds = [type(each) for each in astuple(record)]
    except (InvalidToken, RecursionError, TypeError, ValueError):
        return None
    if kinds not in ([str, str, int, float, str], [str, str, int, float, type(None)]):
        return None  # of another version of this file
    is_ours = record.key == key and record.token.isascii()
    return record if is_ours and 0 < record.issued_on < record.expires_on < 2**40 else None


def read_keys(keys: str) -> MultiFernet:
    with suppress(ValueError):  # which must not be the context of ours: it is about the key
        return MultiFernet([Fernet(key.strip()) for key in keys.split(",")])
    msg = "keys must be Fernet keys with commas between them; Fernet.generate_key() makes one"
    raise ValueError(msg)


def name_of(keys: str, user_id: str) -> str:
    """Return the key in Redis of a user's token, for which one has to know the last of our keys."""
    secret = keys.rpartition(",")[2].strip()
    return f"acs-token:{hmac.digest(secret.encode(), user_id.encode(), 'sha256').hex()}"


@dataclass
class _Request:
    """What one call of a refresher knows so far."""

    key: str
    given: Given | None
    asked_on: float
    lock: str = field(default_factory=secrets.token_hex)  # what the lock holds while it is ours
    has_lock: bool = False
    seen: bytes | None = None  # the value that a new one may replace
    spent: float = 0.0  # seconds that Redis has taken

    @property
    def refused(self) -> str | None:
        """The token that was refused, as its digest."""
        given = self.given
        return given.digest if given and given.is_refused(self.asked_on) else None


class _Cache:
    _wall, _mono = staticmethod(time.time), staticmethod(time.monotonic)  # for tests to replace
    _client_type: Any
    _sleep: Any

    def __init__(self, url: str, keys: str, *, timeout: float = 0.2, **options: Any) -> None:
        self._keys, self._timeout = read_keys(keys), timeout
        self._name_of = partial(name_of, keys)
        # No retries, because Redis is not essential; RESP2, which connects in fewer round trips.
        bounds = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": None}
        options = {**bounds, "protocol": 2, **options}
        self._client: Any = None
        with suppress(ValueError):  # which quotes what it did not understand, as the password
            self._client = self._client_type.from_url(url, **options)
        if self._client is None:
            msg = "url must be one that redis-py can read, its password percent-encoded"
            raise ValueError(msg)
        self._retry_at = 0.0  # when to try Redis again; 0 if it works

    def _steps(self, user_id: str, issue: Callable[[], Any]) -> Callable[[], Steps[AccessToken]]:
        """Return what a refresher does, in steps. They may be run more than once at a time."""
        key = self._name_of(user_id)
        given: Given | None = None

        def steps() -> Steps[AccessToken]:
            nonlocal given
            request = _Request(key, given, self._wall())
            record = yield from self._unless_down(self._find(request))
            if record is None:
                record = yield from self._issue(request, issue)
            window = refresh_on(record.expires_on, self._wall(), PROACTIVE_WINDOW_SECONDS)
            given = Given(digest(record.token), record.issued_on, request.asked_on, window)
            return AccessToken(record.token, record.expires_on)

        return steps

    def _find(self, request: _Request) -> Steps[Record | None]:
        """Return a token from Redis, or None for the caller to issue one."""
        give_up_at, is_first = self._mono() + WAIT_SECONDS, True
        while True:
            request.seen = yield from self._eval(request, READ, request.key, MAX_BYTES)
            record = unseal(self._keys, request.key, request.seen) if request.seen else None
            if record and is_answer(record, request.given, request.asked_on, self._wall()):
                yield from self._unlock(request)
                return record
            if request.seen is not None and (not record or (request.refused and is_first)):
                if not record:
                    _LOGGER.warning("Redis held a value that none of the keys decrypts; dropped.")
                yield from self._eval(request, DROP, request.key, request.seen)
                request.seen = None
            is_first = False  # what comes from now on may be useful to others
            if request.has_lock or self._mono() >= give_up_at:
                return None
            milliseconds = int(LOCK_SECONDS * 1000)
            lock = f"{request.key}:lock", request.lock, milliseconds
            request.has_lock = bool((yield from self._eval(request, LOCK, *lock)))
            if not request.has_lock:
                yield self._sleep(POLL_SECONDS)
                request.spent = 0.0  # what delays the caller now is not Redis

    def _issue(self, request: _Request, issue: Callable[[], Any]) -> Steps[Record]:
        issued_on = float(self._wall())  # then or later
        try:
            # A static credential reads tokens of every form.
            token = CommunicationTokenCredential((yield issue())).get_token()
        except Exception:
            yield from self._unless_down(self._unlock(request))
            raise
        record = Record(
            request.key, token.token, token.expires_on, issued_on, instead_of=request.refused
        )
        yield from self._unless_down(self._store(request, record))
        return record

    def _store(self, request: _Request, record: Record) -> Steps[None]:
        milliseconds = int((record.refresh_on - self._wall()) * 1000)
        if milliseconds > 0:
            values = request.seen or b"", seal(self._keys, record), milliseconds
            yield from self._eval(request, STORE, request.key, *values)
        yield from self._unlock(request)

    def _unlock(self, request: _Request) -> Steps[None]:
        if request.has_lock:
            request.has_lock = False
            yield from self._eval(request, DROP, f"{request.key}:lock", request.lock)

    def _eval(self, request: _Request, script: str, key: str, *values: Any) -> Steps[Any]:
        """Have Redis run a script on a key."""
        began = self._mono()
        answer = yield self._client.eval(script, 1, key, *values)
        request.spent += self._mono() - began
        if request.spent > 2 * self._timeout:
            raise TimeoutError("Redis is too slow")
        return answer

    def _unless_down(self, steps: Steps[T]) -> Steps[T | None]:
        """Run the steps unless Redis has failed shortly before; if it fails now, do without."""
        if self._mono() < self._retry_at:
            return None
        if self._retry_at:  # others need not be delayed, too, by finding out
            self._retry_at = self._mono() + PROBE_SECONDS
        try:
            result = yield from steps
        except Exception as error:  # noqa: BLE001 - a cache has no fault that concerns the caller
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
    :param str keys: Fernet keys with commas between them. The first encrypts, all of them decrypt,
        and the last one hides whose token is where.
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
            scopes to it. Redis sees a keyed hash of it.
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

    One for each event loop, because redis-py's connections belong to one.
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
