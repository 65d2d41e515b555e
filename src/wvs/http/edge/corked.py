"""Answers that are ready together leave together, each in one piece.

uvicorn writes the head of an answer and its body apart, and uvloop sends each write at once: two system calls, two
packets, and a client that wakes for the first of them. Where many clients wait for the same thing (the agents of one
workspace for the begin and the end of a freeze), the first ones would also take the processor away from the making of
the other answers.
"""

import asyncio
from typing import Any, Final

_MAX_HELD_BYTES: Final = 64 * 1024


class CorkedTransport:
    """A transport whose writes of one turn of the event loop are sent together, in the next turn.

    What is more than 64 KiB goes at once, so that a long answer does not gather here. Everything else is the
    transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """As of the transport, a little later."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD_BYTES:
            self._send()

    def close(self) -> None:
        """Closes it after what was written is sent."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """Closes it at once; what was not sent is lost."""
        self._held, self._held_bytes = [], 0
        self._transport.abort()

    def _send(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        # A turn later the client may be gone, and uvloop raises for a transport that it has closed.
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
