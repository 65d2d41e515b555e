"""The OpenAPI document: the one that Litestar generates, corrected where it is incomplete, and with examples."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
from litestar import Litestar
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.routes import HTTPRoute
from litestar.types import ControllerRouterHandler

from wvs import __version__
from wvs.domain.errors import ErrorCode
from wvs.http.openapi.examples import Examples
from wvs.http.problems.problem import MEDIA_TYPE, RETRY_AFTER_S
from wvs.http.requests.query import QueryParameters, QueryParametersOf
from wvs.http.requests.strict_json import body_type
from wvs.http.wire.context import ACTOR_PATTERN

SCHEMA_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"


def _header(description: str, example: str, **schema: Any) -> dict[str, Any]:
    shape = {"type": "string", **schema}
    return {"description": description, "required": True, "schema": shape, "example": example}


_HEADERS: Final = {
    "RequestId": _header(
        "The id of this request: the one that the client sent, or a new one. Logs, events and problems carry it.",
        "0f8b6f7b2c1d4e5fa0b1c2d3e4f50617",
    ),
    "Traceparent": _header(
        "The span of this request (W3C Trace Context).",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$",
    ),
    "RetryAfter": _header("Seconds to wait before repeating the request.", "2", pattern="^[1-9][0-9]*$"),
}
_REQUEST_HEADERS: Final = {
    "Actor": {
        "name": "X-Actor",
        "in": "header",
        "description": "The name of the caller. Every event records it; the service does not verify it.",
        "schema": {"type": "string", "pattern": ACTOR_PATTERN, "default": "anonymous"},
        "example": "ci/build-17",
    },
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "1 to 128 characters of A-Z a-z 0-9 . _ : @ / + = -; a new id replaces any other value.",
        "schema": {"type": "string"},
        "example": "0f8b6f7b2c1d4e5fa0b1c2d3e4f50617",
    },
}


def describe(
    route_handlers: Sequence[ControllerRouterHandler],
    dependencies: Mapping[str, Provide],
    examples: Mapping[str, Examples],
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes, as plain JSON values. `examples` are by operation id.

    Needs no database and starts no background work.
    """
    config = OpenAPIConfig(
        title="WVS, the Workspace Versioning Service",
        version=__version__,
        description="Provably consistent snapshots of agents' working directories. Failures are RFC 9457 problems; "
        "`/problems/{code}` explains each code.",
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin()],
    )
    # This separate app is never served: Litestar's schema router would answer unknown paths below /schema with an HTML
    # page, but this API answers every failure with a problem.
    app = Litestar(
        route_handlers=list(route_handlers),
        dependencies=dependencies,
        openapi_config=config,
        logging_config=None,
    )
    document = msgspec.json.decode(msgspec.json.encode(app.openapi_schema.to_schema()))
    document["components"]["headers"] = _HEADERS
    document["components"]["parameters"] = _REQUEST_HEADERS
    _mark_secrets(document["components"]["schemas"])
    handlers = dict(_handlers(app))
    for operation in _operations(document):
        _correct_request_body(operation, handlers[operation["operationId"]], document["components"]["schemas"])
        _remove_null_from_parameters(operation)
        _add_headers(operation)
        _add_examples(operation, examples.get(operation["operationId"]))
    return document


def query_parameters_of(document: Mapping[str, Any]) -> QueryParametersOf:
    """The declared query parameters of every operation."""
    paths: Mapping[str, Mapping[str, Mapping[str, Any]]] = document["paths"]
    return {
        (method.upper(), path): _query_parameters(operation)
        for path, item in paths.items()
        for method, operation in item.items()
    }


def _query_parameters(operation: Mapping[str, Any]) -> QueryParameters:
    types: dict[str, str | None] = {
        parameter["name"]: parameter["schema"].get("type")
        for parameter in operation.get("parameters", ())
        if parameter.get("in") == "query"
    }
    return QueryParameters(
        names=frozenset(types),
        lists=frozenset(name for name, kind in types.items() if kind == "array"),
        texts=frozenset(name for name, kind in types.items() if kind == "string"),
    )


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in document["paths"].values():
        yield from item.values()


def _handlers(app: Litestar) -> Iterator[tuple[str, HTTPRouteHandler]]:
    for route in app.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            yield str(handler.operation_id), handler


def _correct_request_body(operation: dict[str, Any], handler: HTTPRouteHandler, schemas: dict[str, Any]) -> None:
    """Takes the schema of the body from msgspec, which decodes it.

    Litestar's schema lacks the limits of keys and values, `additionalProperties: false`, and the tags of unions.
    """
    field = handler.parsed_data_field
    if field is None or "requestBody" not in operation:
        return
    [shape], named = msgspec.json.schema_components([body_type(field)], ref_template=SCHEMA_REF)
    for schema in named.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    schemas.update(named)
    if "discriminator" in shape:
        shape["oneOf"] = shape.pop("anyOf")  # exactly one: the tags of a union of msgspec are distinct
    operation["requestBody"] = {"required": not field.has_default, "content": {_JSON: {"schema": shape}}}


def _mark_secrets(schemas: Mapping[str, Any]) -> None:
    """Marks the secrets in answers as such; Litestar takes no format from a field."""
    for schema in schemas.values():
        if "secret" in (properties := schema.get("properties", {})):
            properties["secret"]["format"] = "password"


def _remove_null_from_parameters(operation: Mapping[str, Any]) -> None:
    """Removes null from the schemas of optional parameters: a path, a query or a header cannot contain a JSON null."""
    for parameter in operation.get("parameters", ()):
        branches = parameter["schema"].pop("oneOf", [])
        values = [branch for branch in branches if branch != {"type": "null"}]
        match values:
            case []:
                pass
            case [only]:
                parameter["schema"] = {**only, **parameter["schema"]}
            case _:
                parameter["schema"]["oneOf"] = values


def _add_headers(operation: dict[str, Any]) -> None:
    """Adds the headers that the boundary and the problems add to every operation."""
    parameters: list[dict[str, Any]] = operation.setdefault("parameters", [])
    answers: dict[str, dict[str, Any]] = operation["responses"]
    for parameter in parameters:
        # The handler's dependency checks this header, so that a missing key has a problem of its own.
        if parameter["name"] == "Idempotency-Key":
            parameter["required"] = ErrorCode.IDEMPOTENCY_KEY_REQUIRED in _problems(answers.get("400", {}))
        if parameter["name"] == "X-Session-Secret":
            parameter["required"] = ErrorCode.SESSION_SECRET_INVALID in _problems(answers.get("403", {}))
    parameters.extend({"$ref": f"#/components/parameters/{name}"} for name in _REQUEST_HEADERS)
    accepted = dict(answers.get("202", {}).get("headers", {}))
    for status, answer in answers.items():
        headers: dict[str, Any] = answer.setdefault("headers", {})
        if status == "200":
            headers |= {name: header for name, header in accepted.items() if not header["required"]}
        headers["X-Request-Id"] = {"$ref": "#/components/headers/RequestId"}
        headers["traceparent"] = {"$ref": "#/components/headers/Traceparent"}
        repeatable = [code in RETRY_AFTER_S for code in _problems(answer)]
        if all(repeatable) and repeatable:
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        elif any(repeatable):
            headers["Retry-After"] = {**_HEADERS["RetryAfter"], "required": False}


def _problems(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    content: Mapping[str, Any] = answer.get("content", {})
    return content.get(MEDIA_TYPE, {}).get("examples", {})


def _add_examples(operation: dict[str, Any], examples: Examples | None) -> None:
    for answer in operation["responses"].values():
        for example in _problems(answer).values():
            example.pop("id", None)  # Litestar adds it, but an Example Object has no such field
    if examples is None:
        return
    for status, answers in examples.answers.items():
        _set_examples(operation["responses"][str(status)], answers)
    if examples.bodies:
        _set_examples(operation["requestBody"], examples.bodies)
    for parameter in operation["parameters"]:
        if parameter.get("name") in examples.parameters:
            parameter["example"] = examples.parameters[parameter["name"]]


def _set_examples(message: dict[str, Any], bodies: Mapping[str, Any]) -> None:
    content = cast("dict[str, Any]", next(iter(message["content"].values())))
    content["examples"] = {
        name.replace(" ", "-"): {"summary": name, "value": _as_json(body)} for name, body in bodies.items()
    }


def _as_json(body: object) -> Any:
    """The body as a client would decode it: with lists, where a Struct has tuples."""
    return msgspec.json.decode(msgspec.json.encode(body))
