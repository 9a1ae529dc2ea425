"""The heap of due times: what is due when, and what makes room for what."""

import random
import weakref
from collections import Counter
from typing import Any

import pytest

from scaffolding import Clock, Item, Schedule, reachable, rules, schedule_module

HOUR = 3600


@pytest.fixture
def clock() -> Clock:
    return Clock(wall=1_700_000_000.0, mono=1_000.0)


@pytest.fixture
def schedule(clock: Clock) -> Schedule:
    return Schedule(clock.sources(random.Random(1).random))


def add(schedule: Schedule, item: Item) -> Item:
    schedule.add(item)  # type: ignore[arg-type]
    return item


def popped(schedule: Schedule, **limit: int) -> list[Any]:
    """Return the items that are due, and disarm them so that they are not due again."""
    items = [reference() for reference in schedule.pop_due(**limit)]
    for item in items:
        if item is not None:
            schedule.remove(item)
    return items


def test_items_come_up_when_they_are_due_and_in_that_order(
    clock: Clock, schedule: Schedule
) -> None:
    """What is due comes out once, the earliest first; the rest stays."""
    last, first, later = (add(schedule, Item(clock, after)) for after in (20, 10, 20.5))
    assert popped(schedule) == []
    clock.advance(20)
    assert popped(schedule) == [first, last]
    assert popped(schedule) == []
    clock.advance(0.5)
    assert popped(schedule) == [later]


def test_what_is_due_may_be_dropped_before_it_is_handed_on(
    clock: Clock, schedule: Schedule
) -> None:
    """A set or dictionary of what is due does not fail for the one that is gone."""
    items = [add(schedule, Item(clock, 0)) for _ in range(3)]
    due = schedule.pop_due()
    items.pop()
    assert [reference() for reference in dict.fromkeys(due)] == [*items, None]


def test_an_item_that_came_up_comes_up_again_in_a_minute(clock: Clock, schedule: Schedule) -> None:
    """Unless its state has changed by then: whatever became of the refresh, there is a next one."""
    item = add(schedule, Item(clock, 10))
    clock.advance(10)
    for _ in range(5):
        assert [reference() for reference in schedule.pop_due()] == [item]
        assert schedule.pop_due() == []
        assert schedule.caches() == [item]
        clock.advance(59.9)
        assert schedule.pop_due() == []
        clock.advance(0.1)
    item.due_in(HOUR)
    add(schedule, item)
    assert schedule.pop_due() == []


def test_the_next_look_is_within_thirty_seconds(clock: Clock, schedule: Schedule) -> None:
    """However far the next item is, a clock that was set is noticed within 30 seconds."""
    assert schedule.delay() == 30
    item = add(schedule, Item(clock, HOUR))
    assert schedule.delay() == 30
    clock.advance(HOUR - 12.5)
    assert schedule.delay() == 12.5
    clock.advance(13)
    assert schedule.delay() == 0
    assert popped(schedule) == [item]
    assert schedule.delay() == 30


def changed(*items: Item) -> dict[Any, None]:
    """Return the record of a driver on which these have changed."""
    return dict.fromkeys(weakref.ref(item) for item in items)


def test_those_that_have_changed_are_armed_in_batches(clock: Clock, schedule: Schedule) -> None:
    """However many they are, none of them holds up a loop for long, and it does not sleep."""
    items = [Item(clock, 10) for _ in range(2_500)]
    record = changed(*items)
    armed = []
    while True:
        schedule.take(record)
        armed.append(len(schedule.heap))
        if schedule.delay() > 0:
            break
        assert len(schedule) == 2_500
    assert armed == [1_000, 2_000, 2_500]
    assert (record, schedule.delay()) == ({}, 10)


def test_what_changes_while_it_is_being_armed_is_armed_again(
    clock: Clock, schedule: Schedule
) -> None:
    """It may have changed right after its due time was computed."""
    item = Item(clock, 10)
    record = changed(item)

    def change(_: object) -> bool:
        record[weakref.ref(item)] = None  # type: ignore[index]
        return True

    schedule.take(record, change)
    assert list(record) == [weakref.ref(item)]


def test_an_item_that_could_not_be_armed_is_tried_again_in_a_minute(
    clock: Clock, schedule: Schedule
) -> None:
    """For want of memory, for example. The others are armed the next time."""
    broken, other = Item(clock, 10), Item(clock, 10)
    good, broken.state = broken.state, None
    record = changed(broken, other)
    with pytest.raises(AttributeError):
        schedule.take(record)
    assert (list(record), schedule.delay()) == ([weakref.ref(other)], 0)
    schedule.take(record)
    assert (record, schedule.delay()) == ({}, 10)
    broken.state = good
    clock.advance(59)
    assert popped(schedule) == [other]
    clock.advance(1)
    assert popped(schedule) == [broken]


def test_an_item_that_is_gone_when_it_is_to_be_armed_is_passed_over(schedule: Schedule) -> None:
    """It has been dropped since it changed."""
    record = changed(Item(Clock(), 10))
    schedule.take(record)
    assert (record, len(schedule)) == ({}, 0)


def test_a_fork_finds_all_that_are_armed_or_about_to_be(clock: Clock) -> None:
    """Wherever the thread is while another one forks, the child learns of each."""
    seen: list[int] = []
    record: dict[Any, None] = {}
    is_watched = False

    def look_and_tell() -> float:
        if is_watched:
            seen.append(len({*schedule.caches(), *(item() for item in record)}))
        return clock.mono()

    schedule = Schedule(clock.sources()._replace(mono=look_and_tell))
    is_watched = True
    items = [Item(clock, 10) for _ in range(3)]
    for _ in range(2):  # the second time, each of them has an entry already
        record.update(changed(*items))
        schedule.take(record)
    assert set(seen) == {3}
    assert len(schedule.caches()) == 3


def test_a_suspension_while_the_due_time_is_computed_does_not_delay_it(
    clock: Clock, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of one reading counts."""

    def suspended(*args: Any) -> Any:
        moment = rules.due(*args)
        clock.suspend(HOUR)
        return moment

    monkeypatch.setattr(schedule_module, "due", suspended)
    item = add(schedule, Item(clock, HOUR))
    assert popped(schedule) == [item]


def test_a_removed_item_does_not_come_up(clock: Clock, schedule: Schedule) -> None:
    """Removing one, twice or before it was ever added, leaves the others."""
    gone, never, stays = (Item(clock, 0) for _ in range(3))
    add(schedule, gone)
    add(schedule, stays)
    for item in (gone, gone, never):
        schedule.remove(item)  # type: ignore[arg-type]
    assert popped(schedule) == [stays]


def test_an_item_without_a_due_time_is_disarmed(clock: Clock, schedule: Schedule) -> None:
    """As that of a credential that has been closed."""
    item = add(schedule, Item(clock, 10))
    item.state = rules.State(closed=True)
    add(schedule, item)
    assert schedule.caches() == []
    clock.advance(20)
    assert popped(schedule) == []


def test_an_item_that_is_closed_while_it_is_armed_is_disarmed(
    clock: Clock, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that arms it may not have seen that yet when it computes the due time."""
    item = Item(clock, 10)

    def push(heap: list[Any], entry: Any) -> None:
        heap.append(entry)
        item.state = rules.State(closed=True)

    monkeypatch.setattr(schedule_module.heapq, "heappush", push)
    add(schedule, item)
    assert (item.entry, schedule.caches()) == (0, [])


def test_an_item_armed_anew_comes_up_at_its_new_time_alone(
    clock: Clock, schedule: Schedule
) -> None:
    """The older entry is void, whether the new time is earlier or later."""
    earlier, later = add(schedule, Item(clock, 50)), add(schedule, Item(clock, 10))
    earlier.due_in(10)
    later.due_in(50)
    add(schedule, earlier)
    add(schedule, later)
    clock.advance(10)
    assert popped(schedule) == [earlier]
    clock.advance(40)
    assert popped(schedule) == [later]


def test_a_dropped_item_is_collected_and_does_not_come_up(clock: Clock, schedule: Schedule) -> None:
    """The heap holds no item alive."""
    stays = add(schedule, Item(clock, 0))
    dropped = weakref.ref(add(schedule, Item(clock, 0)))
    assert dropped() is None
    assert popped(schedule) == [stays]


@pytest.mark.parametrize("how", ["dropped", "removed"])
def test_void_entries_are_swept_out_when_they_are_more_than_half(
    clock: Clock, schedule: Schedule, how: str
) -> None:
    """Items that go away long before they are due leave the heap at the next look."""
    items = [add(schedule, Item(clock, HOUR)) for _ in range(1000)]
    for item in items[500:]:
        schedule.remove(item)  # type: ignore[arg-type]
    assert popped(schedule) == []
    assert len(schedule) == 1000
    if how == "dropped":
        del items[499:], item
    else:
        schedule.remove(items[499])  # type: ignore[arg-type]
    assert popped(schedule) == []
    assert set(schedule.caches()) == set(items[:499])
    assert len(schedule) == 499


def test_the_heap_stays_within_twice_its_live_entries(clock: Clock, schedule: Schedule) -> None:
    """Items that are re-armed all the time, as their callers refresh them, do not fill it."""
    items = [Item(clock, HOUR) for _ in range(100)]
    for nth in range(5_000):
        add(schedule, items[nth % 100])
        assert len(schedule) <= 202
    assert len(schedule.caches()) == 100


def due_per_ten_seconds(clock: Clock, schedule: Schedule) -> Counter[int]:
    """Let time pass until all items have been due, and count how many were in each ten seconds."""
    counts: Counter[int] = Counter()
    while len(schedule):
        counts[int(clock.wall()) // 10] += len(popped(schedule))
        clock.advance(schedule.delay())
    return +counts


def test_valid_tokens_that_are_due_together_are_refreshed_earlier(
    clock: Clock, schedule: Schedule
) -> None:
    """About a hundred in ten seconds as long as there is room; the first are on time."""
    items = [add(schedule, Item.valid(clock, 4_000, left=1_000)) for _ in range(3_000)]
    start = int(clock.wall()) // 10
    counts = due_per_ten_seconds(clock, schedule)
    assert counts.total() == len(items)
    assert min(counts) - start >= 200
    assert max(counts) - start == 300
    assert max(counts.values()) <= 110


def test_what_failed_without_a_valid_token_is_tried_later(clock: Clock, schedule: Schedule) -> None:
    """However many there are in an outage, a hundred are tried in ten seconds, none too soon."""
    items = [add(schedule, Item(clock, 30)) for _ in range(3_000)]
    start = int(clock.wall()) // 10
    counts = due_per_ten_seconds(clock, schedule)
    assert counts.total() == len(items)
    assert min(counts) - start == 3
    assert max(counts) - start < 3 + 10 * 30
    assert max(counts.values()) <= 110


def test_a_hold_is_not_cut_short_where_many_are_due_together(
    clock: Clock, schedule: Schedule
) -> None:
    """Earlier never means inside the time for which an issuer asked to be left alone."""
    items = [Item.valid(clock, 4_000, left=1_000) for _ in range(500)]
    for item in items:
        item.state = rules.replace(item.state, hold_until=clock.mono() + 2_990)
        add(schedule, item)
    clock.advance(2_989)
    assert popped(schedule) == []
    clock.advance(12)
    assert len(popped(schedule)) == 500


def test_the_first_hundred_are_on_time(clock: Clock, schedule: Schedule) -> None:
    """Nothing is refreshed earlier than it need be before there are many."""
    items = [add(schedule, Item.valid(clock, 3 * HOUR, left=HOUR)) for _ in range(101)]
    clock.advance(2 * HOUR - 0.001)
    assert popped(schedule) == [items.pop()]
    clock.advance(0.002)
    assert popped(schedule) == items


def test_a_due_time_that_cannot_move_is_kept(clock: Clock, schedule: Schedule) -> None:
    """First tokens are fetched at once, however many there are."""
    items = [add(schedule, Item(clock, None)) for _ in range(500)]
    assert popped(schedule) == items


@pytest.mark.parametrize("how", ["come up", "are dropped"])
def test_items_that_are_gone_make_room_for_others(
    clock: Clock, schedule: Schedule, how: str
) -> None:
    """A new item is on time once those that filled its ten seconds have been due or been swept."""
    clock.set_wall(clock.wall() // 10 * 10)
    items = [add(schedule, Item(clock, 15)) for _ in range(100)]
    if how == "come up":
        clock.advance(15)
        assert popped(schedule) == items
    items.clear()
    newcomer = add(schedule, Item(clock, 4 if how == "come up" else 19))
    clock.advance(3.9 if how == "come up" else 18.9)
    assert popped(schedule) == []
    clock.advance(0.2)
    assert popped(schedule) == [newcomer]


def test_an_entry_for_the_next_look_takes_no_room(clock: Clock, schedule: Schedule) -> None:
    """So none is made where it goes: the ten seconds are as full as before."""
    clock.set_wall(clock.wall() // 10 * 10)
    again = add(schedule, Item(clock, 0))
    assert [reference() for reference in schedule.pop_due()] == [again]
    items = [add(schedule, Item(clock, 60)) for _ in range(100)]
    schedule.remove(again)  # type: ignore[arg-type]
    assert schedule.delay() == 30
    newcomer = add(schedule, Item(clock, 60))
    clock.advance(69)
    assert popped(schedule) == items
    assert schedule.caches() == [newcomer]


def test_what_was_due_long_ago_leaves_nothing_behind(clock: Clock, schedule: Schedule) -> None:
    """A schedule does not grow with the time that it serves."""
    others = [add(schedule, Item(clock, 9 * HOUR)) for _ in range(10)]
    sizes = []
    for _ in range(1_000):
        item = add(schedule, Item(clock, 10))
        clock.advance(10)
        assert popped(schedule) == [item]
        del item
        assert schedule.delay() == 30
        sizes.append(len(list(reachable(schedule))))
    assert max(sizes) <= sizes[0] + 2
    assert len(schedule) == len(others)


def test_a_clock_that_is_set_back_again_delays_nothing(clock: Clock, schedule: Schedule) -> None:
    """After a jump ahead, too: what was added in between went by the clock as it was then."""
    first = add(schedule, Item(clock, HOUR))
    clock.set_wall(clock.wall() + 5 * HOUR)
    assert popped(schedule) == [first]
    newcomer = add(schedule, Item(clock, HOUR))
    clock.set_wall(clock.wall() - 5 * HOUR)
    clock.advance(HOUR)
    assert popped(schedule) == [newcomer]


def test_a_clock_that_is_set_back_delays_nothing(clock: Clock, schedule: Schedule) -> None:
    """What is due in an hour is due in an hour, by the clock that is never set."""
    first, second = add(schedule, Item(clock, HOUR)), add(schedule, Item(clock, HOUR + 1))
    clock.set_wall(clock.wall() - 5 * HOUR)
    assert popped(schedule) == []
    newcomer = add(schedule, Item(clock, HOUR + 2))
    clock.advance(HOUR)
    assert popped(schedule) == [first]
    clock.advance(1)
    assert popped(schedule) == [second]
    assert popped(schedule) == []
    clock.advance(1)
    assert popped(schedule) == [newcomer]


def test_a_newcomer_after_the_clock_was_set_back_is_not_early(
    clock: Clock, schedule: Schedule
) -> None:
    """Its due time was computed with the new clock, so the correction is not for it."""
    add(schedule, Item(clock, 0))
    clock.set_wall(clock.wall() - 5 * HOUR)
    newcomer = add(schedule, Item(clock, HOUR))
    clock.advance(HOUR - 1)
    assert newcomer not in popped(schedule)
    clock.advance(1)
    assert popped(schedule) == [newcomer]


def test_a_suspended_machine_makes_everything_due(clock: Clock, schedule: Schedule) -> None:
    """Time that only the wall clock saw counts."""
    item = add(schedule, Item(clock, HOUR))
    clock.suspend(HOUR)
    assert popped(schedule) == [item]


def test_small_corrections_of_the_clock_add_up(clock: Clock, schedule: Schedule) -> None:
    """A clock that is slewed back by half a second at a time is followed all the same."""
    item = add(schedule, Item(clock, HOUR))
    for _ in range(100):
        clock.set_wall(clock.wall() - 0.5)
        assert popped(schedule) == []
    clock.advance(HOUR - 2)
    assert popped(schedule) == []
    clock.advance(3)
    assert popped(schedule) == [item]


def test_one_look_is_limited(clock: Clock, schedule: Schedule) -> None:
    """Void entries count too, so that a look takes constant time."""
    items = [add(schedule, Item(clock, nth)) for nth in range(10)]
    clock.advance(10)
    for item in items[:4]:
        schedule.remove(item)  # type: ignore[arg-type]
    assert popped(schedule, limit=5) == items[4:5]
    assert schedule.delay() == 0
    assert popped(schedule, limit=3) == items[5:8]
    assert popped(schedule, limit=0) == []
    assert popped(schedule) == items[8:]
