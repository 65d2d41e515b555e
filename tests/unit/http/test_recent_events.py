from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from wvs.http.live.recent_events import FeedEntry, RecentEvents

WORKSPACE = UUID(int=1)


def entry(position: int, size: int = 10) -> FeedEntry:
    return FeedEntry(position, WORKSPACE, "snapshot.requested.v1", b"x" * size)


def positions(recent: RecentEvents, after: int, max_bytes: int = 10_000) -> tuple[list[int], int] | None:
    batch = recent.after(after, max_bytes)
    return None if batch is None else ([found.position for found in batch.entries], batch.position)


def test_entries_after_a_position_are_returned_up_to_the_head() -> None:
    recent = RecentEvents(5, max_bytes=100)
    assert positions(recent, 5) == ([], 5)
    recent.extend([entry(7), entry(9)], head=12)
    assert positions(recent, 5) == ([7, 9], 12)
    assert positions(recent, 7) == ([9], 12)
    assert positions(recent, 12) == ([], 12)
    assert positions(recent, 40) == ([], 40)


def test_entries_before_the_floor_are_unknown() -> None:
    recent = RecentEvents(5, max_bytes=100)
    recent.extend([entry(7)], head=7)
    assert positions(recent, 4) is None


def test_the_oldest_entries_are_dropped_and_a_full_batch_is_cut() -> None:
    recent = RecentEvents(0, max_bytes=100)
    recent.extend([entry(n) for n in range(1, 16)], head=15)
    assert recent.floor == 5
    assert positions(recent, 4) is None
    assert positions(recent, 5, max_bytes=30) == ([6, 7, 8], 8)
    assert positions(recent, 8, max_bytes=1) == ([9], 9)


def test_an_event_larger_than_the_memory_is_left_to_the_log() -> None:
    recent = RecentEvents(0, max_bytes=100)
    recent.extend([entry(1, size=1000)], head=1)
    assert (recent.floor, positions(recent, 0)) == (1, None)
    assert positions(recent, 1) == ([], 1)


@given(
    st.lists(st.lists(st.integers(1, 60), max_size=6), max_size=12),
    st.integers(0, 200),
    st.integers(1, 150),
)
def test_a_reader_sees_every_later_event_once_or_is_sent_to_the_log(
    looks: list[list[int]], max_bytes: int, batch_bytes: int
) -> None:
    recent, position, log = RecentEvents(0, max_bytes), 0, list[int]()
    got: list[int] = []
    for sizes in looks:
        new = [entry(len(log) + n, size) for n, size in enumerate(sizes, 1)]
        log += [one.position for one in new]
        recent.extend(new, head=len(log))
        while position < len(log):
            batch = recent.after(position, batch_bytes)
            if batch is None:
                assert position < recent.floor
                got.append(position := position + 1)  # one from the log
                continue
            assert batch.position > position
            got += [one.position for one in batch.entries]
            position = batch.position
    assert got == log
