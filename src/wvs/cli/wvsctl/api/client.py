"""The API as the console calls it: headers, refusals, and writes that are repeated under one key."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

import wvs
from wvs.cli.wvsctl.api.documents import ProblemDocument
from wvs.cli.wvsctl.api.failures import ConnectionLost, ConsoleFailure, Foreign, Refusal, Unreachable, UsageFailure
from wvs.cli.wvsctl.api.transport import Answer, Request, Transport
from wvs.domain.errors import ErrorCode

Query = Sequence[tuple[str, str]]
T = TypeVar("T")

WRITE_DELAYS_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Pauses before a write is repeated; a Retry-After that asks for more is honoured."""
LONGEST_RETRY_AFTER_S: Final = 30.0

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_TRANSIENT: Final = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.IDEMPOTENCY_IN_FLIGHT})


class Client:
    """The API at one URL. `say` gets what a person should know while it happens, such as a repeated write."""

    def __init__(
        self,
        transport: Transport,
        *,
        actor: str | None,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._actor = actor
        self._say = say
        self._sleep = sleep

    @property
    def url(self) -> str:
        return self._transport.url

    def get(self, path: str, query: Query = (), *, wait_s: int = 0) -> Answer:
        """The answer to a GET; raises `Refusal` for a problem, and what `Transport.send` raises.

        A connection that was lost is tried once more: a kept one may have been closed since the last request.
        """
        request = self._request("GET", path, query, wait_s=wait_s)
        try:
            return self._accepted(request)
        except ConnectionLost:
            return self._accepted(request)

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
        """The answer to a write under the idempotency key `key`.

        Repeated with the same key while the API says that it is not available for now, and after a lost connection;
        every repetition is told. Raises the last failure when the repetitions are used up.
        """
        extra = {"Idempotency-Key": key, **(headers or {})}
        request = self._request(method, path, (), body=body, wait_s=wait_s, extra=extra)
        reached = False
        for delay_s in WRITE_DELAYS_S:
            try:
                return self._accepted(request)
            except ConsoleFailure as failure:
                if not _is_transient(failure, reached=reached):
                    raise
                reached = True
                self._pause(failure, delay_s)
        return self._accepted(request)

    def _pause(self, failure: ConsoleFailure, delay_s: float) -> None:
        asked_s = failure.retry_after_s if isinstance(failure, Refusal) else None
        pause_s = max(delay_s, min(asked_s or 0.0, LONGEST_RETRY_AFTER_S))
        self._say(f"{failure.what}; trying again in {pause_s:g} s with the same idempotency key")
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
            _refuse_unsendable(name, value)
        target = path + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else msgspec.json.encode(body)
        return Request(method, target, headers, content, wait_s)

    def _accepted(self, request: Request) -> Answer:
        answer = self._transport.send(request)
        if 200 <= answer.status < 300:
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: Answer) -> ConsoleFailure:
        if answer.media_type != PROBLEM_MEDIA_TYPE:
            return Foreign(self.url, f"{answer.status} {answer.media_type or 'without a media type'}")
        problem = self.decode(answer, ProblemDocument)
        return Refusal(answer.status, problem, answer.body, _seconds(answer.headers.get("retry-after")))

    def decode(self, answer: Answer, kind: type[T]) -> T:
        """The answer's body as `kind`; raises `Foreign` if it is something else."""
        return self.decode_bytes(answer.body, kind, answer.headers.get("x-request-id", ""))

    def decode_bytes(self, body: bytes | msgspec.Raw, kind: type[T], request_id: str = "") -> T:
        """The same for a part of an answer."""
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Foreign(self.url, str(error), request_id) from error


def _refuse_unsendable(name: str, value: str) -> None:
    if not value.isascii() or not value.isprintable():
        raise UsageFailure(f"{value!r} cannot be sent as {name}: only printable ASCII characters can")


def _is_transient(failure: ConsoleFailure, *, reached: bool) -> bool:
    """Whether the same write may do better soon. One that was never sent is only repeated after one that was."""
    match failure:
        case Refusal():
            return failure.problem.code in _TRANSIENT
        case ConnectionLost():
            return True
        case Unreachable():
            return reached
        case _:
            return False


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def path_of(*segments: str) -> str:
    """`/v1/…` of these segments, each quoted: what a person types never becomes more than one segment.

    Raises `UsageFailure` for one that is empty, or that a server would take as more than one or as a step up.
    """
    for segment in segments:
        if segment in ("", ".", "..") or "/" in segment:
            raise UsageFailure(f"{segment!r} is neither a name nor an id")
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)
