"""Checks a routed request before its handler: the media type of writes, and that all query parameters are declared."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from litestar import Request, Response
from msgspec import Struct

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.problems.problem import FieldError, refuse_fields


class QueryParameters(Struct, frozen=True):
    """The declared query parameters of one operation: all, those that may be repeated, and those of type string."""

    names: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()


QueryParametersOf = Mapping[tuple[str, str], QueryParameters]
"""By (method, path template)."""

_JSON: Final = re.compile(r'application/json[ \t]*(?:;[ \t]*charset[ \t]*=[ \t]*"?utf-?8"?[ \t]*)?;?', re.IGNORECASE)


def admission(
    declared: Callable[[], QueryParametersOf],
) -> Callable[[Request[Any, Any, Any]], Awaitable[Response[None] | None]]:
    """The hook for Litestar's `before_request`. It runs after routing, so that 404 and 405 take precedence.

    Paths that are not in `declared` accept any parameter.
    """

    async def admit(request: Request[Any, Any, Any]) -> Response[None] | None:
        if request.method == "OPTIONS":
            return _answer_options(request)
        if request.method in {"POST", "PUT", "PATCH"} or (request.method == "DELETE" and await request.body()):
            require_json(request.headers.get("content-type"))
        if request.scope["query_string"]:
            _check_query(request, declared().get((request.method, request.scope["path_template"])))
        return None

    return admit


def require_json(content_type: str | None) -> None:
    """Refuses `UNSUPPORTED_MEDIA_TYPE` unless the media type is JSON in UTF-8.

    Applies to writes without a body too. A form on any web page could send such a write to a service on localhost, but
    a browser sends this media type to another origin only after that origin has allowed it (a CORS preflight).
    """
    if content_type is None or not _JSON.fullmatch(content_type.strip()):
        sent = "no Content-Type" if content_type is None else f"Content-Type {content_type[:80]!r}"
        raise Refused(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"a write needs Content-Type application/json, but the request has {sent}"
        )


def _check_query(request: Request[Any, Any, Any], declared: QueryParameters | None) -> None:
    if declared is None:
        return
    query = request.query_params
    faults = [fault for name in sorted(query) if (fault := _fault_of(name, query.getall(name), declared))]
    if faults:
        raise refuse_fields(*(FieldError("query", name[:80], problem) for name, problem in faults[:20]))


def _fault_of(name: str, values: Sequence[str], declared: QueryParameters) -> tuple[str, str] | None:
    if name not in declared.names:
        return name, "unknown parameter"
    if len(values) > 1 and name not in declared.lists:
        return name, "given more than once"
    # For any type but a string, msgspec decodes the text null as None: the filter would silently not apply.
    if values[0].lower() == "null" and name not in declared.texts | declared.lists:
        return name, "must not be null; omit the parameter instead"
    return None


def _answer_options(request: Request[Any, Any, Any]) -> Response[None]:
    # Litestar's own answer names only the methods of the last handler that was registered for the path.
    path = request.scope["path_template"]
    methods = {method for route in request.app.routes if route.path_format == path for method in route.methods}
    if "GET" in methods:
        methods.add("HEAD")
    return Response(None, status_code=204, headers={"allow": ", ".join(sorted(methods))})
