"""The program of a worker process (see `worker_pool`). It imports little, because a clone waits for its start."""

import marshal
import os
import signal
import socket
import sys
from contextlib import suppress

from wvs.engines.trees.jobs import MESSAGE_BYTES, PULSE, run_batch


def main() -> None:
    """Runs batches until the service closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as service, suppress(BrokenPipeError, ConnectionResetError):
        while _run_one(service):
            pass
    # Nothing needs a clean-up, and the service waits for the exit.
    os._exit(0)


def _run_one(service: socket.socket) -> bool:
    message, descriptors, _, _ = socket.recv_fds(service, MESSAGE_BYTES, 2)
    if not message:
        return False
    work, payload = marshal.loads(message)  # noqa: S302 - from the service that started us
    result = run_batch(work, descriptors, payload, lambda size: _pulse(service, size))
    for descriptor in descriptors:
        os.close(descriptor)
    service.send(marshal.dumps((*result[:-1], result.failure and tuple(result.failure))))
    return True


def _pulse(service: socket.socket, size: int) -> None:
    service.send(marshal.dumps((PULSE, size)))


if __name__ == "__main__":
    main()
