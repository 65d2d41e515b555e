"""The pages under /schema: the OpenAPI document and Swagger UI, a viewer for it that needs nothing from the internet.

Swagger UI's files lie in `swagger_ui/`, byte for byte as npm's package swagger-ui-dist has them; `make swagger-ui`
fetches them.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from litestar import MediaType, Response, Router, get
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from wvs.http.wire.context import RequestContext

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
# validatorUrl null: Swagger UI would otherwise load a badge from its maker's site.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>WVS API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{prefix}/schema/assets/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="{prefix}/schema/assets/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({
  url: "{prefix}/schema/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
</script>
</body>
</html>
"""


def schema_router(document: Callable[[], dict[str, Any]]) -> Router:
    """`/schema/openapi.json`, the page that shows it, and that page's files; `document` is called on first use."""

    @get("/openapi.json", sync_to_thread=False)
    def openapi_json(context: NamedDependency[RequestContext]) -> Response[bytes]:
        shown = {**document(), "servers": [{"url": context.prefix}]} if context.prefix else document()
        return Response(msgspec.json.encode(shown), media_type="application/vnd.oai.openapi+json")

    @get("/", media_type=MediaType.HTML, sync_to_thread=False)
    def page(context: NamedDependency[RequestContext]) -> str:
        return _PAGE.replace("{prefix}", context.prefix)

    @get("/assets/{name:str}", sync_to_thread=False)
    def asset(name: FromPath[str]) -> Response[bytes]:
        if name not in _ASSETS:
            raise NotFoundException
        return Response(_asset(name), media_type=_ASSETS[name], headers={"cache-control": "max-age=86400"})

    return Router("/schema", route_handlers=[openapi_json, page, asset], include_in_schema=False)


@cache
def _asset(name: str) -> bytes:
    return (files("wvs.http") / "swagger_ui" / name).read_bytes()
