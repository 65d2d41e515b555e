"""The newest events of the log, encoded for streams, in bounded memory."""

from collections import deque
from itertools import takewhile
from uuid import UUID

from msgspec import Struct


class FeedEntry(Struct, frozen=True, gc=False):
    """One event of the log and its encoded text."""

    position: int
    workspace_id: UUID
    type: str
    text: bytes


class Batch(Struct, frozen=True):
    """Entries in order. A stream that has sent them has covered the log up to `position`."""

    entries: list[FeedEntry]
    position: int


def batch_of(entries: list[FeedEntry], position: int, max_bytes: int) -> Batch:
    """All entries and `position`; or, if they exceed `max_bytes`, the first ones, at least one, and its position."""
    size = 0
    for count, entry in enumerate(entries, 1):
        size += len(entry.text)
        if size >= max_bytes and count < len(entries):
            return Batch(entries[:count], entry.position)
    return Batch(entries, position)


class RecentEvents:
    """Every event of the log after `floor` up to `head`. Drops the oldest events above `max_bytes`."""

    def __init__(self, start: int, max_bytes: int) -> None:
        self.floor = start
        self.head = start
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: deque[FeedEntry] = deque()

    def extend(self, entries: list[FeedEntry], head: int) -> None:
        """Adds the entries after the present `head`, up to the new `head`."""
        self._entries.extend(entries)
        self._bytes += sum(len(entry.text) for entry in entries)
        self.head = max(self.head, head)
        while self._bytes > self._max_bytes and self._entries:
            oldest = self._entries.popleft()
            self._bytes -= len(oldest.text)
            self.floor = oldest.position

    def after(self, position: int, max_bytes: int) -> Batch | None:
        """The entries after `position`, about `max_bytes` of them; None if some of them have been dropped already."""
        if position < self.floor:
            return None
        newer = list(takewhile(lambda entry: entry.position > position, reversed(self._entries)))
        newer.reverse()
        return batch_of(newer, max(position, self.head), max_bytes)
