"""The bounds of one request and of the connection it comes over."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Times in seconds. Headers count from the accept or from the end of the answer before, the body from its headers.

    After a refusal at most `discard_*` of what is still being sent is read and dropped. `request_bytes` is more than
    the boundary ever reads of one request, framing included: beyond it somebody feeds the parser with what never
    reaches the boundary, such as endless trailers.
    """

    header_bytes: int = 32 * 1024
    header_deadline_s: float = 10.0
    body_bytes: int = 64 * 1024
    body_deadline_s: float = 10.0
    discard_bytes: int = 8 * 1024 * 1024
    discard_deadline_s: float = 1.0
    request_bytes: int = 32 * 1024 * 1024
    keep_alive_s: int = 5
