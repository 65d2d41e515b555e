"""The program that starts API and executor processes for the state machine, each in milliseconds instead of a second.

It imports everything once and then forks. A child runs the code of `wvs api`, `wvs executor` or `wvs volume check` as a
process of its own, which the test can really kill. Each line of JSON on stdin starts a process. Lines on stdout report
which processes started and ended, and when, on CLOCK_MONOTONIC. An executor arms the failpoints that a line on its
control socket names. All children end when stdin ends.
"""

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from typing import Any

import uvloop  # noqa: F401 - imported here so that no child has to

from wvs import failpoints
from wvs.cli.wvs.executing import run_executor
from wvs.cli.wvs.program import settings_of_environment
from wvs.cli.wvs.serving import run_api
from wvs.cli.wvs.volumes import run_check

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until stdin ends."""
    gc.freeze()
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                _report_end(selector, key.fd, key.data)
                continue
            pending += (chunk := os.read(key.fd, 65536))
            if not chunk:
                _end_all(selector)
                return
            *lines, pending = pending.split(b"\n")
            for line in lines:
                _start(selector, json.loads(line))


def _start(selector: selectors.BaseSelector, order: dict[str, Any]) -> None:
    pid = os.fork()
    if pid == 0:
        _run_child(order)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)
    _report({"started": pid})


def _report_end(selector: selectors.BaseSelector, descriptor: int, pid: int) -> None:
    ended_ns = time.monotonic_ns()
    selector.unregister(descriptor)
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    _report({"ended": pid, "code": os.waitstatus_to_exitcode(status), "at_ns": ended_ns})


def _end_all(selector: selectors.BaseSelector) -> None:
    for key in list(selector.get_map().values()):
        if key.data is not None:
            os.kill(key.data, signal.SIGKILL)
            os.waitpid(key.data, 0)


def _report(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _run_child(order: dict[str, Any]) -> None:
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ.update(order["environment"])
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.closerange(3, 256)
        settings = settings_of_environment()
        if order["program"] == "api":
            code = run_api(settings, allow_remote=False)
        elif order["program"] == "sweep":
            code = run_check(settings, repair=True)
        else:
            threading.Thread(target=_serve_failpoints, args=(order["control"],), daemon=True).start()
            code = run_executor(settings)
    except BaseException as error:  # noqa: BLE001 - the parent's frames must not see it
        sys.stderr.write(f"child ended by {error!r}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve_failpoints(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            # The caller may have given up and closed the connection; the next caller is served.
            with connection, contextlib.suppress(OSError):
                failpoints.arm(connection.recv(4096).decode())
                connection.sendall(b"armed")


if __name__ == "__main__":
    main()
