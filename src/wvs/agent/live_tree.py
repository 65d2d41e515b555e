"""Which tree is at the path of the live tree, by the file beside its root."""

import asyncio
from pathlib import Path
from typing import Final

from wvs.agent.threads import in_daemon_thread
from wvs.engines.paths import name_beside

_TIMEOUT_S: Final = 2.0
_LONGEST_NAME: Final = 100


async def tree_at(path: str) -> str | None:
    """The name of the tree at `path` now; None if it cannot be read within 2 s.

    None also if something else was put in its place: no live tree took the place of this one. The thread that reads it
    is left behind if the volume hangs.
    """
    file = Path(name_beside(path))

    def read() -> str:
        # A link with that text where the filesystem was full when the tree was made.
        return str(file.readlink()) if file.is_symlink() else file.read_text(encoding="ascii", errors="replace")

    try:
        async with asyncio.timeout(_TIMEOUT_S):
            name = await in_daemon_thread(read)
    except (OSError, TimeoutError):
        return None
    return name.strip()[:_LONGEST_NAME] or None
