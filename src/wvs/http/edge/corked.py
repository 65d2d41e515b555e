"""Sends the answers that are ready at the same time together, each in one write.

uvicorn writes the head and the body of an answer separately, and uvloop sends each write at once: two system calls, two
packets, and a client that wakes for the first of them. If many clients wait for the same event (the agents of one
workspace for the start and the end of a freeze), the first clients would also take the processor away from the service
while it still prepares the other answers.
"""

import asyncio
from typing import Any, Final

_MAX_HELD_BYTES: Final = 64 * 1024


class CorkedTransport:
    """A transport that collects the writes of one turn of the event loop and sends them together in the next turn.

    It sends at once when it holds more than 64 KiB, so that long answers do not accumulate. Everything else is
    delegated to the underlying transport.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends `data` in the next turn of the event loop."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_HELD_BYTES:
            self._send()

    def close(self) -> None:
        """Sends the pending writes, then closes the transport."""
        self._send()
        self._transport.close()

    def abort(self) -> None:
        """Closes the transport at once and drops the pending writes."""
        self._held, self._held_bytes = [], 0
        self._transport.abort()

    def _send(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        # By now the client may be gone, and uvloop raises for a write to a transport that it has closed.
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
