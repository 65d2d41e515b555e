"""The caller: a careful HTTP client. It repeats a request without an answer under the same key."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

PATIENCE_S = 60.0
"""How long the client repeats a request without an answer. Faults of the machine last a second or two."""

_PAUSE_S = 0.05


@dataclass(frozen=True)
class Answer:
    """One answer. `code` is the problem's code, or None if the API accepted the request."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str | None:
        return self.body.get("code") if self.status >= 400 else None

    @property
    def replayed(self) -> bool:
        return self.headers.get("idempotent-replayed") == "true"


@dataclass(frozen=True)
class Request:
    """One write. A repetition sends all of it, including its key."""

    method: str
    path: str
    body: Any = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    if_match: str | None = None


class Client:
    """Sends requests; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(70, connect=2))

    def close(self) -> None:
        self._http.close()

    def read(self, path: str, *, wait_s: int | None = None) -> Any:
        """A resource, which must exist."""
        headers = {} if wait_s is None else {"prefer": f"wait={wait_s}"}
        answer = self._until_answered("GET", path, None, headers)
        assert answer.status == 200, (path, answer)
        return answer.body

    def items(self, path: str) -> list[Any]:
        """All items of a list, page by page."""
        items: list[Any] = []
        cursor = None
        while True:
            join = "&" if "?" in path else "?"
            page = self.read(path if cursor is None else f"{path}{join}cursor={cursor}")
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return items

    def send(self, request: Request) -> Answer:
        """Sends the request, and repeats it until it is answered."""
        headers = {"idempotency-key": request.key, "content-type": "application/json"}
        if request.if_match is not None:
            headers["if-match"] = request.if_match
        return self._until_answered(request.method, request.path, request.body, headers)

    def ready(self) -> bool:
        """Whether the API is ready."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _until_answered(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                # Each try has a request id of its own, so that `LogAudit` can count the effects under one key.
                named = {**headers, "x-request-id": uuid.uuid4().hex}
                content = {} if body is None else {"json": body}
                response = self._http.request(method, path, headers=named, **content)
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
                continue
            answer = Answer(response.status_code, response.json(), dict(response.headers))
            again = answer.status == 503 or answer.code == "IDEMPOTENCY_IN_FLIGHT"
            if not again or time.monotonic() > deadline:
                assert answer.status < 500, answer
                return answer
            time.sleep(_PAUSE_S)
