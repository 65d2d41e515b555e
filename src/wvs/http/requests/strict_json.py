"""Decodes request bodies into the declared type, without coercion, unknown fields or the character U+0000."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from functools import lru_cache, reduce
from types import NoneType
from typing import Any, Final, cast, get_args

import msgspec
from litestar import Litestar, Request
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from wvs.http.problems.patterns import explain_mismatch, values_at
from wvs.http.problems.problem import FieldError, refuse_fields

# msgspec reports the place of a fault only in its message: "Expected `str`, got `int` - at `$.labels[...]`", and for a
# key of an object: "… - at `key` in `$.labels`".
_PLACE: Final = re.compile(r" - at (`key` in )?`\$\.?(.*)`$")
_NAMED_FIELD: Final = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`$")
_ESCAPED_NUL: Final = b"\\u0000"


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded directly into the type of the handler's `data`, without coercion.

    Litestar's own request decodes to dicts first and then converts leniently: it accepts `"1"` for 1 and `"yes"` for
    true.
    """

    async def json(self) -> Any:
        """The body as the type of the handler's `data`. Refuses `INVALID_REQUEST`, which names the field."""
        field = self.route_handler.parsed_data_field
        return decode_strictly(await self.body(), Any if field is None else body_type(field))


def body_type(field: FieldDefinition) -> Any:
    """The type of a body that is there.

    `X | None` in a handler means that the body may be left out, not that it may be the JSON value null: a generated
    client cannot tell the two apart.
    """
    annotation: Any = field.annotation
    if NoneType not in get_args(annotation):
        return annotation
    first, *others = (member for member in get_args(annotation) if member is not NoneType)
    return reduce(lambda union, member: union | member, others, first)


def decode_strictly(body: bytes, wanted: Any) -> Any:
    """`body` as `wanted`. Refuses `INVALID_REQUEST` for anything else.

    Refuses U+0000 in every text, because Postgres cannot store it and would reject it too late.
    """
    try:
        decoded = _decoder(wanted).decode(body)
    except msgspec.ValidationError as error:
        raise refuse_fields(_field_error(str(error), body)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if body.startswith(BOM_UTF8):
            # RFC 8259 §8.1 forbids senders to add it; editors and shells of Windows do.
            problem = "begins with a byte order mark (U+FEFF); send the same JSON without it"
            raise refuse_fields(FieldError("body", "", problem)) from None
        raise refuse_fields(FieldError("body", "", f"not valid JSON in UTF-8: {error}")) from None
    if _ESCAPED_NUL in body and _holds_nul(msgspec.json.decode(body)):
        raise refuse_fields(FieldError("body", "", "a text contains the character U+0000"))
    return decoded


def require_closed_bodies(litestar: Litestar) -> None:
    """Raises `TypeError`, which names the handler, if the type of a body accepts unknown fields."""
    for route in litestar.routes:
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            field = handler.parsed_data_field
            for lenient in _open_structs(field.annotation) if field is not None else ():
                raise TypeError(f"{handler.handler_name}: {lenient.__name__} must forbid unknown fields")


def _open_structs(annotation: Any) -> Iterator[type]:
    seen: set[type] = set()
    pending: list[Any] = [msgspec.inspect.type_info(annotation)]
    while pending:
        info = pending.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            if not info.forbid_unknown_fields:
                yield info.cls
            pending.extend(field.type for field in info.fields)
        elif isinstance(info, msgspec.inspect.UnionType):
            pending.extend(info.types)
        elif isinstance(info, msgspec.inspect.CollectionType):
            pending.append(info.item_type)
        elif isinstance(info, msgspec.inspect.DictType):
            pending.append(info.value_type)


@lru_cache(maxsize=256)
def _decoder(wanted: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted, strict=True)


def _field_error(message: str, body: bytes) -> FieldError:
    place = _PLACE.search(message)
    path = place[2] if place else ""
    problem = message[: place.start()] if place else message
    if place and place[1]:
        keys = (key for value in _values_at(body, path) for key in value)
        problem = f"a key of the object: {explain_mismatch(problem, keys)}"
    elif named := _NAMED_FIELD.match(problem):
        path = f"{path}.{named[1]}" if path else named[1]
        problem = "unknown field" if "unknown" in problem else "required, but missing"
    else:
        problem = explain_mismatch(problem, _values_at(body, path))
    return FieldError("body", path, problem)


def _values_at(body: bytes, path: str) -> Iterator[Any]:
    yield from values_at(msgspec.json.decode(body), path)


def _holds_nul(decoded: Any) -> bool:
    pending = [decoded]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and "\x00" in item:
            return True
        if isinstance(item, dict):
            pending.extend(cast("dict[str, Any]", item).items())
        elif isinstance(item, list | tuple):
            pending.extend(cast("Iterable[Any]", item))
    return False
