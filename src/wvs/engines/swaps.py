"""Active swap files: the kernel lets nobody remove or clone one, nor snapshot a btrfs subvolume that holds one."""

import os
import re
from typing import Final

from wvs.engines.mounts import plain_path

_SEPARATOR: Final = re.compile("[ \t]+")


def swap_files() -> list[str]:
    """The paths of the active swap files, as this process's mounts show them."""
    with open("/proc/swaps", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        next(lines, None)
        rows = [_SEPARATOR.split(line) for line in lines]
    return [plain_path(row[0]) for row in rows if row[1] == "file"]


def swap_file_in(directory: str) -> str | None:
    """The relative path of an active swap file below `directory`, if there is one that this process can see."""
    above = os.path.realpath(directory) + "/"
    return next((path.removeprefix(above) for path in swap_files() if path.startswith(above)), None)


def is_swap_file(directory: int, name: str) -> bool:
    """Whether the entry is an active swap file."""
    try:
        entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return any(_same(path, entry) for path in swap_files())


def _same(path: str, entry: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), entry)
    except OSError:
        return False
