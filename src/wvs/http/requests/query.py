"""Checks a routed request before its handler: the media type of writes, and that all query parameters are declared."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from litestar import Request, Response
from litestar.datastructures import Headers
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

_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
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
        if request.method in _WRITES:
            # Browsers send other methods to another origin only after a preflight, whatever the media type.
            sent_by = _foreign_page(request.headers) if request.method == "POST" else None
            content_type = request.headers.get("content-type")
            require_json(content_type, has_body=bool(await request.body()), sent_by=sent_by)
        if request.scope["query_string"]:
            _check_query(request, declared().get((request.method, request.scope["path_template"])))
        return None

    return admit


def require_json(content_type: str | None, *, has_body: bool, sent_by: str | None) -> None:
    """Refuses `UNSUPPORTED_MEDIA_TYPE` unless the body is JSON in UTF-8, or there is neither a body nor a media type.

    Any web page can make a browser send a write to a service on localhost, with the media type of a form or without a
    body. A browser sends JSON to another origin only after that origin has allowed it (a CORS preflight). Therefore a
    write without a media type is refused if the page `sent_by`, an origin other than this service, sent it.
    """
    if content_type is not None:
        if not _JSON.fullmatch(content_type.strip()):
            raise _not_json(f"the request has Content-Type {content_type[:80]!r}")
    elif has_body:
        raise _not_json("the request has no Content-Type")
    elif sent_by is not None:
        raise _not_json(f"the request has no Content-Type, and the web page {sent_by[:80]!r} sent it")


def _not_json(but: str) -> Refused:
    return Refused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"a write needs Content-Type application/json, but {but}")


def _foreign_page(headers: Headers) -> str | None:
    """The origin of the web page that sent a POST; None if it is this service's own page, or if no page sent it.

    Browsers send `Origin` with every POST (https://fetch.spec.whatwg.org/#origin-header), other programs do not.
    """
    origin = headers.get("origin")
    if origin is None or origin.lower().partition("://")[2] == headers.get("host", "").lower():
        return None
    return origin


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
