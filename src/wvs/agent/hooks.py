"""The callbacks through which a session stops, resumes and moves its agent."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from msgspec import Struct

from wvs.agent.protocol import Tree
from wvs.domain.values import FrozenProcesses


async def do_nothing(*_: object) -> None:
    """The default of a hook."""


def _own_process() -> list[int]:
    return [os.getpid()]


def _own_program() -> FrozenProcesses:
    return FrozenProcesses("program", Path(sys.argv[0]).name[:500] or "?", 1)


class Hooks(Struct, frozen=True, kw_only=True):
    """The callbacks of one session; see `register` for the first four.

    `on_deadline` is called before every freeze, and whenever its deadline changes, with the time (`time.monotonic`) at
    which the freeze ends at the latest. `still_frozen` returns whether the agent has not run since `on_freeze`
    returned. `writers` returns the processes whose open files have to be flushed. `frozen` names what was stopped, and
    `caveat` is added to the certificate.
    """

    on_freeze: Callable[[], Awaitable[object]]
    on_thaw: Callable[[], Awaitable[object]]
    on_switch: Callable[[Tree], Awaitable[object]]
    on_end: Callable[[str], Awaitable[object]] = do_nothing
    on_deadline: Callable[[float], None] = lambda _deadline: None
    still_frozen: Callable[[], bool] = lambda: True
    writers: Callable[[], Iterable[int]] = _own_process
    frozen: Callable[[], FrozenProcesses] = _own_program
    caveat: str = ""
