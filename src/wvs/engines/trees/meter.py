"""Counts what a clone did, and tells it at a bearable rate."""

import time
from typing import Final

from wvs.engines.base import OnProgress, Progress, Totals

_INTERVAL_S: Final = 0.1


class Meter:
    """Files, bytes and sockets done."""

    def __init__(self, on_progress: OnProgress | None, totals: Totals | None) -> None:
        self._on_progress = on_progress
        self._totals = totals
        self._told_at = time.monotonic()
        self.files = 0
        self.bytes = 0
        self.sockets = 0

    def add(self, files: int, size: int, sockets: int = 0) -> None:
        """Counts what is done since the last call, and tells it if the last time is long enough ago."""
        self.files += files
        self.bytes += size
        self.sockets += sockets
        now = time.monotonic()
        if now - self._told_at >= _INTERVAL_S:
            self._told_at = now
            self.tell()

    def tell(self) -> None:
        """Tells the figures as they are: at the end, and where nothing is done yet."""
        if self._on_progress is not None:
            totals = self._totals
            files, size = (totals.files, totals.bytes) if totals is not None else (None, None)
            self._on_progress(Progress(self.files, self.bytes, files, size))
