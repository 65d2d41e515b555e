"""Times that stay consistent when the clock of the host is set."""

import time
from datetime import UTC, datetime, timedelta


class Stopwatch:
    """Measures a span. It starts at a time of the wall clock, and lasts as long as the monotonic clock says.

    Two times of the wall clock differ by another span if the clock was set in between: an agent would seem to resume
    before it was frozen.
    """

    def __init__(self) -> None:
        self.started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._stopped: float | None = None

    def stop(self, at: float | None = None) -> None:
        """Ends the span now, or at the time `at` of `time.monotonic`. Stopping again changes nothing."""
        if self._stopped is None:
            self._stopped = time.monotonic() if at is None else at

    @property
    def seconds(self) -> float:
        """The length of the span; until now if it has not ended."""
        return (time.monotonic() if self._stopped is None else self._stopped) - self._started

    @property
    def until(self) -> datetime:
        """The end of the span, or now, by the wall clock as it was at the start."""
        return self.started_at + timedelta(seconds=self.seconds)
