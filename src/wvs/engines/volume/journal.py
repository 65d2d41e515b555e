"""A clone journal in a file: one JSON line for each begin and end, appended whole, by any number of processes."""

import os
from pathlib import Path

import msgspec

from wvs.engines.base import CloneMark, Journal


def journal_file(path: Path) -> Journal:
    """A journal that appends to `path`. A line is one `write` with O_APPEND, so lines of processes do not mix."""

    def append(mark: CloneMark) -> None:
        line = msgspec.json.encode(mark) + b"\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    return append
