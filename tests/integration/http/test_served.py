"""The boundary as a stranger meets it: a real server process, raw sockets, loopback."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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


class Served:
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
    """Sends `part` again and again, as a client does that does not listen; the bytes that went out."""
    sent = 0
    try:
        while sent < total_bytes:
            connection.sendall(part)
            sent += len(part)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return sent


Start = Callable[..., Served]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    started: list[Served] = []

    def start_one(limits: dict[str, Any] | None = None, grace_s: int = 10) -> Served:
        served = Served(tmp_path_factory.mktemp("served") / "stderr", limits or {}, grace_s)
        started.append(served)
        return served

    yield start_one
    for served in started:
        served.process.kill()
        served.process.wait()
        assert served.process.stdout is not None
        served.process.stdout.close()


@pytest.fixture(scope="module")
def server(start: Start) -> Served:
    return start()


@pytest.fixture(scope="module")
def impatient(start: Start) -> Served:
    return start(SHORT)


def test_a_gigabyte_announced_is_refused_before_a_byte_of_it(server: Served) -> None:
    request = b"POST /v1/things HTTP/1.1\r\n" + JSON + b"Content-Length: %d\r\n\r\n" % GIGABYTE
    began = time.monotonic()
    answer = server.ask(request)
    assert time.monotonic() - began < 6
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert answer.problem()["limit_bytes"] == 65536


@pytest.mark.parametrize(
    ("framing", "part"),
    [
        (b"Content-Length: %d\r\n" % GIGABYTE, b"x" * 65536),
        (b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ],
    ids=["announced", "chunked"],
)
def test_a_gigabyte_sent_is_neither_kept_nor_waited_for(server: Served, framing: bytes, part: bytes) -> None:
    before = server.peak_memory_bytes()
    began = time.monotonic()
    with server.connect() as connection:
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON + framing + b"\r\n")
        sent = send_until_cut(connection, part, GIGABYTE)
        answer = Answer(read_all(connection))
    assert answer.problem()["code"] == "BODY_TOO_LARGE"
    assert sent < GIGABYTE / 8
    assert time.monotonic() - began < 8
    assert server.peak_memory_bytes() - before < 16 * 1024 * 1024


def test_a_body_of_exactly_the_limit_is_read(server: Served) -> None:
    body = b'{"name":"' + b"x" * (65536 - 11) + b'"}'
    request = b"POST /v1/things HTTP/1.1\r\nConnection: close\r\n" + JSON + b"Content-Length: %d\r\n\r\n"
    assert server.ask(request % len(body) + body).status == 202
    assert server.ask(request % (len(body) + 1) + body + b" ").status == 413


def test_a_body_after_100_continue_is_asked_for_only_if_it_fits(server: Served) -> None:
    request = b"POST /v1/things HTTP/1.1\r\nExpect: 100-continue\r\n" + JSON + b"Content-Length: %d\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(request % 12)
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"name":"a"}')
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 202 ")
    assert server.ask(request % GIGABYTE).status == 413


def test_a_slow_body_is_given_up_with_a_problem(impatient: Served) -> None:
    began = time.monotonic()
    with impatient.connect() as connection:
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON + b"Content-Length: 1000\r\n\r\n")
        dripping = threading.Thread(target=drip, args=(connection, b"x", 0.1, 40), daemon=True)
        dripping.start()
        answer = Answer(read_all(connection))
        dripping.join()
    assert 0.5 < time.monotonic() - began < 6
    assert answer.headers["connection"] == "close"
    assert "did not arrive within 0.6 s" in answer.problem()["detail"]


def drip(connection: socket.socket, part: bytes, pause_s: float, times: int) -> None:
    try:
        for _ in range(times):
            connection.sendall(part)
            time.sleep(pause_s)
    except OSError:
        return


@pytest.mark.parametrize("dripped", [b"X-Slow: 1\r\n", b"x"], ids=["whole headers", "one header"])
def test_slow_headers_are_given_up_with_a_problem(impatient: Served, dripped: bytes) -> None:
    began = time.monotonic()
    with impatient.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST)
        dripping = threading.Thread(target=drip, args=(connection, dripped, 0.1, 40), daemon=True)
        dripping.start()
        answer = Answer(read_all(connection))
        dripping.join()
    assert 0.5 < time.monotonic() - began < 6
    assert "headers did not arrive" in answer.problem()["detail"]


def test_slow_senders_hold_up_nobody_else(start: Start) -> None:
    server = start({"header_deadline_s": 300, "body_deadline_s": 300})
    slow = [server.connect() for _ in range(60)]
    for number, connection in enumerate(slow):
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON)
        if number % 2:
            connection.sendall(b"Content-Length: 1000\r\n\r\n{")
    body = b'{"name":"a"}'
    request = b"POST /v1/things HTTP/1.1\r\nConnection: close\r\n" + JSON + b"Content-Length: %d\r\n\r\n"
    for _ in range(20):
        assert server.ask(request % len(body) + body).status == 202
    for connection in slow:  # still there: nobody was thrown out to make room
        connection.settimeout(0.01)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()


def test_slow_headers_after_an_answer_are_given_up_too(impatient: Served) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(connection, b"alive")
        began = time.monotonic()
        dripping = threading.Thread(target=drip, args=(connection, b"\r\n", 0.1, 40), daemon=True)
        dripping.start()
        read_all(connection)
        assert 0.4 < time.monotonic() - began < 3
        dripping.join()


def test_a_silent_connection_is_closed_without_a_word(impatient: Served) -> None:
    with impatient.connect() as connection:
        assert read_all(connection) == b""


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"x" * 40_000 + b"\r\n", b"X: y\r\n" * 8000, b"X: " + b"x" * 2_000_000],
    ids=["one long", "many short", "one without an end"],
)
def test_headers_over_the_limit_are_refused(server: Served, headers: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST)
        send_until_cut(connection, headers, len(headers))
        send_until_cut(connection, b"\r\n", 2)
        answer = Answer(read_all(connection))
    assert answer.status == 400
    assert "32768 bytes" in answer.problem()["detail"]


def test_headers_below_the_limit_pass_beside_a_large_body(server: Served) -> None:
    body = b'{"name":"' + b"x" * 60_000 + b'"}'
    request = b"POST /v1/things HTTP/1.1\r\nConnection: close\r\nX: " + b"x" * 30_000 + b"\r\n" + JSON
    assert server.ask(request + b"Content-Length: %d\r\n\r\n" % len(body) + body).status == 202


def test_endless_trailers_are_cut_off(server: Served) -> None:
    before = server.peak_memory_bytes()
    with server.connect() as connection:
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        sent = send_until_cut(connection, b"X-Trailer: " + b"x" * 65000 + b"\r\n", GIGABYTE)
        read_all(connection)
    assert sent < 64 * 1024 * 1024
    assert server.peak_memory_bytes() - before < 128 * 1024 * 1024


@pytest.mark.parametrize(
    "garbage",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem_and_closed(server: Served, garbage: bytes) -> None:
    answer = server.ask(garbage)
    assert answer.status == 400
    assert answer.problem()["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "status", "code"),
    [
        (b"GET /nothing", HOST, b"", 404, "ROUTE_NOT_FOUND"),
        (b"PUT /v1/things", HOST, b"", 405, "METHOD_NOT_ALLOWED"),
        (b"CONNECT localhost:80", HOST, b"", 400, "INVALID_REQUEST"),
        (b"GET /livez", b"", b"", 400, "INVALID_REQUEST"),
        (b"GET /livez", b"Host: evil.example\r\n", b"", 400, "INVALID_REQUEST"),
        (b"GET /livez", HOST + b"Host: evil.example\r\n", b"", 400, "INVALID_REQUEST"),
        (b"POST /v1/things", HOST, b'{"name":"a"}', 415, "UNSUPPORTED_MEDIA_TYPE"),
        (b"POST /v1/things", JSON, b'{"name":', 400, "INVALID_REQUEST"),
        (b"POST /v1/things", JSON, b'{"name":"\xff"}', 400, "INVALID_REQUEST"),
        (b"POST /v1/things", JSON, b"", 400, "INVALID_REQUEST"),
        (b"GET /v1/crash", HOST, b"", 500, "INTERNAL"),
        (b"GET /v1/slow?seconds=x", HOST, b"", 400, "INVALID_REQUEST"),
        (b"GET /v1/slow", HOST, b"", 400, "INVALID_REQUEST"),
        (b"GET /v1/slow?seconds=%00", HOST, b"", 400, "INVALID_REQUEST"),
    ],
)
def test_every_failure_is_a_problem(
    server: Served, request_line: bytes, headers: bytes, body: bytes, status: int, code: str
) -> None:
    length = b"Content-Length: %d\r\n" % len(body)
    answer = server.ask(request_line + b" HTTP/1.1\r\nConnection: close\r\n" + headers + length + b"\r\n" + body)
    assert answer.status == status
    assert answer.problem()["code"] == code
    assert b"secret" not in answer.body


def test_an_upgrade_that_nobody_offers_is_ignored(server: Served) -> None:
    answer = server.ask(b"GET /livez HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST + b"\r\n")
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


def test_head_has_the_length_and_no_body(server: Served) -> None:
    answer = server.ask(b"HEAD /livez HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0
    assert answer.body == b""


def test_request_ids_are_taken_over_or_made_and_traces_followed(server: Served) -> None:
    trace = b"0af7651916cd43dd8448eb211c80319c"
    sane = b"X-Request-Id: mine-7\r\ntraceparent: 00-" + trace + b"-b7ad6b7169203331-01\r\n"
    answer = server.ask(b"GET /livez HTTP/1.1\r\nConnection: close\r\n" + HOST + sane + b"\r\n")
    assert answer.headers["x-request-id"] == "mine-7"
    assert answer.headers["traceparent"].split("-")[1].encode() == trace
    insane = b"X-Request-Id: " + b"x" * 500 + b"\r\ntraceparent: 00-0-0-0\r\n"
    answer = server.ask(b"GET /nothing HTTP/1.1\r\nConnection: close\r\n" + HOST + insane + b"\r\n")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", answer.headers["traceparent"])


def test_pipelined_requests_are_answered_in_order_each_with_its_own_id(server: Served) -> None:
    first = b"GET /v1/slow?seconds=0.2 HTTP/1.1\r\nX-Request-Id: one\r\n" + HOST + b"\r\n"
    second = b"GET /livez HTTP/1.1\r\nConnection: close\r\nX-Request-Id: two\r\n" + HOST + b"\r\n"
    with server.connect() as connection:
        connection.sendall(first + second)
        received = read_all(connection)
    assert re.findall(rb"x-request-id: (\w+)", received) == [b"one", b"two"]
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_garbage_behind_a_request_does_not_cost_its_answer(server: Served) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v1/slow?seconds=0.2 HTTP/1.1\r\n" + HOST + b"\r\nGARBAGE\r\n\r\n")
        answer = Answer(read_all(connection))
    assert answer.status == 200
    assert answer.body == b'{"slow":"done"}'


def test_an_answer_that_breaks_off_is_visibly_cut_and_logged_once(start: Start) -> None:
    served = start()
    answer = served.ask(b"GET /v1/crash-in-answer HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.status == 200
    assert not answer.body.endswith(b"0\r\n\r\n")
    served.end()
    lines = served.log_lines()
    assert len([line for line in lines if "ZeroDivisionError" in json.dumps(line)]) == 1
    [request] = [line for line in lines if line["event"] == "http.request"]
    assert (request["status"], request["code"]) == (500, "INTERNAL")


def test_draining_answers_what_is_in_flight_and_ends_every_stream(start: Start) -> None:
    served = start()
    with served.connect() as stream, served.connect() as slow, served.connect() as idle, served.connect() as silent:
        stream.sendall(b"GET /v1/stream HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(stream, b"data: first")
        idle.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(idle, b"alive")
        slow.sendall(b"GET /v1/slow?seconds=1 HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(0.2)
        code, took_s, printed = served.end()
        assert read_all(slow).endswith(b'{"slow":"done"}')
        assert read_all(stream).endswith(b"0\r\n\r\n")
        assert read_all(idle) == b""
        assert read_all(silent) == b""
    assert code == 0
    assert took_s < 5
    assert printed == ""
    with pytest.raises(ConnectionRefusedError):
        served.connect()
    assert not [line for line in served.log_lines() if line["level"] in {"warning", "error"}]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once_and_well(start: Start, number: signal.Signals) -> None:
    code, took_s, _ = start().end(number)
    assert code == 0
    assert took_s < 5


@pytest.mark.parametrize(("grace_s", "signals", "at_most_s"), [(1, 1, 7.0), (20, 2, 7.0)], ids=["grace", "twice"])
def test_what_does_not_end_is_cut_after_the_grace_or_a_second_signal(
    start: Start, grace_s: int, signals: int, at_most_s: float
) -> None:
    served = start(grace_s=grace_s)
    with served.connect() as slow:
        slow.sendall(b"GET /v1/slow?seconds=30 HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(0.2)
        for _ in range(signals - 1):
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        code, took_s, _ = served.end()
        answer = Answer(read_all(slow))
    assert answer.problem()["code"] == "UNAVAILABLE"
    assert int(answer.headers["retry-after"]) > 0
    assert code == 0
    assert took_s < at_most_s
    [request] = [line for line in served.log_lines() if line["event"] == "http.request"]
    assert (request["status"], request["code"]) == (503, "UNAVAILABLE")


def test_a_client_that_leaves_in_the_middle_of_its_body_is_told_in_the_log(start: Start) -> None:
    served = start()
    with served.connect() as connection:
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON + b"Content-Length: 100\r\n\r\nhalf")
    time.sleep(0.3)
    served.end()
    [request] = [line for line in served.log_lines() if line["event"] == "http.request"]
    assert (request["status"], request["code"]) == (499, None)


def test_every_line_of_the_log_is_json_and_names_its_request(start: Start) -> None:
    served = start()
    for name in ("a", "b"):
        served.ask(
            b"GET /nothing HTTP/1.1\r\nConnection: close\r\nX-Request-Id: " + name.encode() + b"\r\n" + HOST + b"\r\n"
        )
    served.end()
    lines = served.log_lines()
    assert [line["request_id"] for line in lines] == ["a", "b"]
    assert {line["route"] for line in lines} == {"unrouted"}
