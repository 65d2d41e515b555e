"""A server that answers from a script, for failures that a healthy API does not produce on demand."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from msgspec import Struct


class Received(Struct, frozen=True):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Reply = bytes | None
"""The bytes of an answer, or None to close the connection without one."""


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(status: int, code: str, detail: str = "why", **headers: str) -> bytes:
    body = f'{{"code":"{code}","detail":"{detail}","status":{status},"request_id":"r1"}}'.encode()
    return reply(status, body, Content_Type="application/problem+json", **headers)


class ScriptedServer:
    """Answers the n-th request with the n-th reply, and records every request."""

    def __init__(self, replies: list[Reply]) -> None:
        self.received: list[Received] = []
        received, remaining = self.received, list(replies)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                received.append(Received(self.command, self.path, dict(self.headers.items()), body))
                text = remaining.pop(0)
                if text is not None:
                    self.wfile.write(text)
                if text is None or not text.startswith(b"HTTP/") or b"Connection: close" in text:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  # the names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.block_on_close = False  # a kept connection would never end
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
