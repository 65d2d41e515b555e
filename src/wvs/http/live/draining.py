"""Waits that end when the service drains, even if the client asked for a longer wait."""

import asyncio
from collections.abc import Awaitable

from wvs.background import stop


async def finished_in_time(wait: Awaitable[object], draining: asyncio.Event, timeout_s: float) -> bool:
    """True when `wait` is done. False, with `wait` cancelled, if `timeout_s` passes or the service drains first.

    Raises what `wait` raises.
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
