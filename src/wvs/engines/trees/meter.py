"""Counts the files and bytes of a clone, and reports them at a limited rate."""

import time
from typing import Final

from wvs.engines.base import CloneProgress, OnProgress, Totals

_INTERVAL_S: Final = 0.1


class Meter:
    """Counts files, bytes and sockets that are done."""

    def __init__(self, on_progress: OnProgress | None, totals: Totals | None) -> None:
        self._on_progress = on_progress
        self._totals = totals
        self._reported_at = time.monotonic()
        self.files = 0
        self.bytes = 0
        self.sockets = 0

    def add(self, files: int, size: int, sockets: int = 0) -> None:
        """Adds the figures since the last call; reports the sums if the last report is 0.1 s old."""
        self.files += files
        self.bytes += size
        self.sockets += sockets
        now = time.monotonic()
        if now - self._reported_at >= _INTERVAL_S:
            self._reported_at = now
            self.report()

    def report(self) -> None:
        """Reports the figures now: at the end, and before anything is done."""
        if self._on_progress is not None:
            totals = self._totals
            files, size = (totals.files, totals.bytes) if totals is not None else (None, None)
            self._on_progress(CloneProgress(self.files, self.bytes, files, size))
