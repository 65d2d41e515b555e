"""Every failure as an RFC 9457 problem: `problem_of` maps an exception to a problem, `answer_problem` sends it."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec
import structlog
from litestar import Request, Response
from litestar.enums import ParamType
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    ValidationException,
)

from wvs.domain.errors import STATUS, ErrorCode, Refused
from wvs.http.problems.explanations import EXPLANATIONS
from wvs.http.problems.patterns import explain_mismatch
from wvs.http.wire.context import context_of
from wvs.postgres.availability import is_unavailable

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "/problems/"
REFUSAL_KEY: Final = "wvs_refusal"

RETRY_AFTER_S: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.IDEMPOTENCY_IN_FLIGHT: 1,
    ErrorCode.WORKSPACE_QUEUE_FULL: 5,
    ErrorCode.UNAVAILABLE: 2,
}

# Litestar reserves the argument name `state`, and it reports faults under the names of arguments, not of parameters.
_RENAMED: Final = {"state_filter": "state", "event_type": "type"}
_MISSING_PARAMETER: Final = re.compile(r"Missing required (\w+) parameter '([^']+)'")

_log = structlog.get_logger("wvs.http")


class FieldError(msgspec.Struct, frozen=True, rename={"place": "in"}):
    """One fault of a request: its place (`body`, `query`, `path`, `header`), its field, and the problem."""

    place: str
    field: str
    problem: str


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every failure (RFC 9457). A code may add fields of its own, such as `blockers` or `errors`."""

    type: str
    title: str
    status: int
    detail: str
    code: ErrorCode
    hint: str
    request_id: str


class Problem(msgspec.Struct, frozen=True):
    """One failure before it is encoded: its code, what happened, what to do, and further fields."""

    code: ErrorCode
    detail: str
    hint: str = ""
    fields: Mapping[str, Any] = {}

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def headers(self) -> dict[str, str]:
        """`Retry-After` if the request may be repeated, `Allow` for a wrong method, `Accept-Encoding` for a coding."""
        found: dict[str, str] = {}
        if self.code in RETRY_AFTER_S:
            found["retry-after"] = str(self.fields.get("retry_after_s", RETRY_AFTER_S[self.code]))
        if self.code is ErrorCode.METHOD_NOT_ALLOWED:
            found["allow"] = ", ".join(self.fields.get("allow", ()))
        if "accept_encoding" in self.fields:
            found["accept-encoding"] = self.fields["accept_encoding"]  # RFC 9110 §15.5.16
        return found

    def body(self, request_id: str, prefix: str = "") -> bytes:
        """The JSON document; `prefix` is the path under which a proxy serves the API.

        The fields of the refusal never replace the members of RFC 9457.
        """
        explanation = EXPLANATIONS[self.code]
        return msgspec.json.encode(
            {
                **self.fields,
                "type": prefix + TYPE_PREFIX + self.code,
                "title": explanation.title,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                "hint": self.hint or explanation.hint,
                "request_id": request_id,
            }
        )


def problem_of(error: Exception) -> Problem:
    """The problem of `error`. An unexpected exception is `INTERNAL`, and the problem reveals nothing about it."""
    match error:
        case Refused() if error.code in STATUS:
            return Problem(error.code, error.detail, error.hint, error.fields)
        case ValidationException():
            return invalid_request(_field_errors(error))
        case MethodNotAllowedException():
            return _method_not_allowed(error)
        case HTTPException() if error.status_code < 500:
            return _client_error(error)
        case _ if is_unavailable(error):
            return Problem(ErrorCode.UNAVAILABLE, "the database is unreachable or overloaded")
        case _:
            return Problem(
                ErrorCode.INTERNAL, "the service failed unexpectedly; its log has the details under this request_id"
            )


def invalid_request(errors: list[FieldError]) -> Problem:
    """`INVALID_REQUEST` that names every wrong field, in `errors` for programs and in `detail` for people."""
    detail = "; ".join(f"{error.place} {error.field}".strip() + f": {error.problem}" for error in errors)
    return Problem(ErrorCode.INVALID_REQUEST, detail, fields={"errors": errors})


def refuse_fields(*errors: FieldError) -> Refused:
    """`INVALID_REQUEST` as a `Refused`, for faults that Litestar's own validation does not find."""
    problem = invalid_request(list(errors))
    return Refused(problem.code, problem.detail, problem.hint, **problem.fields)


def record_problem(error: Exception, state: dict[str, Any]) -> Problem:
    """The problem of `error`. Stores its code in the request's `state` for the access log and the metrics.

    Logs a failure of the service itself, once and with its traceback. A refusal is not such a failure.
    """
    problem = problem_of(error)
    state[REFUSAL_KEY] = problem.code
    if problem.code is ErrorCode.INTERNAL:
        _log.error("http.crashed", exc_info=error)
    elif problem.code is ErrorCode.UNAVAILABLE and not isinstance(error, Refused):
        _log.warning("http.database_unavailable", error=f"{type(error).__name__}: {error}")
    return problem


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's handler for every exception of a route and of the router."""
    problem = record_problem(error, request.scope["state"])
    context = context_of(request)
    return Response(
        content=problem.body(context.request_id, context.prefix),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers(),
    )


_Handler = Callable[[Request[Any, Any, Any], Exception], Response[bytes]]

EXCEPTION_HANDLERS: Final[Mapping[int | type[Exception], _Handler]] = {
    Refused: answer_problem,
    HTTPException: answer_problem,
    Exception: answer_problem,
}


def _client_error(error: HTTPException) -> Problem:
    match error.status_code:
        case 404:
            return Problem(ErrorCode.ROUTE_NOT_FOUND, "there is no operation under this path")
        case 413:
            return Problem(ErrorCode.BODY_TOO_LARGE, error.detail)
        case 415:
            return Problem(ErrorCode.UNSUPPORTED_MEDIA_TYPE, error.detail)
        case _:
            return Problem(ErrorCode.INVALID_REQUEST, error.detail)


def _method_not_allowed(error: MethodNotAllowedException) -> Problem:
    methods = {name.strip() for name in (error.headers or {}).get("allow", "").split(",") if name.strip()}
    if "GET" in methods:
        methods.add("HEAD")
    allow = sorted(methods)
    return Problem(ErrorCode.METHOD_NOT_ALLOWED, f"this path supports {', '.join(allow)}", fields={"allow": allow})


def _field_errors(error: ValidationException) -> list[FieldError]:
    found: list[FieldError] = []
    for item in cast("list[dict[str, Any]]", error.extra or []):
        place = _place(item.get("source"))
        if place == "body":
            # `StrictRequest` has decoded the body before. The only fault that Litestar still finds is a missing body.
            found.append(FieldError("body", "", "a JSON body is required"))
        else:
            name: str = item.get("key", "")
            found.append(FieldError(place, _RENAMED.get(name, name), explain_mismatch(item["message"])))
    if not found and (match := _MISSING_PARAMETER.search(error.detail)):
        found.append(FieldError(match[1], match[2], "required, but missing"))
    return found or [FieldError("request", "", error.detail)]


def _place(source: str | None) -> str:
    return source.value if isinstance(source, ParamType) else source or "request"
