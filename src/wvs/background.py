"""Work beside a block: started before it, cancelled and awaited after it, whatever way the block ends."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def background(*work: Coroutine[Any, Any, object]) -> AsyncGenerator[list[asyncio.Task[Any]]]:
    """Runs each coroutine in a task of its own while the block lasts; yields the tasks in the order given.

    The end of the block cancels them and waits until they have ended. What they raise is dropped there: a block that
    needs the outcome of a task awaits that task itself. A task that ends early ends nothing else.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield tasks
    finally:
        await stop(*tasks)


async def stop(*tasks: asyncio.Future[Any]) -> None:
    """Cancels the tasks and waits until they have ended; what they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
