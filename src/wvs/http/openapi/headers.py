"""Headers of the answers to writes, for the OpenAPI document."""

from typing import Final

from litestar.datastructures import ResponseHeader


def _header(name: str, description: str, *, always: bool = False) -> ResponseHeader:
    return ResponseHeader(name=name, documentation_only=True, value="", description=description, required=always)


REPLAYED_HEADER: Final = _header(
    "Idempotent-Replayed", "`true` if this is the answer of an earlier request with the same key."
)
WAITED_HEADER: Final = _header("Preference-Applied", "The wait that the service honoured, such as `wait=10`.")
ACCEPTED_HEADERS: Final = [
    _header("Location", "The path of the task: `/v1/tasks/{task}`.", always=True),
    _header("Retry-After", "Seconds to wait before looking at the task.", always=True),
    REPLAYED_HEADER,
    WAITED_HEADER,
]
ETAG_HEADER: Final = _header("ETag", 'The epoch in double quotes, such as `"7"`: a value for If-Match.', always=True)
