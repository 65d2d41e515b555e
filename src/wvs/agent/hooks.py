"""What a session asks of its agent."""

import os
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from wvs.agent.protocol import Tree


async def nothing(*_: object) -> None:
    """A hook that was not given."""


def _own_process() -> list[int]:
    return [os.getpid()]


class Hooks(Struct, frozen=True, kw_only=True):
    """What the session asks of the agent; see `register`.

    `on_hold` is told before a standstill, and whenever that changes, until when (time.monotonic) it may last at most.
    """

    on_freeze: Callable[[], Awaitable[object]]
    on_thaw: Callable[[], Awaitable[object]]
    on_switch: Callable[[Tree], Awaitable[object]]
    on_end: Callable[[str], Awaitable[object]] = nothing
    on_hold: Callable[[float], None] = lambda _deadline: None
    still_frozen: Callable[[], bool] = lambda: True
    writers: Callable[[], Iterable[int]] = _own_process
    caveat: str = ""
