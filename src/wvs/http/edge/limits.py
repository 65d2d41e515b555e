"""The limits of one request and of its connection."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Times are in seconds. The header deadline starts when the connection is accepted, or with the first byte of a
    further request; the body deadline starts at the end of the headers.

    After a refusal the service reads and drops at most `discard_bytes`, for at most `discard_deadline_s`.
    `request_bytes` is more than the boundary ever reads of one request, framing included. A client that exceeds it
    feeds the parser with data that never reaches the boundary, such as endless trailers.
    """

    header_bytes: int = 32 * 1024
    header_deadline_s: float = 10.0
    body_bytes: int = 64 * 1024
    body_deadline_s: float = 10.0
    discard_bytes: int = 8 * 1024 * 1024
    discard_deadline_s: float = 1.0
    request_bytes: int = 32 * 1024 * 1024
    keep_alive_s: int = 75
