"""The heap of credentials by due time: one for the thread, and one for each event loop.

It holds weak references only, so a dropped credential is collected without ``close()``; its entry,
like that of a closed or re-armed one, is skipped when its time comes, or swept out once such
entries are more than half. A weak reference's callback may run at any time, even during this code,
so it only counts.

The only time kept is the entry's own: it is derived from the state of the cache whenever that
changes. An entry that was due stays, due again in a minute, until the state changes again; so
whatever becomes of the refresh that it caused, there will be another.
"""

import heapq
import itertools
import weakref
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from ._cache import SYSTEM_CLOCK, Clock, TokenCache
from ._refresh import REFRESH_SECONDS, Due, due

LONGEST_SLEEP_SECONDS = 30  # for so long, a suspended machine or a clock change may go unnoticed
# 100 refreshes in 10 seconds are a third of what the identity service allows one resource.
BUCKET_SECONDS, BUCKET_SIZE = 10, 100
BATCH = 1_000  # entries examined at a time

_numbers = itertools.count(1)  # for all heaps: a credential may move to another loop's

Reference: TypeAlias = weakref.ref[TokenCache]
Entry: TypeAlias = tuple[float, int, Reference, bool]
"""When it is due, its number, the cache, and whether it counts in a bucket."""


class Schedule:
    """A heap of caches by due time. Not thread-safe, except for :meth:`remove`.

    :param clock: The source of time and of random numbers.
    :type clock: ~azure.communication.common._cache.Clock
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.heap: list[Entry] = []
        # Changed caches whose timers are being set. Each stays until it is in the heap, so that an
        # interrupt, or a fork of another thread, loses none.
        self._taken: dict[Reference, None] = {}
        self._void = 0  # entries whose cache was dropped, closed or re-armed; approximate
        self._buckets: Counter[int] = Counter()
        self._offset = clock.wall() - clock.mono()
        self._on_drop = self._count_void

    def __len__(self) -> int:
        """Return the number of entries, void ones and those about to be made included."""
        return len(self.heap) + len(self._taken)

    def add(self, cache: TokenCache) -> None:
        """Set the timer of a cache according to its state; an older entry becomes void."""
        self.remove(cache)
        self._tidy_up()
        now = self._clock.now()  # read once: the machine may be suspended at any line
        moment = due(cache.state, now)
        if moment is None:
            return
        when = now.wall + self._spread(moment, now.wall)
        self._buckets[_bucket(when)] += 1
        self._push(cache, when, counts=True)
        if cache.state.closed:  # since its due time was computed
            self.remove(cache)

    def take(
        self,
        changed: dict[Reference, None],
        is_ours: Callable[[TokenCache], bool] = lambda _: True,
    ) -> None:
        """Set the timers of caches that a driver recorded as changed, a batch at a time."""
        self._taken.update(changed)
        for reference in list(self._taken)[:BATCH]:
            changed.pop(reference, None)  # first, so that a change from now on is recorded anew
            cache = reference()
            if cache is not None and is_ours(cache):
                try:
                    self.add(cache)
                except Exception:
                    # At once it would recur; and not to try again would end the refreshes for good.
                    self._push(cache, self._clock.wall() + REFRESH_SECONDS, counts=False)
                    self._taken.pop(reference)
                    raise
            self._taken.pop(reference)

    def remove(self, cache: TokenCache) -> None:
        """Disarm a cache. May be called from any thread."""
        if cache.entry:
            cache.entry = 0
            self._void += 1

    def pop_due(self, limit: int = BATCH) -> list[Reference]:
        """Return what is due, examining at most ``limit`` entries."""
        self._tidy_up()
        now = self._clock.wall()
        found: list[Reference] = []
        for _ in range(limit):
            if not self.heap or self.heap[0][0] > now:
                break
            if not _is_live(self.heap[0]):
                self._drop_first()
                continue
            _, number, reference, _ = self.heap[0]
            # A single step, so that no interrupt loses the entry.
            again = (now + REFRESH_SECONDS, number, reference, False)
            self._leave_bucket(heapq.heapreplace(self.heap, again))
            found.append(reference)
        return found

    def delay(self) -> float:
        """Return how many seconds to sleep before the next check, 0 if there is more to do."""
        if self._taken:
            return 0.0
        while self.heap and not _is_live(self.heap[0]):
            self._drop_first()
        if not self.heap:
            return LONGEST_SLEEP_SECONDS
        return min(max(self.heap[0][0] - self._clock.wall(), 0.0), LONGEST_SLEEP_SECONDS)

    def caches(self) -> list[TokenCache]:
        """Return the caches that are armed, or are about to be."""
        armed = [entry[2]() for entry in list(self.heap) if _is_live(entry)]
        about_to_be = [reference() for reference in list(self._taken)]
        return [cache for cache in {*armed, *about_to_be} if cache is not None]

    def _push(self, cache: TokenCache, when: float, *, counts: bool) -> None:
        number = cache.entry = next(_numbers)
        reference = weakref.ref(cache, self._on_drop)
        hash(reference)  # a dead one can be hashed only if that was done before
        heapq.heappush(self.heap, (when, number, reference, counts))

    def _spread(self, moment: Due, now: float) -> float:
        """Return the number of seconds after which a cache is due.

        A single one is due at the preferred time. Once as many are due in the same ten seconds as
        the service should get, a random time is tried, from a range that doubles.
        """
        earliest, preferred, latest = moment
        delay, width = preferred, 0.0
        while self._buckets[_bucket(now + delay)] >= BUCKET_SIZE:
            if width >= max(preferred - earliest, latest - preferred):
                break
            width = 2 * width + BUCKET_SECONDS
            start, end = max(earliest, preferred - width), min(latest, preferred + width)
            delay = end - self._clock.rand() * (end - start)
        return delay

    def _count_void(self, _: Reference) -> None:
        self._void += 1

    def _drop_first(self) -> None:
        self._leave_bucket(heapq.heappop(self.heap))
        self._void = max(self._void - 1, 0)

    def _leave_bucket(self, entry: Entry) -> None:
        bucket = _bucket(entry[0])
        if not entry[3]:
            return
        self._buckets[bucket] -= 1
        if self._buckets[bucket] <= 0:
            del self._buckets[bucket]

    def _tidy_up(self) -> None:
        """Follow changes of the clock, and sweep when it is worthwhile."""
        offset = self._clock.wall() - self._clock.mono()
        step = offset - self._offset
        if step <= -1:  # set back: entries stay where they were on the monotonic clock
            self._rebuild([(entry[0] + step, *entry[1:]) for entry in self.heap], offset)
        elif step >= 1:
            self._offset = offset
        if self._void > len(self.heap) // 2:
            self._void = 0
            self._rebuild([entry for entry in self.heap if _is_live(entry)], self._offset)

    def _rebuild(self, entries: list[Entry], offset: float) -> None:
        heapq.heapify(entries)
        buckets = Counter(_bucket(entry[0]) for entry in entries if entry[3])
        # No interrupt comes in between: Python checks for signals at calls and loops.
        self.heap, self._buckets, self._offset = entries, buckets, offset


def _bucket(when: float) -> int:
    return int(when // BUCKET_SECONDS)


def _is_live(entry: Entry) -> bool:
    cache = entry[2]()
    return cache is not None and cache.entry == entry[1]
