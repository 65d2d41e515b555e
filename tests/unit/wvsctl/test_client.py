"""The client against a server that misbehaves on demand."""

from collections.abc import Callable

import pytest
from tests.unit.wvsctl.scripted_server import ScriptedServer, problem, reply

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.documents import CurrentDocument
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import CannotConnect, ConnectionLost, GatewayFailure, NotTheApi, Refusal, UsageFailure
from wvs.cli.wvsctl.api.transport import Transport

Start = Callable[..., ScriptedServer]
JSON = {"Content_Type": "application/json"}


class Calls:
    """A client that records its sleeps and its messages."""

    def __init__(self, url: str) -> None:
        self.slept: list[float] = []
        self.notified: list[str] = []
        self.client = Client(Transport(url), actor="alice", notify=self.notified.append, sleep=self.slept.append)

    def write(self) -> int:
        return self.client.write("POST", path_of("workspaces"), {"name": "a"}, key="k1").status


def test_a_write_to_an_unavailable_api_is_repeated_after_retry_after_with_the_same_key_and_request_id(
    scripted: Start,
) -> None:
    server = scripted(problem(503, "UNAVAILABLE", Retry_After="3"), problem(503, "UNAVAILABLE"), reply(202))
    calls = Calls(server.url)
    assert calls.write() == 202
    assert calls.slept == [3.0, 1.0]
    assert [request.headers["Idempotency-Key"] for request in server.received] == ["k1"] * 3
    assert len({request.headers["X-Request-Id"] for request in server.received}) == 1
    assert len(calls.notified) == 2
    assert "retrying in 3 s with the same idempotency key" in calls.notified[0]


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_write_is_repeated_with_the_same_key_when_a_proxy_answers_for_the_api(scripted: Start, status: int) -> None:
    page = reply(status, b"<h1>no</h1>", Content_Type="text/html", Retry_After="2")
    server = scripted(page, page, reply(202))
    calls = Calls(server.url)
    assert calls.write() == 202
    assert calls.slept == [2.0, 2.0]
    assert [request.headers["Idempotency-Key"] for request in server.received] == ["k1"] * 3
    assert f"the proxy at {server.url} answers {status}" in calls.notified[0]


def test_a_proxy_without_an_api_ends_a_read_at_once_and_a_write_after_its_repetitions(scripted: Start) -> None:
    server = scripted(*[reply(502)] * 6)
    with pytest.raises(GatewayFailure, match="it gets no answer from the API"):
        Calls(server.url).client.get("/v1/tasks")
    calls = Calls(server.url)
    with pytest.raises(GatewayFailure) as failure:
        calls.write()
    assert failure.value.exit is Exit.FAILURE
    assert calls.slept == [0.5, 1.0, 2.0, 4.0]


def test_a_long_retry_after_is_shortened(scripted: Start) -> None:
    server = scripted(problem(503, "UNAVAILABLE", Retry_After="3600"), reply(202))
    calls = Calls(server.url)
    assert calls.write() == 202
    assert calls.slept == [30.0]


def test_a_write_is_repeated_after_a_lost_connection(scripted: Start) -> None:
    server = scripted(None, reply(202))
    calls = Calls(server.url)
    assert calls.write() == 202
    assert [request.body for request in server.received] == [b'{"name":"a"}'] * 2


def test_a_write_is_repeated_while_the_first_one_is_in_flight(scripted: Start) -> None:
    calls = Calls(scripted(problem(409, "IDEMPOTENCY_IN_FLIGHT", Retry_After="1"), reply(202)).url)
    assert calls.write() == 202


def test_the_last_failure_is_raised_when_all_repetitions_fail(scripted: Start) -> None:
    server = scripted(*[problem(503, "UNAVAILABLE")] * 5)
    with pytest.raises(Refusal) as refusal:
        Calls(server.url).write()
    assert refusal.value.exit is Exit.FAILURE
    assert len(server.received) == 5


@pytest.mark.parametrize(
    ("status", "code"), [(409, "SNAPSHOT_IN_USE"), (429, "WORKSPACE_QUEUE_FULL"), (500, "INTERNAL")]
)
def test_a_permanent_refusal_is_not_repeated(scripted: Start, status: int, code: str) -> None:
    server = scripted(problem(status, code))
    with pytest.raises(Refusal, match="why"):
        Calls(server.url).write()
    assert len(server.received) == 1


def test_a_write_that_was_never_sent_is_not_repeated(refused_url: str) -> None:
    calls = Calls(refused_url)
    with pytest.raises(CannotConnect) as failure:
        calls.write()
    assert refused_url in failure.value.message
    assert "wvs up" in failure.value.help[0]
    assert not calls.slept


def test_a_write_is_repeated_while_an_api_that_stopped_refuses_connections(scripted: Start) -> None:
    server = scripted(None)
    calls = Calls(server.url)
    record = calls.slept.append

    def sleep(seconds: float) -> None:
        record(seconds)
        if len(calls.slept) == 1:
            server.close()

    calls.client._sleep = sleep
    with pytest.raises(CannotConnect):
        calls.write()
    assert len(calls.slept) == 4


def test_a_read_is_repeated_once_on_a_new_connection(scripted: Start) -> None:
    server = scripted(None, reply(200, b"{}", **JSON))
    assert Calls(server.url).client.get("/v1/tasks").status == 200
    with pytest.raises(ConnectionLost):
        Calls(scripted(None, None).url).client.get("/v1/tasks")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x16\x03\x01 nonsense\r\n\r\n", "not HTTP"),
        (reply(404, b"<h1>no</h1>", Content_Type="text/html"), "404 text/html"),
        (reply(302, Location="http://elsewhere/"), "302"),
        (reply(500, b'{"oops":1}', **JSON), "500 application/json"),
        (reply(409, b'{"code":1}', Content_Type="application/problem+json"), "code"),
    ],
)
def test_an_answer_of_another_server_is_reported_as_such(scripted: Start, answer: bytes, reason: str) -> None:
    server = scripted(answer)
    with pytest.raises(NotTheApi, match="is not the WVS API") as failure:
        Calls(server.url).client.get("/v1/tasks")
    assert reason in failure.value.message
    assert server.url in failure.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"snapshot_id":1}', b'\xff{"epoch":1}'])
def test_a_body_that_cannot_be_decoded_is_not_of_the_api(scripted: Start, body: bytes) -> None:
    client = Calls(scripted(reply(200, body, **JSON)).url).client
    with pytest.raises(NotTheApi):
        client.decode(client.get("/v1/x"), CurrentDocument)


def test_an_incomplete_body_is_a_lost_connection(scripted: Start) -> None:
    server = scripted(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{}", reply(200, b"{}"))
    assert Calls(server.url).client.get("/v1/x").status == 200
    assert len(server.received) == 2


def test_every_request_has_the_actor_the_wait_and_the_user_agent(scripted: Start) -> None:
    server = scripted(reply(200, b"{}", **JSON))
    Calls(server.url + "/behind/a/proxy/").client.get("/v1/tasks", [("state", "failed"), ("q", "a&b")], wait_s=7)
    request = server.received[0]
    assert request.target == "/behind/a/proxy/v1/tasks?state=failed&q=a%26b"
    assert request.headers["X-Actor"] == "alice"
    assert request.headers["Prefer"] == "wait=7"
    assert request.headers["User-Agent"].startswith("wvsctl/")


def test_user_input_never_becomes_more_than_one_path_segment() -> None:
    assert path_of("workspaces", "a%2Fb?c#d\0") == "/v1/workspaces/a%252Fb%3Fc%23d%00"
    for segment in ("", ".", "..", "a/b"):
        with pytest.raises(UsageFailure):
            path_of("workspaces", segment)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8787",
        "ftp://127.0.0.1",
        "http://",
        "http://h:x",
        "http://h:99999",
        "http://h/?q=1",
        "http://h/\r\nX: y",
    ],
)
def test_an_invalid_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageFailure):
        Transport(url)


@pytest.mark.parametrize("key", ["a\r\nX-Actor: root", "schlüssel"])
def test_a_key_that_is_no_valid_header_value_is_a_usage_error_and_nothing_is_sent(key: str, refused_url: str) -> None:
    with pytest.raises(UsageFailure, match="Idempotency-Key"):
        Calls(refused_url).client.write("POST", "/v1/workspaces", {}, key=key)
