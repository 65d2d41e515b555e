"""What the API answers while it starts and its database is away."""

import asyncio
import socket
from functools import partial
from typing import Final

from wvs.background import background
from wvs.http.server import serve
from wvs.http.wiring import starting_api
from wvs.postgres.access import check_access, when_reachable
from wvs.settings import Settings

_AT_ONCE_S: Final = 1.0
_GRACE_S: Final = 2


async def database_reached(settings: Settings, url: str, listener: socket.socket) -> bool:
    """Returns True when the database at `url` can serve the API, False if a signal ended the wait.

    A wait that lasts is served on `listener`, which stays open: `/livez` answers 200, `/readyz` and all that needs the
    database 503 with the reason. Raises what `check_access` raises, after `WVS_DATABASE_WAIT_S` if it is only away.
    """
    reasons = ["the database does not answer"]
    reach = when_reachable(
        partial(check_access, url, for_writes=False),
        settings.database_wait_s,
        lambda reason: reasons.__setitem__(0, reason),
    )
    async with background(reach) as (reaching,):
        await asyncio.wait({reaching}, timeout=_AT_ONCE_S)
        if not reaching.done():
            draining = asyncio.Event()
            reaching.add_done_callback(lambda _task: draining.set())
            api = starting_api(settings, lambda: reasons[0], draining)
            await serve(api, listener.dup(), on_listening=lambda _url: None, grace_s=_GRACE_S)
        if not reaching.done():
            return False
        await reaching
        return True
