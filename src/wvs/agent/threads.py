"""Blocking calls that may never return, kept off the event loop and off the end of the program."""

import _thread
import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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

    _thread.start_new_thread(run, ())  # threading.Thread would hold up the loop until the thread has begun
    return await done
