"""The link `current` of a workspace, which points to its live tree."""

import asyncio
import os
from pathlib import Path
from typing import Final

from wvs.agent.threads import in_daemon_thread

_TIMEOUT_S: Final = 2.0


def link_of(tree: str) -> Path:
    """The link of the workspace to which the live tree `<workspace>/trees/<name>/root` belongs."""
    return Path(tree).parents[2] / "current"


async def linked_tree(tree: str) -> str | None:
    """The real path of the live tree to which the link points now; None if it cannot be read within 2 s.

    The thread that reads it is left behind if the volume hangs.
    """
    link = link_of(tree)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await in_daemon_thread(lambda: os.path.realpath(link, strict=True))
    except (OSError, TimeoutError):
        return None
