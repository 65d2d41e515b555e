"""The limits of requests and connections, tested over raw sockets against a real server process."""

import re
import threading
import time

import pytest
from tests.integration.http.server_process import (
    GIGABYTE,
    HOST,
    JSON,
    SHORT,
    Answer,
    ServerProcess,
    StartServer,
    drip,
    read_all,
    read_until,
    send_until_cut,
)


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> ServerProcess:
    return start_server()


@pytest.fixture(scope="module")
def impatient(start_server: StartServer) -> ServerProcess:
    return start_server(SHORT)


def test_an_announced_gigabyte_is_refused_before_its_first_byte(server: ServerProcess) -> None:
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
def test_a_sent_gigabyte_is_neither_buffered_nor_awaited(server: ServerProcess, framing: bytes, part: bytes) -> None:
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


def test_a_body_of_exactly_the_limit_is_accepted(server: ServerProcess) -> None:
    body = b'{"name":"' + b"x" * (65536 - 11) + b'"}'
    request = b"POST /v1/things HTTP/1.1\r\nConnection: close\r\n" + JSON + b"Content-Length: %d\r\n\r\n"
    assert server.ask(request % len(body) + body).status == 202
    assert server.ask(request % (len(body) + 1) + body + b" ").status == 413


def test_100_continue_is_sent_only_if_the_body_fits(server: ServerProcess) -> None:
    request = b"POST /v1/things HTTP/1.1\r\nExpect: 100-continue\r\n" + JSON + b"Content-Length: %d\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(request % 12)
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.sendall(b'{"name":"a"}')
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 202 ")
    assert server.ask(request % GIGABYTE).status == 413


def test_a_slow_body_is_refused_with_a_problem(impatient: ServerProcess) -> None:
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


@pytest.mark.parametrize("dripped", [b"X-Slow: 1\r\n", b"x"], ids=["whole headers", "one header"])
def test_slow_headers_are_refused_with_a_problem(impatient: ServerProcess, dripped: bytes) -> None:
    began = time.monotonic()
    with impatient.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST)
        dripping = threading.Thread(target=drip, args=(connection, dripped, 0.1, 40), daemon=True)
        dripping.start()
        answer = Answer(read_all(connection))
        dripping.join()
    assert 0.5 < time.monotonic() - began < 6
    assert "headers did not arrive" in answer.problem()["detail"]


def test_slow_senders_do_not_delay_other_clients(start_server: StartServer) -> None:
    server = start_server({"header_deadline_s": 300, "body_deadline_s": 300})
    slow = [server.connect() for _ in range(60)]
    for number, connection in enumerate(slow):
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON)
        if number % 2:
            connection.sendall(b"Content-Length: 1000\r\n\r\n{")
    body = b'{"name":"a"}'
    request = b"POST /v1/things HTTP/1.1\r\nConnection: close\r\n" + JSON + b"Content-Length: %d\r\n\r\n"
    for _ in range(20):
        assert server.ask(request % len(body) + body).status == 202
    for connection in slow:  # the service has closed none of them to make room
        connection.settimeout(0.01)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()


def test_slow_headers_after_an_answer_close_the_connection(impatient: ServerProcess) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n")
        read_until(connection, b"alive")
        began = time.monotonic()
        dripping = threading.Thread(target=drip, args=(connection, b"\r\n", 0.1, 40), daemon=True)
        dripping.start()
        read_all(connection)
        assert 0.4 < time.monotonic() - began < 3
        dripping.join()


def test_a_silent_connection_is_closed_without_an_answer(impatient: ServerProcess) -> None:
    with impatient.connect() as connection:
        assert read_all(connection) == b""


@pytest.mark.parametrize(
    "headers",
    [b"X: " + b"x" * 40_000 + b"\r\n", b"X: y\r\n" * 8000, b"X: " + b"x" * 2_000_000],
    ids=["one long", "many short", "one without an end"],
)
def test_headers_over_the_limit_are_refused(server: ServerProcess, headers: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + HOST)
        send_until_cut(connection, headers, len(headers))
        send_until_cut(connection, b"\r\n", 2)
        answer = Answer(read_all(connection))
    assert answer.status == 400
    assert "32768 bytes" in answer.problem()["detail"]


def test_headers_below_the_limit_pass_beside_a_large_body(server: ServerProcess) -> None:
    body = b'{"name":"' + b"x" * 60_000 + b'"}'
    request = b"POST /v1/things HTTP/1.1\r\nConnection: close\r\nX: " + b"x" * 30_000 + b"\r\n" + JSON
    assert server.ask(request + b"Content-Length: %d\r\n\r\n" % len(body) + body).status == 202


def test_endless_trailers_abort_the_connection(server: ServerProcess) -> None:
    before = server.peak_memory_bytes()
    with server.connect() as connection:
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        sent = send_until_cut(connection, b"X-Trailer: " + b"x" * 65000 + b"\r\n", GIGABYTE)
        read_all(connection)
    assert sent < 64 * 1024 * 1024
    assert server.peak_memory_bytes() - before < 128 * 1024 * 1024


def test_an_idle_connection_stays_open_for_longer_than_headers_may_take(start_server: StartServer) -> None:
    server = start_server({"header_deadline_s": 0.4, "keep_alive_s": 4})
    get = b"GET /livez HTTP/1.1\r\n" + HOST
    with server.connect() as connection:
        for pause_s in (1.2, 1.2, 0):
            connection.sendall(get + b"\r\n")
            read_until(connection, b"alive")
            time.sleep(pause_s)
        connection.sendall(get)  # the deadline starts with the first byte, also of empty lines before a request
        assert b"headers did not arrive within 0.4 s" in read_all(connection)
    with server.connect() as connection:
        connection.sendall(get + b"\r\n" + get)  # the next request begins together with the one before it
        assert b"headers did not arrive within 0.4 s" in read_all(connection)
    with server.connect() as connection:
        connection.sendall(get + b"\r\n")
        read_until(connection, b"alive")
        began = time.monotonic()
        assert read_all(connection) == b""
        assert 3 < time.monotonic() - began < 10


@pytest.mark.parametrize("path", [b"/livez", b"/readyz", b"/metrics"])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1\r\nHost: 10.244.0.5:8787\r\nConnection: close\r\n",
        b"HTTP/1.1\r\nHost: wvs.example\r\nHost: other\r\nConnection: close\r\n",
        b"HTTP/1.1\r\nConnection: close\r\n",
        b"HTTP/1.0\r\n",  # HAProxy's `option httpchk`
        b"HTTP/1.0\r\nHost: \r\n",
    ],
)
def test_probes_are_answered_whatever_their_host_is(server: ServerProcess, path: bytes, head: bytes) -> None:
    answer = server.ask(b"GET %b %b\r\n" % (path, head))
    assert answer.status == 200


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
def test_bytes_that_are_not_http_are_answered_with_a_problem_and_a_close(server: ServerProcess, garbage: bytes) -> None:
    answer = server.ask(garbage)
    assert answer.status == 400
    assert answer.problem()["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "status", "code"),
    [
        (b"GET /nothing", HOST, b"", 404, "ROUTE_NOT_FOUND"),
        (b"PUT /v1/things", HOST, b"", 405, "METHOD_NOT_ALLOWED"),
        (b"CONNECT localhost:80", HOST, b"", 400, "INVALID_REQUEST"),
        (b"GET /v1/slow?seconds=0", b"", b"", 400, "INVALID_REQUEST"),
        (b"GET /v1/slow?seconds=0", b"Host: evil.example\r\n", b"", 400, "INVALID_REQUEST"),
        (b"GET /v1/slow?seconds=0", HOST + b"Host: evil.example\r\n", b"", 400, "INVALID_REQUEST"),
        (b"GET /livez/", b"Host: evil.example\r\n", b"", 400, "INVALID_REQUEST"),
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
    server: ServerProcess, request_line: bytes, headers: bytes, body: bytes, status: int, code: str
) -> None:
    length = b"Content-Length: %d\r\n" % len(body)
    answer = server.ask(request_line + b" HTTP/1.1\r\nConnection: close\r\n" + headers + length + b"\r\n" + body)
    assert answer.status == status
    assert answer.problem()["code"] == code
    assert b"secret" not in answer.body


def test_an_unsupported_upgrade_is_ignored(server: ServerProcess) -> None:
    answer = server.ask(b"GET /livez HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST + b"\r\n")
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


def test_head_has_the_length_and_no_body(server: ServerProcess) -> None:
    answer = server.ask(b"HEAD /livez HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
    assert answer.status == 200
    assert int(answer.headers["content-length"]) > 0
    assert answer.body == b""


def test_request_ids_are_kept_or_generated_and_traces_continue(server: ServerProcess) -> None:
    trace = b"0af7651916cd43dd8448eb211c80319c"
    sane = b"X-Request-Id: mine-7\r\ntraceparent: 00-" + trace + b"-b7ad6b7169203331-01\r\n"
    answer = server.ask(b"GET /livez HTTP/1.1\r\nConnection: close\r\n" + HOST + sane + b"\r\n")
    assert answer.headers["x-request-id"] == "mine-7"
    assert answer.headers["traceparent"].split("-")[1].encode() == trace
    insane = b"X-Request-Id: " + b"x" * 500 + b"\r\ntraceparent: 00-0-0-0\r\n"
    answer = server.ask(b"GET /nothing HTTP/1.1\r\nConnection: close\r\n" + HOST + insane + b"\r\n")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", answer.headers["traceparent"])


def test_pipelined_requests_are_answered_in_order_each_with_its_own_id(server: ServerProcess) -> None:
    first = b"GET /v1/slow?seconds=0.2 HTTP/1.1\r\nX-Request-Id: one\r\n" + HOST + b"\r\n"
    second = b"GET /livez HTTP/1.1\r\nConnection: close\r\nX-Request-Id: two\r\n" + HOST + b"\r\n"
    with server.connect() as connection:
        connection.sendall(first + second)
        received = read_all(connection)
    assert re.findall(rb"x-request-id: (\w+)", received) == [b"one", b"two"]
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_garbage_after_a_request_does_not_prevent_its_answer(server: ServerProcess) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v1/slow?seconds=0.2 HTTP/1.1\r\n" + HOST + b"\r\nGARBAGE\r\n\r\n")
        answer = Answer(read_all(connection))
    assert answer.status == 200
    assert answer.body == b'{"slow":"done"}'
