"""The OpenAPI document of the API, the problems in it, and the pages that show it without the internet."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from litestar import Litestar, MediaType, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Example
from litestar.params import FromPath
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

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
}
# validatorUrl null: Swagger UI would otherwise load a badge from its maker's site.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>WVS API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/schema/assets/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/schema/assets/swagger-ui-bundle.js"></script>
<script src="/schema/assets/swagger-ui-standalone-preset.js"></script>
<script>
SwaggerUIBundle({
  url: "/schema/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
});
</script>
</body>
</html>
"""


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
    return msgspec.json.decode(msgspec.json.encode(app.openapi_schema.to_schema()))


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


def schema_router(document: Callable[[], dict[str, Any]]) -> Router:
    """`/schema/openapi.json`, the page that shows it, and that page's files; `document` is called on first use."""

    @get("/openapi.json", sync_to_thread=False)
    def openapi_json() -> Response[bytes]:
        return Response(msgspec.json.encode(document()), media_type="application/vnd.oai.openapi+json")

    @get("/", media_type=MediaType.HTML, sync_to_thread=False)
    def page() -> str:
        return _PAGE

    @get("/assets/{name:str}", sync_to_thread=False)
    def asset(name: FromPath[str]) -> Response[bytes]:
        if name not in _ASSETS:
            raise NotFoundException
        return Response(_asset(name), media_type=_ASSETS[name], headers={"cache-control": "max-age=86400"})

    return Router("/schema", route_handlers=[openapi_json, page, asset], include_in_schema=False)


@cache
def _asset(name: str) -> bytes:
    return (files("litestar_offline_docs") / "static" / name).read_bytes()


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
