"""Headers of the answers to writes, for the OpenAPI document."""

from typing import Final

from litestar.datastructures import ResponseHeader


def _header(name: str, description: str, *, always: bool = False) -> ResponseHeader:
    return ResponseHeader(name=name, documentation_only=True, value="", description=description, required=always)


REPLAYED_HEADER: Final = _header("Idempotent-Replayed", "`true` where an earlier answer to this key is given again.")
WAITED_HEADER: Final = _header("Preference-Applied", "The wait that was honoured, such as `wait=10`.")
ACCEPTED_HEADERS: Final = [
    _header("Location", "Where the task is found: `/v1/tasks/{task}`.", always=True),
    _header("Retry-After", "Seconds after which to look at the task.", always=True),
    REPLAYED_HEADER,
    WAITED_HEADER,
]
ETAG_HEADER: Final = _header("ETag", 'The epoch in double quotes, such as `"7"`: what If-Match takes.', always=True)
