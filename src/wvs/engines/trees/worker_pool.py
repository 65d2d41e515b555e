"""Worker processes that clone or unlink batches of entries while the caller walks on.

Processes, not threads: a file costs some ten short system calls, and at each of them a thread releases the
interpreter's lock and competes for it again. Two threads were no faster than one, two processes took 0.65 of the time
(docs/adr/0021-worker-processes.md).
A worker is a child process at the other end of a socket. A batch travels with the descriptors of its directories. The
worker ends when the socket is closed, and so also when the service dies.
"""

import logging
import marshal
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel
from wvs.engines.errors import EngineError
from wvs.engines.trees.jobs import MESSAGE_BYTES, PULSE, Batch, BatchFailure, BatchKind, BatchResult

_log: Final = logging.getLogger("wvs.engines")

_START_AFTER: Final = 400
"""Entries that the caller does alone: the start of a process takes as long as some hundred files."""
_WAITING_PER_WORKER: Final = 4
_POLL_S: Final = 0.05
_ENDING_S: Final = 5.0


class _Worker:
    def __init__(self) -> None:
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # -P: a file in the service's working directory must not be imported in place of a module.
            command = [sys.executable, "-P", "-m", "wvs.engines.trees.worker_process", str(far.fileno())]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[far.fileno()])
        except BaseException:
            self.socket.close()
            raise
        finally:
            far.close()
        self.waiting: list[Any] = []

    def close(self, *, kill: bool) -> None:
        self.socket.close()
        if kill:
            self.process.kill()
        try:
            self.process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            # It hangs in the kernel on a dead filesystem. After the kill it ends when that call ends.
            self.process.kill()


class WorkerPool:
    """`workers - 1` worker processes, started when there is enough work. A context manager for one thread."""

    def __init__(self, workers: int, cancel: Cancel, on_pulse: Callable[[int], None]) -> None:
        self._wanted = workers - 1
        self._cancel = cancel
        self._on_pulse = on_pulse
        self._workers: list[_Worker] = []
        self._offered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close(kill=error is not None)
        self._workers = []

    def waiting(self) -> list[Any]:
        """The tokens of all batches without a result."""
        return [token for worker in self._workers for token in worker.waiting]

    def offer(self, work: BatchKind, descriptors: list[int], payload: Batch, token: object) -> bool:
        """Gives a batch to the least busy worker; False if all are busy: then the caller does the batch itself.

        The caller owns the descriptors and may close them once it has the result.
        """
        self._offered += len(payload[0]) + len(payload[1])
        if len(self._workers) < self._wanted and self._offered > _START_AFTER:
            self._start()
        worker = min(self._workers, key=lambda each: len(each.waiting), default=None)
        if worker is None or len(worker.waiting) >= _WAITING_PER_WORKER:
            return False
        try:
            socket.send_fds(worker.socket, [marshal.dumps((work, payload))], descriptors)
        except OSError as error:
            raise _lost(worker) from error
        worker.waiting.append(token)
        return True

    def _start(self) -> None:
        try:
            self._workers.append(_Worker())
        except OSError as error:
            # Out of processes or memory: the caller does all batches itself, only slower.
            self._wanted = len(self._workers)
            _log.warning("clone_worker_not_started", extra={"error": str(error)})

    def results(self) -> Iterator[tuple[Any, BatchResult]]:
        """The results that have arrived, each with the token of its batch."""
        return self._receive(0) if self._workers else iter(())

    def remaining(self) -> Iterator[tuple[Any, BatchResult]]:
        """Waits for all outstanding results; raises `EngineError` if cancelled."""
        while self.waiting():
            self._cancel.check()
            yield from self._receive(_POLL_S)

    def _receive(self, wait_s: float) -> Iterator[tuple[Any, BatchResult]]:
        busy = {worker.socket.fileno(): worker for worker in self._workers if worker.waiting}
        # poll, not select: the service may have more than 1,024 descriptors.
        poll = select.poll()
        for descriptor in busy:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(wait_s * 1000):
            worker = busy[descriptor]
            message = worker.socket.recv(MESSAGE_BYTES)
            if not message:
                raise _lost(worker)
            answer: Any = marshal.loads(message)  # noqa: S302 - from our own child
            if answer[0] == PULSE:
                self._on_pulse(answer[1])
                continue
            *counts, failure = answer
            yield worker.waiting.pop(0), BatchResult(*counts, failure=failure and BatchFailure(*failure))


def _lost(worker: _Worker) -> EngineError:
    status = worker.process.poll()
    return EngineError(ErrorCode.CLONE_FAILED, f"a worker process ended unexpectedly (status {status})")
