"""One HTTP connection to the API, kept open between requests.

It uses http.client because importing a larger library would take longer than most commands.
"""

import http.client
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from wvs.cli.wvsctl.api.failures import CannotConnect, ConnectionLost, NotTheApi, UsageFailure

DEFAULT_URL: Final = "http://127.0.0.1:8787"
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0


class Request(Struct, frozen=True):
    """One request; `target` is the path with its query, `wait_s` the time that the API may hold the answer."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes | None = None
    wait_s: int = 0


class Answer(Struct, frozen=True):
    """One complete answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Transport:
    """Sends requests to one URL, one after the other. Not safe for use by several threads."""

    def __init__(self, url: str) -> None:
        """Raises `UsageFailure` unless `url` is an http or https URL. It may have a path, for an API behind a proxy."""
        parts = _checked(url)
        self.url = url
        self._prefix = parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._connection: http.client.HTTPConnection | None = None

    def send(self, request: Request) -> Answer:
        """Sends a request and returns the answer, whatever its status.

        Raises `CannotConnect` if it could not connect, `ConnectionLost` if the API may have received the request, and
        `NotTheApi` for an answer that is not HTTP.
        """
        connection = self._connection or self._connect()
        timeout_s = ANSWER_TIMEOUT_S + request.wait_s
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout_s)
            connection.request(request.method, self._prefix + request.target, request.body, dict(request.headers))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._failure_of(error, request.headers.get("X-Request-Id", ""), timeout_s) from error
        if response.will_close:
            self.close()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def _failure_of(
        self, error: OSError | http.client.HTTPException, request_id: str, timeout_s: float
    ) -> ConnectionLost | NotTheApi:
        match error:
            case http.client.RemoteDisconnected() | http.client.IncompleteRead():
                return ConnectionLost(self.url, "the server closed it before it had sent the whole answer", request_id)
            case TimeoutError():
                return ConnectionLost(self.url, f"no answer in {timeout_s:g} s", request_id)
            case OSError():
                return ConnectionLost(self.url, error.strerror or str(error), request_id)
            case _:
                return NotTheApi(self.url, f"not HTTP ({type(error).__name__})", request_id)

    def close(self) -> None:
        """Closes the connection; the next request opens a new one."""
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
            raise CannotConnect(self.url, error.strerror or str(error)) from error
        self._connection = connection
        return connection


def _checked(url: str) -> SplitResult:
    example = "for example: http://127.0.0.1:8787"
    if any(character <= " " or character == "\x7f" for character in url):
        raise UsageFailure(f"--url {url!r} is not a URL", example)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageFailure(f"--url {url!r} is not a URL: {error}", example) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageFailure(f"--url {url!r} is not an http or https URL", example)
    if parts.query or parts.fragment or parts.username is not None:
        raise UsageFailure(f"--url {url!r} may contain only a host, a port and a path", example)
    return parts
