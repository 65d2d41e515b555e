"""Blocking calls that may never return, kept off the event loop and off the end of the program."""

import _thread
import asyncio
import os
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

_Inbox: TypeAlias = "SimpleQueue[Callable[[], None]]"

_idle: Final[list[_Inbox]] = []
"""Threads that wait for work; starting one costs more than all that most calls do. One that hangs is not among them."""

_MOST_IDLE: Final = 4

os.register_at_fork(after_in_child=_idle.clear)  # the threads stay with the parent


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises. When it is cancelled, the thread is left behind.

    asyncio's own threads are waited for when a program ends; a filesystem call that hangs would hold it up for good.
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
        except BaseException as error:  # noqa: BLE001 - carried over to whoever waits
            failed = error
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    _inbox().put(run)
    return await done


def _inbox() -> _Inbox:
    try:
        return _idle.pop()
    except IndexError:
        inbox: _Inbox = SimpleQueue()
        _thread.start_new_thread(_serve, (inbox,))  # threading.Thread would hold up the loop until it has begun
        return inbox


def _serve(inbox: _Inbox) -> None:
    while True:
        inbox.get()()
        if len(_idle) >= _MOST_IDLE:
            return
        _idle.append(inbox)
