"""The clone journal: a file to which any number of processes append one JSON line for each begin and end of a clone."""

import os
from pathlib import Path

import msgspec

from wvs.engines.base import CloneMark, Journal


def journal_file(path: Path) -> Journal:
    """A journal that appends to `path`. A line is one `write` with O_APPEND, so that lines do not mix."""

    def append(mark: CloneMark) -> None:
        line = msgspec.json.encode(mark) + b"\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    return append
