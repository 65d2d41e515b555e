"""A real server process for tests, and raw sockets to it."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST = b"Host: localhost\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
GIGABYTE = 1 << 30
SHORT: dict[str, Any] = {"header_deadline_s": 0.6, "body_deadline_s": 0.6, "keep_alive_s": 1}


class Answer:
    """One parsed HTTP answer."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1]) if lines[0] else 0
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}

    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["x-request-id"]
        return document


class ServerProcess:
    """The server process, and connections to it."""

    def __init__(self, log: Path, limits: dict[str, Any], grace_s: int) -> None:
        self._log = log
        script = Path(__file__).parent / "served_app.py"
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(script), json.dumps(limits), str(grace_s)], stdout=subprocess.PIPE, stderr=stderr
            )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().decode()
        match = re.fullmatch(r"ready http://127\.0\.0\.1:(\d+)\n", self.first_line)
        assert match, self.first_line + log.read_text()
        self.port = int(match[1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, request: bytes) -> Answer:
        """The answer to `request`; the connection is read to its end, so the request should ask for `close`."""
        with self.connect() as connection:
            connection.sendall(request)
            return Answer(read_all(connection))

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def peak_memory_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        """Sends the signal; the exit code, the seconds it took, and what else was printed on stdout."""
        assert self.process.stdout is not None
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        return code, time.monotonic() - began, self.process.stdout.read().decode()


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the connection, whether it is closed or reset."""
    parts: list[bytes] = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    received = b""
    while wanted not in received:
        part = connection.recv(65536)
        assert part, f"closed before {wanted!r}: {received!r}"
        received += part
    return received


def send_until_cut(connection: socket.socket, part: bytes, total_bytes: int) -> int:
    """Sends `part` again and again, as a client does that does not read; returns the number of bytes sent."""
    sent = 0
    try:
        while sent < total_bytes:
            connection.sendall(part)
            sent += len(part)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return sent


def drip(connection: socket.socket, part: bytes, pause_s: float, times: int) -> None:
    try:
        for _ in range(times):
            connection.sendall(part)
            time.sleep(pause_s)
    except OSError:
        return


StartServer = Callable[..., ServerProcess]
"""Takes limits and the grace in seconds."""
