"""Valid and invalid answers on an agent's connection."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvloop

from wvs.agent.errors import AgentError, Rejected, Unreachable
from wvs.agent.transport import AgentTransport

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}'


class Server:
    """Answers each request with the next of `answers`, byte for byte. None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[AgentTransport]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        transport = AgentTransport(f"http://127.0.0.1:{self.port}/behind a proxy/")
        try:
            yield transport
        finally:
            transport.close()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self._answers:
                self.requests.append(await self._request(reader))
                answer = self._answers.pop(0)
                if answer is None:
                    break
                for n in range(0, len(answer), 4096):
                    writer.write(answer[n : n + 4096])
                    await writer.drain()
                if b"close" in answer.lower():
                    break
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Le")), 0)
        return head + await reader.readexactly(length)


async def call(transport: AgentTransport, body: Any = None) -> Any:
    async with asyncio.timeout(20):
        return await transport.call("GET" if body is None else "POST", "/v1/x?after=1", dict[str, int], body)


async def test_one_connection_serves_one_request_after_the_other() -> None:
    server = Server(OK, OK)
    async with server.running() as transport:
        assert await call(transport) == {"a": 1}
        assert await call(transport, {"kind": "frozen"}) == {"a": 1}
    assert server.connections == 1
    get, post = (request.decode() for request in server.requests)
    assert get.startswith("GET /behind%20a%20proxy/v1/x?after=1 HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in get
    assert "\r\nContent-Type: application/json\r\nContent-Length: 17\r\n" in post
    assert post.endswith('\r\n\r\n{"kind":"frozen"}')


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"a":1}',  # it ends with the connection, RFC 9112 §6.3
        b'HTTP/1.0 200 OK\r\nX: close\r\n\r\n{"a":1}',
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
    ],
)
async def test_every_valid_form_of_an_answer_is_decoded(answer: bytes) -> None:
    server = Server(answer, OK)
    async with server.running() as transport:
        assert await call(transport) == {"a": 1}
        assert await call(transport) == {"a": 1}
    assert server.connections == 1 + (b"close" in answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "closed before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7; close\r\n\r\n{", "HttpParser"),
        (b'HTTP/1.1 200 OK\r\nX: close\r\nContent-Length: 70\r\n\r\n{"a":1}', "closed before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nX: close", "closed before the answer was complete"),
        (b"SSH-2.0-OpenSSH close\r\n", "HttpParser"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "the answer is not from WVS"),
        (b"HTTP/1.1 503 Gone\r\nContent-Length: 0\r\n\r\n", "the service answers 503"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "the answer 302 is not from WVS"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + 4096 * b" " + b"\r\n", "x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + 2_000_000 * b" ", "longer than"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nclose", "HttpParserUpgrade"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + 2_000_000 * b"x", "longer than"),
    ],
)
async def test_an_invalid_answer_makes_the_service_unreachable(answer: bytes | None, message: str) -> None:
    server = Server(answer, OK)
    async with server.running() as transport:
        if message == "x":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await transport.call("GET", "/v1/x", dict[str, int])
        else:
            with pytest.raises(Unreachable, match=message):
                await call(transport)
        assert await call(transport) == {"a": 1}  # on a new connection if the old one is unusable


async def test_a_refusal_is_raised_with_its_code_and_hint() -> None:
    problem = b'{"code":"FREEZE_STALE","detail":"over","hint":"ask"}'
    answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem)
    server = Server(answer, OK)
    async with server.running() as transport:
        with pytest.raises(Rejected) as refused:
            await call(transport)
        assert (refused.value.status, refused.value.code, refused.value.hint) == (409, "FREEZE_STALE", "ask")
        assert await call(transport) == {"a": 1}
    assert server.connections == 1


@pytest.mark.parametrize("surplus", [OK.replace(b"1}", b"2}"), b"HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n{", b"H"])
async def test_an_answer_without_a_request_does_not_answer_the_next_one(surplus: bytes) -> None:
    server = Server(OK + surplus, OK.replace(b"1}", b"3}"))
    async with server.running() as transport:
        assert await call(transport) == {"a": 1}
        await asyncio.sleep(0.05)
        assert await call(transport) == {"a": 3}


async def test_the_answer_to_a_cancelled_request_never_answers_another_one() -> None:
    late = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"first" in request:
            await late.wait()
        writer.write(OK.replace(b"1}", b"8}") if b"first" in request else OK)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = AgentTransport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await transport.call("GET", "/first", dict[str, int])
    late.set()
    assert await call(transport) == {"a": 1}
    transport.close()
    server.close()


async def test_a_port_without_a_listener_makes_the_service_unreachable() -> None:
    with pytest.raises(Unreachable, match="ConnectionRefusedError"):
        await call(AgentTransport("http://127.0.0.1:1"))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8787", "http://", "http://ünï.example"])
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(AgentError, match=r"not a URL|not an http or https URL"):
        AgentTransport(url)


def test_it_works_on_uvloop() -> None:
    """Its transports inherit from no class of asyncio."""

    async def main() -> None:
        server = Server(OK, OK)
        async with server.running() as transport:
            assert await call(transport) == {"a": 1}
            assert await call(transport, {"kind": "frozen"}) == {"a": 1}
        assert server.connections == 1

    uvloop.run(main())
