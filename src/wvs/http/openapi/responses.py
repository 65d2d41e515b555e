"""The problems that an operation can answer with, for the OpenAPI document."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example

from wvs.domain.errors import STATUS, ErrorCode
from wvs.http.problems.explanations import EXPLANATIONS
from wvs.http.problems.problem import MEDIA_TYPE, FieldError, Problem, ProblemDocument, invalid_request

ALWAYS_POSSIBLE: Final = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.ROUTE_NOT_FOUND,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.INTERNAL,
    ErrorCode.UNAVAILABLE,
    ErrorCode.DISK_FULL,
)

OPTIONAL_KEY_PROBLEMS: Final = (ErrorCode.IDEMPOTENCY_IN_FLIGHT, ErrorCode.IDEMPOTENCY_KEY_REUSED)
KEY_PROBLEMS: Final = (ErrorCode.IDEMPOTENCY_KEY_REQUIRED, *OPTIONAL_KEY_PROBLEMS)

_EXAMPLE_FIELDS: Final[dict[ErrorCode, dict[str, Any]]] = {
    ErrorCode.SNAPSHOT_IN_USE: {
        "blockers": [{"kind": "current"}, {"kind": "task", "id": "task_01h455vb4pex5vsknk084sn02q"}]
    },
    ErrorCode.BODY_TOO_LARGE: {"limit_bytes": 65536},
    ErrorCode.METHOD_NOT_ALLOWED: {"allow": ["GET", "HEAD"]},
}
_EXAMPLE_REQUEST_ID: Final = "0f8b6f7b2c1d4e5fa0b1c2d3e4f50617"


def problem_responses(*codes: ErrorCode) -> dict[int, ResponseSpec]:
    """For a handler's `responses=`: these codes and those that every operation can return, with an example of each."""
    by_status: dict[int, list[ErrorCode]] = {}
    for code in dict.fromkeys((*codes, *ALWAYS_POSSIBLE)):
        by_status.setdefault(STATUS[code], []).append(code)
    return {status: _response(grouped) for status, grouped in sorted(by_status.items())}


def _response(codes: Sequence[ErrorCode]) -> ResponseSpec:
    return ResponseSpec(
        data_container=ProblemDocument,
        generate_examples=False,
        media_type=MEDIA_TYPE,
        description=". ".join(f"`{code}`: {EXPLANATIONS[code].title}" for code in codes),
        examples=[Example(id=code, summary=EXPLANATIONS[code].title, value=_example(code)) for code in codes],
    )


def _example(code: ErrorCode) -> Any:
    if code is ErrorCode.INVALID_REQUEST:
        problem = invalid_request([FieldError("body", "name", "Expected `str`, got `int`")])
    else:
        problem = Problem(code, EXPLANATIONS[code].meaning, fields=_EXAMPLE_FIELDS.get(code, {}))
    return msgspec.json.decode(problem.body(_EXAMPLE_REQUEST_ID))
