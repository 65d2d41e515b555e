"""The OpenAPI document of the API, the problems in it, and the pages that show it without the internet."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Example
from litestar.types import ControllerRouterHandler

from wvs import __version__
from wvs.domain.errors import STATUS, ErrorCode
from wvs.http.admission import QueryNames
from wvs.http.explanations import EXPLANATIONS
from wvs.http.problems import MEDIA_TYPE, FieldError, Problem, ProblemDocument, invalid_request

ALWAYS_POSSIBLE: Final = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.ROUTE_NOT_FOUND,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.INTERNAL,
    ErrorCode.UNAVAILABLE,
)

_EXAMPLE_FIELDS: Final[dict[ErrorCode, dict[str, Any]]] = {
    ErrorCode.SNAPSHOT_IN_USE: {
        "blockers": [{"kind": "current"}, {"kind": "task", "id": "task_01h455vb4pex5vsknk084sn02q"}]
    },
    ErrorCode.BODY_TOO_LARGE: {"limit_bytes": 65536},
    ErrorCode.METHOD_NOT_ALLOWED: {"allow": ["GET", "HEAD"]},
}
_EXAMPLE_REQUEST_ID: Final = "0f8b6f7b2c1d4e5fa0b1c2d3e4f50617"


def problem_responses(*codes: ErrorCode) -> dict[int, ResponseSpec]:
    """For a handler's `responses=`: these codes and those that every operation can give, with an example of each."""
    by_status: dict[int, list[ErrorCode]] = {}
    for code in dict.fromkeys((*codes, *ALWAYS_POSSIBLE)):
        by_status.setdefault(STATUS[code], []).append(code)
    return {status: _response(found) for status, found in sorted(by_status.items())}


def describe(route_handlers: Sequence[ControllerRouterHandler], dependencies: Mapping[str, Provide]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes, as plain JSON values. Needs no database and starts nothing."""
    config = OpenAPIConfig(
        title="WVS, the Workspace Versioning Service",
        version=__version__,
        description="Provably consistent snapshots of agents' working directories. Failures are RFC 9457 problems; "
        "`/problems/{code}` explains each.",
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin()],
    )
    # An app of its own, never served: Litestar's schema router answers unknown paths below /schema with an HTML page,
    # and here every failure is a problem.
    app = Litestar(
        route_handlers=list(route_handlers),
        dependencies=dependencies,
        openapi_config=config,
        logging_config=None,
    )
    document = msgspec.json.decode(msgspec.json.encode(app.openapi_schema.to_schema()))
    for operation in _operations(document):
        _say_that_bodies_are_closed(operation, document)
        _say_that_parameters_are_never_null(operation)
    return document


def query_names_of(document: Mapping[str, Any]) -> QueryNames:
    """The declared query parameters of every operation, by (method, path)."""
    paths: Mapping[str, Mapping[str, Mapping[str, Any]]] = document["paths"]
    return {
        (method.upper(), path): frozenset(
            parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"
        )
        for path, item in paths.items()
        for method, operation in item.items()
    }


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from item.values()


def _say_that_bodies_are_closed(operation: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Litestar leaves out what `forbid_unknown_fields` means; `require_closed_bodies` makes sure that all have it."""
    pending: list[Any] = [operation.get("requestBody", {})]
    while pending:
        schema = pending.pop()
        if isinstance(schema, list):
            pending.extend(cast("list[Any]", schema))
        elif isinstance(schema, dict):
            named = cast("dict[str, Any]", schema)
            if "$ref" in named:
                pending.append(document["components"]["schemas"][named["$ref"].rsplit("/", 1)[1]])
            elif named.get("additionalProperties") is not False:  # else it has been here before
                if "properties" in named:
                    named["additionalProperties"] = False
                pending.extend(named.values())


def _say_that_parameters_are_never_null(operation: Mapping[str, Any]) -> None:
    """An optional parameter is left out; there is no way to write null in an address or a header."""
    for parameter in operation.get("parameters", ()):
        branches = parameter["schema"].pop("oneOf", [])
        values = [branch for branch in branches if branch != {"type": "null"}]
        match values:
            case []:
                pass
            case [only]:
                parameter["schema"].update(only)
            case _:
                parameter["schema"]["oneOf"] = values


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
