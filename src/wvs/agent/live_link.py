"""The link `current` of a workspace, which points to its live tree."""

import asyncio
import os
from typing import Final

from wvs.agent.threads import in_daemon_thread
from wvs.engines.paths import current_beside, is_tree_beside

_TIMEOUT_S: Final = 2.0


async def linked_tree(tree: str) -> str | None:
    """The real path of the live tree to which the link points now; None if it cannot be read within 2 s.

    None also if the link was replaced by something else, such as a directory: no live tree took the place of this one.

    The thread that reads it is left behind if the volume hangs.
    """
    link = current_beside(tree)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            target = await in_daemon_thread(lambda: os.path.realpath(link, strict=True))
    except (OSError, TimeoutError):
        return None
    return target if is_tree_beside(target, tree) else None
