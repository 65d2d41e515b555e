"""One HTTP connection to the API, kept open between requests.

http.client and no larger library: importing one would take longer than most commands do.
"""

import http.client
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from wvs.cli.wvsctl.api.failures import ConnectionLost, Foreign, Unreachable, UsageFailure

DEFAULT_URL: Final = "http://127.0.0.1:8787"
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0


class Request(Struct, frozen=True):
    """One request; `target` is the path with its query, `wait_s` how long the API was asked to hold the answer."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None = None
    wait_s: int = 0


class Answer(Struct, frozen=True):
    """One answer, read to its end; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Transport:
    """Sends requests to one URL, one after the other. Not for several threads."""

    def __init__(self, url: str) -> None:
        """Raises `UsageFailure` unless `url` is an http or https URL; it may have a path, for an API behind a proxy."""
        parts = _checked(url)
        self.url = url
        self._prefix = parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._connection: http.client.HTTPConnection | None = None

    def send(self, request: Request) -> Answer:
        """The answer, whatever its status.

        Raises `Unreachable` if nothing was sent, `ConnectionLost` if it is not known whether the API received it, and
        `Foreign` for an answer that is no HTTP.
        """
        connection = self._connection or self._connect()
        patience_s = ANSWER_TIMEOUT_S + request.wait_s
        try:
            if connection.sock is not None:
                connection.sock.settimeout(patience_s)
            connection.request(request.method, self._prefix + request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._broken(error, request.headers.get("X-Request-Id", ""), patience_s) from error
        if response.will_close:
            self.close()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def _broken(
        self, error: OSError | http.client.HTTPException, request_id: str, patience_s: float
    ) -> ConnectionLost | Foreign:
        match error:
            case http.client.RemoteDisconnected() | http.client.IncompleteRead():
                return ConnectionLost(self.url, "it was closed before the whole answer came", request_id)
            case TimeoutError():
                return ConnectionLost(self.url, f"no answer in {patience_s:g} s", request_id)
            case OSError():
                return ConnectionLost(self.url, error.strerror or str(error), request_id)
            case _:
                return Foreign(self.url, f"not HTTP ({type(error).__name__})", request_id)

    def close(self) -> None:
        """Let go of the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise Unreachable(self.url, error.strerror or str(error)) from error
        self._connection = connection
        return connection


def _checked(url: str) -> SplitResult:
    example = "an example of one that is: http://127.0.0.1:8787"
    if any(character <= " " or character == "\x7f" for character in url):
        raise UsageFailure(f"--url {url!r} is no URL", example)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageFailure(f"--url {url!r} is no URL: {error}", example) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageFailure(f"--url {url!r} is no http or https URL", example)
    if parts.query or parts.fragment or parts.username is not None:
        raise UsageFailure(f"--url {url!r} may have a host, a port and a path, and nothing else", example)
    return parts
