"""A few threads that work on batches while the walk goes on; with one worker everything happens in the caller."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

Batch = TypeVar("Batch")

_QUEUED_PER_HELPER: Final = 4


class Crew(Generic[Batch]):
    """Hands batches to `workers - 1` threads; when they have enough, the caller works on the batch itself.

    So the memory for waiting work is bounded and nobody is idle. The first error of any thread stops all of it. Used as
    a context: leaving it waits for the threads, after an error for the batches they are at; `drop` gets the others.
    """

    def __init__(self, workers: int, work: Callable[[Batch], None], drop: Callable[[Batch], None]) -> None:
        self._work = work
        self._drop = drop
        self._helpers = workers - 1
        self._waiting: queue.Queue[Batch | None] = queue.Queue(self._helpers * _QUEUED_PER_HELPER or 1)
        self._threads: list[threading.Thread] = []
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._failed = self._failed or error
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        if error is None and self._failed is not None:
            raise self._failed

    def submit(self, batch: Batch) -> None:
        """Has the batch worked on, now or later; raises what any batch raised so far."""
        if self._failed is not None:
            self._drop(batch)
            raise self._failed
        if self._helpers == 0:
            self._work(batch)
            return
        try:
            self._waiting.put_nowait(batch)
        except queue.Full:
            self._work(batch)
        else:
            self._start_threads()

    def finish(self) -> None:
        """Works along until no batch waits. Those that threads are at end with the context."""
        while self._threads and self._failed is None:
            try:
                batch = self._waiting.get_nowait()
            except queue.Empty:
                return
            if batch is not None:
                self._work(batch)

    def _start_threads(self) -> None:
        if len(self._threads) < self._helpers:
            thread = threading.Thread(target=self._help, name="wvs-clone", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _help(self) -> None:
        while (batch := self._waiting.get()) is not None:
            if self._failed is not None:
                self._drop(batch)
                continue
            try:
                self._work(batch)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that leaves the context
                self._failed = self._failed or error
