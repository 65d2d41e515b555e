"""Parses the request headers Idempotency-Key, Prefer and If-Match."""

import re
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode, Refused
from wvs.http.problems.problem import FieldError, refuse_fields

# For the OpenAPI document only: `parse_idempotency_key` validates the header.
KEY_PATTERN: Final = r'^([!#-~][!-~]{0,254}|"([!#-\[\]-~]|\\["\\]){1,255}")$'

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
# A structured-field string: it escapes only the quote and the backslash (RFC 9651 §3.3.3).
_QUOTED: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPE: Final = re.compile(r'\\(["\\])')

_PREFERENCE: Final = re.compile(
    r'[ \t]*(?P<name>[!#$%&\'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:=[ \t]*(?P<value>"(?:[^"\\]|\\.)*"|[^ \t,;"]*))?'
    r"(?:[ \t]*;[^,]*)?[ \t]*"
)
_SECONDS: Final = re.compile(r'"?([0-9]{1,9})"?')

_ENTITY_TAG: Final = re.compile(r'[ \t]*(?P<weak>W/)?(?P<tag>"[\x21\x23-\x7e\x80-\xff]*")[ \t]*')
_ONLY_WEAK: Final = (
    "{} has weak tags only, and a weak tag never matches (RFC 9110 §13.1.1). This API sends strong tags; a proxy that "
    'compresses answers makes them weak. Send the tag without W/, such as "7", or turn compression off in that proxy'
)


def parse_idempotency_key(header: str | None) -> str:
    """The key in the header `Idempotency-Key`, bare or as a quoted string.

    Refuses `IDEMPOTENCY_KEY_REQUIRED` if the header is missing, and `INVALID_REQUEST` unless the key consists of 1 to
    255 visible ASCII characters.
    """
    if header is None:
        raise Refused(ErrorCode.IDEMPOTENCY_KEY_REQUIRED, "this operation needs the header Idempotency-Key")
    key = header.strip(" \t")
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        key = _ESCAPE.sub(r"\1", quoted[1]) if quoted else ""
    if not _KEY.fullmatch(key):
        raise refuse_fields(
            FieldError(
                "header", "Idempotency-Key", "must be 1 to 255 visible ASCII characters, bare or in double quotes"
            )
        )
    return key


def parse_wait(prefer: str | None, longest_s: int) -> int | None:
    """The seconds of `Prefer: wait=N`, at most `longest_s`. None if the preference is absent or malformed.

    Ignores preferences that it does not understand, and all but the first preference of a name (RFC 7240 §2).
    """
    position = 0
    while prefer is not None and position <= len(prefer):
        preference = _PREFERENCE.match(prefer, position)
        if preference is None or prefer[preference.end() : preference.end() + 1] not in ("", ","):
            return None
        if preference["name"].lower() == "wait":
            seconds = _SECONDS.fullmatch(preference["value"] or "")
            return None if seconds is None else min(int(seconds[1]), longest_s)
        position = preference.end() + 1
    return None


def preference_applied(wait_s: int) -> str:
    """The value of `Preference-Applied` for a wait of `wait_s` seconds, which `parse_wait` has capped."""
    return f"wait={wait_s}"


class IfMatch(msgspec.Struct, frozen=True):
    """The condition of an `If-Match` header: any existing resource (`*`), or one of these strong tags, with quotes."""

    any_tag: bool
    tags: frozenset[str]


def parse_if_match(header: str | None) -> IfMatch | None:
    """The condition of the header `If-Match`; None without the header.

    Weak tags never match, because If-Match compares strongly (RFC 9110 §13.1.1): they are left out. Refuses
    `INVALID_REQUEST` if only weak tags are there, because the reason is no change of the resource, and if the header is
    malformed: ignoring the condition would do what the caller wanted to prevent.
    """
    if header is None:
        return None
    if header.strip(" \t") == "*":
        return IfMatch(any_tag=True, tags=frozenset())
    tags: set[str] = set()
    position = 0
    while position <= len(header):
        entity_tag = _ENTITY_TAG.match(header, position)
        if entity_tag is None or header[entity_tag.end() : entity_tag.end() + 1] not in ("", ","):
            raise refuse_fields(FieldError("header", "If-Match", 'must be * or a list of entity tags such as "7"'))
        if not entity_tag["weak"]:
            tags.add(entity_tag["tag"])
        position = entity_tag.end() + 1
    if not tags:
        raise refuse_fields(FieldError("header", "If-Match", _ONLY_WEAK.format(header.strip()[:80])))
    return IfMatch(any_tag=False, tags=frozenset(tags))
