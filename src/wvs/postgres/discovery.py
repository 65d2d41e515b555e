"""Finds the embedded server of a running `wvs up` by its data directory, for the operator's other commands."""

import os
from pathlib import Path
from typing import Final

from wvs.postgres.embedded import socket_url

# Lines of postmaster.pid (miscadmin.h): pid, data, start time, port, socket directory, address, memory, status.
_PORT_LINE: Final = 3
_SOCKET_LINE: Final = 4
_STATUS_LINE: Final = 7


def find_running_server(data_dir: Path) -> str | None:
    """The URL of the server that runs in `data_dir`; None if no server runs there or if it is not ready yet."""
    try:
        lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), 0)
        if lines[_STATUS_LINE].strip() != "ready":
            return None
        return socket_url(Path(lines[_SOCKET_LINE].strip()), lines[_PORT_LINE].strip())
    except (OSError, ValueError, IndexError):
        return None  # no such file, a process of another user or one that ended, or a file that is being written
