"""What a routed request must satisfy before its handler: the media type of writes, and only known query parameters."""

import re
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from litestar import Request, Response

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.problems import FieldError, refuse_fields

QueryNames = Mapping[tuple[str, str], AbstractSet[str]]

_JSON: Final = re.compile(r'application/json[ \t]*(?:;[ \t]*charset[ \t]*=[ \t]*"?utf-?8"?[ \t]*)?;?', re.IGNORECASE)


def admission(
    query_names: Callable[[], QueryNames],
) -> Callable[[Request[Any, Any, Any]], Awaitable[Response[None] | None]]:
    """The hook for Litestar's `before_request`; it runs after routing, so that 404 and 405 come first.

    `query_names` gives the declared parameters by (method, path template); paths that are not in it take any.
    """

    async def admit(request: Request[Any, Any, Any]) -> Response[None] | None:
        if request.method == "OPTIONS":
            return _answer_options(request)
        if request.method in {"POST", "PUT", "PATCH"} or (request.method == "DELETE" and await request.body()):
            require_json(request.headers.get("content-type"))
        if request.scope["query_string"]:
            _refuse_unknown(request, query_names().get((request.method, request.scope["path_template"])))
        return None

    return admit


def require_json(content_type: str | None) -> None:
    """Refuses `UNSUPPORTED_MEDIA_TYPE` unless it is JSON in UTF-8.

    Asked of writes without a body too: a form of any web page could send those to a service on localhost, but never
    with this media type without the browser asking first.
    """
    if content_type is None or not _JSON.fullmatch(content_type.strip()):
        sent = "no Content-Type" if content_type is None else f"Content-Type {content_type[:80]!r}"
        raise Refused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"a write needs Content-Type application/json, not {sent}")


def _refuse_unknown(request: Request[Any, Any, Any], known: AbstractSet[str] | None) -> None:
    if known is None:
        return
    unknown = sorted(name for name in request.query_params if name not in known)
    if unknown:
        raise refuse_fields(*(FieldError("query", name[:80], "unknown parameter") for name in unknown[:20]))


def _answer_options(request: Request[Any, Any, Any]) -> Response[None]:
    # Litestar's own answer names only the methods of the handler that was registered last for a path.
    path = request.scope["path_template"]
    methods = {method for route in request.app.routes if route.path_format == path for method in route.methods}
    if "GET" in methods:
        methods.add("HEAD")
    return Response(None, status_code=204, headers={"allow": ", ".join(sorted(methods))})
