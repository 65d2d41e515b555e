"""Forwarding the wrapper's signals to its command, Ctrl-Z included."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator
from typing import Final

FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@contextlib.contextmanager
def forwarding_signals(forward: Callable[[int], None], child_changed: Callable[[], None]) -> Generator[None]:
    """Within the block, calls `forward` for each signal that a person or a supervisor sends.

    `child_changed` is called when the command ends, stops or continues. Signals that are ignored stay ignored, as under
    nohup(1).
    """
    loop = asyncio.get_running_loop()

    def on_child(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(child_changed)

    forwarded = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    for number in forwarded:
        loop.add_signal_handler(number, forward, number)
    # Not through the loop: uvloop reserves this signal for the processes that it starts.
    previous = signal.signal(signal.SIGCHLD, on_child)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, previous)
        for number in forwarded:
            loop.remove_signal_handler(number)
