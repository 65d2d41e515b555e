"""The newest events of the log, ready to be sent, in bounded memory."""

from collections import deque
from itertools import takewhile
from uuid import UUID

from msgspec import Struct


class FeedEntry(Struct, frozen=True, gc=False):
    """One event of the log and its text in a stream."""

    position: int
    workspace_id: UUID
    type: str
    text: bytes


class Batch(Struct, frozen=True):
    """Entries in order; whoever has them has seen everything up to `position`."""

    entries: list[FeedEntry]
    position: int


def batch_of(entries: list[FeedEntry], position: int, max_bytes: int) -> Batch:
    """All entries and `position`, or the first of them, at least one, where all would be more than `max_bytes`."""
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.text)
        if size >= max_bytes and count < len(entries):
            return Batch(entries[:count], entry.position)
    return Batch(entries, position)


class RecentEvents:
    """Every event of the log behind `floor` and not beyond `head`; the oldest give way when `max_bytes` is reached."""

    def __init__(self, start: int, max_bytes: int) -> None:
        self.floor = start
        self.head = start
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: deque[FeedEntry] = deque()

    def extend(self, entries: list[FeedEntry], head: int) -> None:
        """Adds what follows `head`, up to the new one."""
        self._entries.extend(entries)
        self._bytes += sum(len(entry.text) for entry in entries)
        self.head = max(self.head, head)
        while self._bytes > self._max_bytes and self._entries:
            oldest = self._entries.popleft()
            self._bytes -= len(oldest.text)
            self.floor = oldest.position

    def after(self, position: int, max_bytes: int) -> Batch | None:
        """What follows `position`, about `max_bytes` of it; None if some of that is no longer, or not yet, here."""
        if position < self.floor:
            return None
        newer = list(takewhile(lambda entry: entry.position > position, reversed(self._entries)))
        newer.reverse()
        return batch_of(newer, max(position, self.head), max_bytes)
