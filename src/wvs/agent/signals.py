"""The signals of the wrapper: handed on to its command, Ctrl-Z included."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator
from typing import Final

FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def signals_to(forward: Callable[[int], None], child_changed: Callable[[], None]) -> Generator[None]:
    """Calls `forward` for each signal that a person or a supervisor sends, within the block.

    What is ignored already stays ignored, as under nohup(1).
    """
    loop = asyncio.get_running_loop()

    def on_child(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(child_changed)

    wanted = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    for number in wanted:
        loop.add_signal_handler(number, forward, number)
    # Not through the loop: uvloop keeps this signal for the processes that it starts itself.
    before = signal.signal(signal.SIGCHLD, on_child)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
        for number in wanted:
            loop.remove_signal_handler(number)
