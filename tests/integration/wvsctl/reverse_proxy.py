"""A reverse proxy in front of the API, as a load balancer or an authenticating proxy is one."""

import contextlib
import http.client
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class ReverseProxy:
    """Serves `target` under `prefix`, and nothing else.

    Answers 502 with a page if the target does not answer, and 401 with a page unless a request has the headers
    `required`. Sends the headers `added` to the target. `received` has the headers of each request. Closes a connection
    that is idle for `idle_s` seconds.
    """

    def __init__(
        self,
        target: str,
        *,
        prefix: str = "",
        required: Mapping[str, str] | None = None,
        added: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        idle_s: float = 60.0,
    ) -> None:
        self.target = target
        self.prefix = prefix
        self.required = dict(required or {})
        self.added = dict(added or {})
        self.idle_s = idle_s
        self.received: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.connections = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False  # a kept connection would never end
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "http" if tls is None else "https"
        self.port = self._server.server_port
        self.url = f"{scheme}://127.0.0.1:{self.port}{prefix}"

    @contextlib.contextmanager
    def running(self) -> Iterator["ReverseProxy"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = proxy.idle_s

            def setup(self) -> None:
                super().setup()
                proxy.connections += 1

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                received = dict(self.headers.items())
                proxy.received.append(received)
                status, headers, content = proxy._exchange(self.command, self.path, received, body)
                proxy.statuses.append(status)
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = forward  # noqa: N815  # the names that http.server looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler

    def _exchange(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        page = [("Content-Type", "text/html")]
        if any(headers.get(name) != value for name, value in self.required.items()):
            return 401, page, b"<h1>401 who are you?</h1>"
        if not path.startswith(f"{self.prefix}/"):
            return 404, page, b"<h1>404 not served here</h1>"
        connection = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=60)
        try:
            connection.request(method, path.removeprefix(self.prefix), body or None, {**headers, **self.added})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return 502, page, b"<h1>502 Bad Gateway</h1>"
        finally:
            connection.close()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
        return answer.status, kept, content
