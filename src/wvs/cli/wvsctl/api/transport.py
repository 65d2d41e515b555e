"""One HTTP connection to the API, kept open between requests.

It uses http.client because importing a larger library would take longer than most commands.
"""

import http.client
import ssl
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from wvs.cli.wvsctl.api.failures import CannotConnect, ConnectionLost, NotTheApi, UntrustedCertificate, UsageFailure
from wvs.endpoint import InvalidEndpoint, endpoint_of, tls_context

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

    def __init__(self, url: str, headers: Sequence[str] = ()) -> None:
        """Raises `UsageFailure` unless `url` is an http or https URL. It may have a path, for an API behind a proxy.

        `headers`, each `NAME: VALUE`, and those of WVS_HEADERS go with each request.
        """
        try:
            self._endpoint = endpoint_of(url, headers)
            self._tls = tls_context() if self._endpoint.secure else None
        except InvalidEndpoint as error:
            raise UsageFailure(str(error), error.help) from error
        self.url = self._endpoint.url
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
            connection.request(
                request.method, self._endpoint.prefix + request.target, request.body, self._headers(request.headers)
            )
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._failure_of(error, request.headers.get("X-Request-Id", ""), timeout_s) from error
        if response.will_close:
            self.close()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def _headers(self, own: Mapping[str, str]) -> dict[str, str]:
        """The headers of a request: its own ones replace those of the endpoint."""
        names = {name.lower() for name in own}
        return {**{name: value for name, value in self._endpoint.headers.items() if name.lower() not in names}, **own}

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
        host, port = self._endpoint.host, self._endpoint.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=CONNECT_TIMEOUT_S, context=self._tls)
        )
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise UntrustedCertificate(self.url, error.verify_message) from error
        except OSError as error:
            connection.close()
            raise CannotConnect(self.url, error.strerror or str(error)) from error
        self._connection = connection
        return connection
