"""Worker processes that clone or unlink batches of entries while the caller walks on.

Processes, not threads: a file costs some ten short system calls, and at each of them a thread gives up and fights for
the interpreter's lock. Two threads were no faster than one, two processes took 0.65 of the time
(docs/adr/0021-worker-processes.md).
A hand is a child at the other end of a socket; descriptors of directories travel with the batches. It ends when the
socket is closed, so also when the service dies.
"""

import marshal
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import structlog

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel
from wvs.engines.errors import EngineError
from wvs.engines.trees.jobs import MESSAGE_BYTES, PULSE, Done, Failure, Payload, WorkName

_log: Final = structlog.get_logger("wvs.engines")

_START_AFTER: Final = 400
"""Entries that the caller does alone: starting a process takes as long as some hundred files."""
_WAITING_PER_HAND: Final = 4
_POLL_S: Final = 0.05
_ENDING_S: Final = 5.0


class _Hand:
    def __init__(self) -> None:
        self.socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # -P: a file in the service's working directory must not stand in for a module.
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
            # It hangs in the kernel on a dead filesystem; killed, it ends when that does.
            self.process.kill()


class Hands:
    """`workers - 1` worker processes, started when there is enough to do. Used as a context by one thread."""

    def __init__(self, workers: int, cancel: Cancel, on_pulse: Callable[[int], None]) -> None:
        self._wanted = workers - 1
        self._cancel = cancel
        self._on_pulse = on_pulse
        self._hands: list[_Hand] = []
        self._offered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        for hand in self._hands:
            hand.close(kill=error is not None)
        self._hands = []

    def waiting(self) -> list[Any]:
        """The tokens of all batches that have no result yet."""
        return [token for hand in self._hands for token in hand.waiting]

    def offer(self, work: WorkName, descriptors: list[int], payload: Payload, token: object) -> bool:
        """Gives a batch to a hand that is not busy enough; False if there is none: then the caller does it itself.

        The descriptors stay the caller's and may be closed after the result has come.
        """
        self._offered += len(payload[0]) + len(payload[1])
        if len(self._hands) < self._wanted and self._offered > _START_AFTER:
            self._start()
        hand = min(self._hands, key=lambda each: len(each.waiting), default=None)
        if hand is None or len(hand.waiting) >= _WAITING_PER_HAND:
            return False
        try:
            socket.send_fds(hand.socket, [marshal.dumps((work, payload))], descriptors)
        except OSError as error:
            raise _lost(hand) from error
        hand.waiting.append(token)
        return True

    def _start(self) -> None:
        try:
            self._hands.append(_Hand())
        except OSError as error:
            # Out of processes or memory: the clone is slower alone, and as good.
            self._wanted = len(self._hands)
            _log.warning("clone_worker_not_started", error=str(error))

    def results(self) -> Iterator[tuple[Any, Done]]:
        """The results that are there now, each with its batch's token."""
        return self._receive(0) if self._hands else iter(())

    def remaining(self) -> Iterator[tuple[Any, Done]]:
        """All results still to come; cancelled, it raises."""
        while self.waiting():
            self._cancel.check()
            yield from self._receive(_POLL_S)

    def _receive(self, wait_s: float) -> Iterator[tuple[Any, Done]]:
        busy = {hand.socket.fileno(): hand for hand in self._hands if hand.waiting}
        # poll, not select: the service may have more than 1,024 descriptors.
        poll = select.poll()
        for descriptor in busy:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(wait_s * 1000):
            hand = busy[descriptor]
            message = hand.socket.recv(MESSAGE_BYTES)
            if not message:
                raise _lost(hand)
            answer: Any = marshal.loads(message)  # noqa: S302 - from our own child
            if answer[0] == PULSE:
                self._on_pulse(answer[1])
                continue
            files, size, sockets, linked, notes, failure = answer
            yield hand.waiting.pop(0), Done(files, size, sockets, linked, notes, failure and Failure(*failure))


def _lost(hand: _Hand) -> EngineError:
    status = hand.process.poll()
    return EngineError(ErrorCode.CLONE_FAILED, f"a worker process ended unexpectedly (status {status})")
