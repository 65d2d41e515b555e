"""The order and the number of writes, as the underlying transport receives them."""

import asyncio
from typing import Any, cast

import uvloop

from wvs.http.edge.corked import CorkedTransport


class Recorder:
    """Replaces the underlying transport."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("closed")

    def abort(self) -> None:
        self.calls.append("aborted")

    def is_closing(self) -> bool:
        return "closed" in self.calls


def corked() -> tuple[CorkedTransport, Recorder]:
    below = Recorder()
    return CorkedTransport(cast("asyncio.Transport", below), asyncio.get_running_loop()), below


async def test_the_writes_of_one_turn_are_sent_together_in_the_next_turn() -> None:
    transport, below = corked()
    transport.write(b"head ")
    transport.write(b"body")
    assert below.calls == []
    await asyncio.sleep(0)
    assert below.calls == [b"head body"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert below.calls == [b"head body", b"next"]


async def test_closing_sends_first_and_aborting_does_not() -> None:
    transport, below = corked()
    transport.write(b"bye")
    transport.close()
    await asyncio.sleep(0)
    assert below.calls == [b"bye", "closed"]
    assert transport.is_closing()
    transport, below = corked()
    transport.write(b"bye")
    transport.abort()
    await asyncio.sleep(0)
    assert below.calls == ["aborted"]


async def test_a_long_answer_is_sent_at_once() -> None:
    transport, below = corked()
    for _ in range(3):
        transport.write(bytes(40_000))
    assert [len(call) for call in below.calls] == [80_000]
    await asyncio.sleep(0)
    assert [len(call) for call in below.calls] == [80_000, 40_000]


def test_a_write_to_a_vanished_client_is_dropped_silently() -> None:
    """Uvloop raises for a write to a transport that it has closed; asyncio does not."""
    failures: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        vanished = asyncio.Event()

        class Served(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                below = cast("asyncio.Transport", transport)
                loop.call_soon(CorkedTransport(below, loop).write, b"late")
                below.abort()
                loop.call_later(0.05, vanished.set)

        server = await loop.create_server(Served, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await vanished.wait()
        writer.close()
        server.close()

    uvloop.run(main())
    assert failures == []
