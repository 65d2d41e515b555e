"""A server process that drains, stops or aborts an answer, and its log."""

import json
import signal
import time

import pytest
from tests.integration.http.server_process import HOST, JSON, Answer, StartServer, read_all, read_until


def test_an_incomplete_answer_is_visibly_aborted_and_logged_once(start_server: StartServer) -> None:
    served = start_server()
    answer = served.ask(b"GET /v1/crash-in-answer HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.status == 200
    assert not answer.body.endswith(b"0\r\n\r\n")
    served.end()
    lines = served.log_lines()
    assert len([line for line in lines if "ZeroDivisionError" in json.dumps(line)]) == 1
    [request] = [line for line in lines if line["event"] == "http.request"]
    assert (request["status"], request["code"]) == (500, "INTERNAL")


def test_draining_answers_requests_in_flight_and_ends_every_stream(start_server: StartServer) -> None:
    served = start_server()
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
def test_an_idle_server_stops_at_once_with_exit_code_0(start_server: StartServer, number: signal.Signals) -> None:
    code, took_s, _ = start_server().end(number)
    assert code == 0
    assert took_s < 5


@pytest.mark.parametrize(("grace_s", "signals", "at_most_s"), [(1, 1, 7.0), (20, 2, 7.0)], ids=["grace", "twice"])
def test_a_hanging_request_is_cancelled_after_the_grace_or_a_second_signal(
    start_server: StartServer, grace_s: int, signals: int, at_most_s: float
) -> None:
    served = start_server(grace_s=grace_s)
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


def test_a_client_that_disconnects_during_its_body_is_logged_with_status_499(start_server: StartServer) -> None:
    served = start_server()
    with served.connect() as connection:
        connection.sendall(b"POST /v1/things HTTP/1.1\r\n" + JSON + b"Content-Length: 100\r\n\r\nhalf")
    time.sleep(0.3)
    served.end()
    [request] = [line for line in served.log_lines() if line["event"] == "http.request"]
    assert (request["status"], request["code"]) == (499, None)


def test_every_log_line_is_json_with_its_request_id(start_server: StartServer) -> None:
    served = start_server()
    for name in ("a", "b"):
        served.ask(
            b"GET /nothing HTTP/1.1\r\nConnection: close\r\nX-Request-Id: " + name.encode() + b"\r\n" + HOST + b"\r\n"
        )
    served.end()
    lines = served.log_lines()
    assert [line["request_id"] for line in lines] == ["a", "b"]
    assert {line["route"] for line in lines} == {"unrouted"}
