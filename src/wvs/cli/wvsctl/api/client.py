"""The console's client of the API: it sets headers, turns problems into exceptions and repeats writes."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

import wvs
from wvs.cli.wvsctl.api.documents import RefusalDocument
from wvs.cli.wvsctl.api.failures import (
    CannotConnect,
    ConnectionLost,
    ConsoleFailure,
    CredentialsWanted,
    GatewayFailure,
    NotTheApi,
    Refusal,
    UsageFailure,
)
from wvs.cli.wvsctl.api.transport import Answer, Request, Transport
from wvs.domain.errors import ErrorCode

Query = Sequence[tuple[str, str]]
T = TypeVar("T")

WRITE_DELAYS_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses before each repetition of a write; a longer Retry-After takes precedence."""
LONGEST_RETRY_AFTER_S: Final = 30.0

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_TRANSIENT: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.IDEMPOTENCY_IN_FLIGHT})
# RFC 9110 §15.6: what a proxy answers when the API does not. The API itself sends only 503, with a problem document.
_CREDENTIALS_STATUSES: Final = frozenset({401, 403, 407})
_GATEWAY_STATUSES: Final = frozenset({502, 503, 504})


class Client:
    """The API at one URL. The client calls `notify` with messages for the user, such as a repeated write."""

    def __init__(
        self,
        transport: Transport,
        *,
        actor: str | None,
        notify: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._actor = actor
        self._notify = notify
        self._sleep = sleep

    @property
    def url(self) -> str:
        return self._transport.url

    def get(self, path: str, query: Query = (), *, wait_s: int = 0) -> Answer:
        """Sends a GET; raises `Refusal` for a problem document, and what `Transport.send` raises.

        It repeats the request once after a lost connection: the server may have closed the kept connection since.
        """
        request = self._request("GET", path, query, wait_s=wait_s)
        try:
            return self._send(request)
        except ConnectionLost:
            return self._send(request)

    def write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        key: str,
        wait_s: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends a write under the idempotency key `key`.

        It repeats the write with the same key after a lost connection and while the API, or a proxy in front of it,
        answers that the API is unavailable. It notifies the user each time. Raises the last failure after the last
        repetition.
        """
        extra = {"Idempotency-Key": key, **(headers or {})}
        request = self._request(method, path, (), body=body, wait_s=wait_s, extra=extra)
        sent = False
        for delay_s in WRITE_DELAYS_S:
            try:
                return self._send(request)
            except ConsoleFailure as failure:
                if not _is_transient(failure, sent=sent):
                    raise
                sent = True
                self._pause(failure, delay_s)
        return self._send(request)

    def _pause(self, failure: ConsoleFailure, delay_s: float) -> None:
        requested_s = failure.retry_after_s if isinstance(failure, Refusal | GatewayFailure) else None
        pause_s = max(delay_s, min(requested_s or 0.0, LONGEST_RETRY_AFTER_S))
        self._notify(f"{failure.message}; retrying in {pause_s:g} s with the same idempotency key")
        self._sleep(pause_s)

    def _request(
        self,
        method: str,
        path: str,
        query: Query,
        *,
        body: Mapping[str, Any] | None = None,
        wait_s: int = 0,
        extra: Mapping[str, str] | None = None,
    ) -> Request:
        headers = {
            "Accept": "application/json",
            "User-Agent": f"wvsctl/{wvs.__version__}",
            "X-Request-Id": uuid.uuid4().hex,
            **(extra or {}),
        }
        if self._actor is not None:
            headers["X-Actor"] = self._actor
        if wait_s > 0:
            headers["Prefer"] = f"wait={wait_s}"
        if method in ("POST", "PUT"):
            headers["Content-Type"] = "application/json"
        for name, value in headers.items():
            _check_header(name, value)
        target = path + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else msgspec.json.encode(body)
        return Request(method, target, headers, content, wait_s)

    def _send(self, request: Request) -> Answer:
        answer = self._transport.send(request)
        if 200 <= answer.status < 300:
            return answer
        raise self._refusal(answer, request.headers["X-Request-Id"])

    def _refusal(self, answer: Answer, request_id: str) -> ConsoleFailure:
        retry_after_s = _seconds(answer.headers.get("retry-after"))
        if answer.media_type != PROBLEM_MEDIA_TYPE:
            if answer.status in _GATEWAY_STATUSES:
                return GatewayFailure(self.url, answer.status, retry_after_s, request_id)
            if answer.status in _CREDENTIALS_STATUSES:
                return CredentialsWanted(self.url, answer.status)
            return NotTheApi(self.url, f"{answer.status} {answer.media_type or 'without a media type'}")
        problem = self.decode(answer, RefusalDocument)
        return Refusal(answer.status, problem, answer.body, retry_after_s)

    def decode(self, answer: Answer, kind: type[T]) -> T:
        """Decodes the answer's body as `kind`; raises `NotTheApi` if that fails."""
        return self.decode_bytes(answer.body, kind, answer.headers.get("x-request-id", ""))

    def decode_bytes(self, body: bytes | msgspec.Raw, kind: type[T], request_id: str = "") -> T:
        """Decodes a part of an answer's body as `decode` does."""
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotTheApi(self.url, str(error), request_id) from error


def _check_header(name: str, value: str) -> None:
    if not value.isascii() or not value.isprintable():
        raise UsageFailure(f"{value!r} cannot be sent as {name}: use printable ASCII characters only")


def _is_transient(failure: ConsoleFailure, *, sent: bool) -> bool:
    """Whether to repeat the write. A refused connection justifies that only if an earlier attempt was sent (`sent`)."""
    match failure:
        case Refusal():
            return failure.problem.code in _TRANSIENT
        case ConnectionLost() | GatewayFailure():
            return True
        case CannotConnect():
            return sent
        case _:
            return False


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def path_of(*segments: str) -> str:
    """The path `/v1/…` of these segments, each quoted, so that user input never becomes more than one segment.

    Raises `UsageFailure` for an empty segment, for `.` and `..`, and for one with a slash.
    """
    for segment in segments:
        if segment in ("", ".", "..") or "/" in segment:
            raise UsageFailure(f"{segment!r} is not a valid name or id")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)
