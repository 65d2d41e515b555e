"""Waits that end when the service drains: an answer is due then, however long the caller was willing to wait."""

import asyncio
from collections.abc import Awaitable

from wvs.background import stop


async def finished_in_time(wait: Awaitable[object], draining: asyncio.Event, timeout_s: float) -> bool:
    """True once `wait` is done; False if `timeout_s` went by or the service drains first, and `wait` is cancelled then.

    Whatever `wait` raises is raised here.
    """
    waiting = asyncio.ensure_future(wait)
    drained = asyncio.ensure_future(draining.wait())
    try:
        await asyncio.wait({waiting, drained}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return False
        waiting.result()
        return True
    finally:
        await stop(waiting, drained)
