"""The heap of credentials by due time: one for the thread, and one for each event loop.

It holds weak references only, so a dropped credential is collected without ``close()``; its entry,
like that of a closed or re-armed one, is skipped when it comes up, or swept out when such entries
are more than half; so locks are held for a constant time on average, and no dispatch looks at more
than a batch. A weak reference's callback may run at any time, even while this very thread holds a
lock, so it takes none: it counts.
"""

import heapq
import itertools
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ._refresh import CLOCK_CHECK_SECONDS

# 100 refreshes in 10 seconds are a third of what the identity service allows one resource.
BUCKET_SECONDS, BUCKET_SIZE = 10, 100
BATCH = 1_000  # entries looked at under one hold of the lock

_numbers = itertools.count(1)  # for all heaps: a credential may move to another loop's


class Refreshable(Protocol):
    """What the scheduler needs of a credential."""

    _entry: int
    """The number of its live entry in the heap, 0 if it has none."""

    def _refresh_ahead(self) -> Any: ...

    def _visit_after_fork(self) -> None: ...


Reference = weakref.ref[Refreshable]
Entry = tuple[float, int, Reference]


class Schedule:
    """A heap of credentials by due time. Not thread-safe, except for :meth:`remove`.

    :param wall: Returns the Unix time in seconds.
    :type wall: ~collections.abc.Callable[[], float]
    :param mono: Returns the time since some moment in seconds; nobody sets this clock.
    :type mono: ~collections.abc.Callable[[], float]
    :param rand: Returns a random number from 0 to 1.
    :type rand: ~collections.abc.Callable[[], float]
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._wall = wall
        self._mono = mono
        self._rand = rand
        self._heap: list[Entry] = []
        self._void = 0  # entries whose credential was dropped, closed or armed anew; about right
        self._buckets: Counter[int] = Counter()
        self._offset = wall() - mono()
        self._on_drop = self._count_void

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, item: Refreshable, earliest: float, latest: float) -> bool:
        """Arm a credential and tell whether it is the next one due; an older entry becomes void.

        A single credential is due at ``latest``. Once as many are due in the same ten seconds as
        the service should see, a random earlier time is tried, from a range that doubles.
        """
        self.remove(item)
        self._tidy_up()
        due, width = latest, 0.0
        while self._buckets[_bucket(due)] >= BUCKET_SIZE and width < latest - earliest:
            width = min(2 * width + BUCKET_SECONDS, latest - earliest)
            due = latest - self._rand() * width
        self._buckets[_bucket(due)] += 1
        item._entry = next(_numbers)
        entry = (due, item._entry, weakref.ref(item, self._on_drop))
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def remove(self, item: Refreshable) -> None:
        """Disarm a credential. Takes no lock and may be called from any thread."""
        if item._entry:
            item._entry = 0
            self._void += 1

    def pop_due(self, limit: int = BATCH) -> list[Reference]:
        """Take out what is due, looking at so many entries at most."""
        self._tidy_up()
        now = self._wall()
        due: list[Reference] = []
        for _ in range(limit):
            if not self._heap or self._heap[0][0] > now:
                break
            entry = heapq.heappop(self._heap)
            self._leave_bucket(entry)
            item = _live(entry)
            if item is not None:
                item._entry = 0
                due.append(entry[2])
        return due

    def delay(self) -> float:
        """Return how many seconds to sleep before the next look, 0 if something is due."""
        if not self._heap:
            return CLOCK_CHECK_SECONDS
        return min(max(self._heap[0][0] - self._wall(), 0.0), CLOCK_CHECK_SECONDS)

    def items(self) -> list[Refreshable]:
        """Return the credentials that are armed."""
        return [item for item in map(_live, self._heap) if item is not None]

    def _count_void(self, _: Reference) -> None:
        self._void += 1

    def _leave_bucket(self, entry: Entry) -> None:
        bucket = _bucket(entry[0])
        self._buckets[bucket] -= 1
        if not self._buckets[bucket]:
            del self._buckets[bucket]

    def _tidy_up(self) -> None:
        """Follow the clock, and sweep where it is worth it."""
        offset = self._wall() - self._mono()
        step = offset - self._offset
        if abs(step) >= 1:
            self._offset = offset
        if step <= -1:  # set back: what is due stays where the monotonic clock saw it
            self._rebuild((due + step, number, item) for due, number, item in self._heap)
        if self._void > len(self._heap) // 2:
            self._void = 0
            self._rebuild(entry for entry in self._heap if _live(entry) is not None)

    def _rebuild(self, entries: Iterable[Entry]) -> None:
        self._heap = list(entries)
        heapq.heapify(self._heap)
        self._buckets = Counter(_bucket(due) for due, _, _ in self._heap)


def _bucket(due: float) -> int:
    return int(due // BUCKET_SECONDS)


def _live(entry: Entry) -> Refreshable | None:
    """Return the credential of an entry; None if it is void."""
    _, number, reference = entry
    item = reference()
    return item if item is not None and item._entry == number else None
