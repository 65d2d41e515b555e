"""Blocking calls that may never return: they block neither the event loop nor the end of the program."""

import _thread
import asyncio
import os
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

_Inbox: TypeAlias = "SimpleQueue[Callable[[], None]]"

_idle: Final[list[_Inbox]] = []
"""Threads that wait for work: most calls cost less than starting a thread. A thread that hangs is not in the list."""

_MOST_IDLE: Final = 4

os.register_at_fork(after_in_child=_idle.clear)  # a child process does not inherit the threads


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Runs `work` in a daemon thread; returns or raises what it does. On cancellation the thread is left behind.

    A program waits for asyncio's own threads before it ends, so that a filesystem call that hangs would block it for
    ever.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # pyright: ignore[reportArgumentType] - there is no error, so it is a T
        else:
            done.set_exception(error)

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            failed = error
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            pass  # the loop is closed: no caller waits

    _take_inbox().put(run)
    return await done


def _take_inbox() -> _Inbox:
    try:
        return _idle.pop()
    except IndexError:
        inbox: _Inbox = SimpleQueue()
        _thread.start_new_thread(_serve, (inbox,))  # threading.Thread would block the loop until it has started
        return inbox


def _serve(inbox: _Inbox) -> None:
    while True:
        inbox.get()()
        if len(_idle) >= _MOST_IDLE:
            return
        _idle.append(inbox)
