"""fsync of the files that somebody has open for writing, named by the host that looked (design §7, step 3)."""

import errno
import os
from collections.abc import Collection
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import TreeDir
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_beneath
from wvs.engines.paths import ROOT

_WRITING: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# Unlinked or replaced since it was looked up: then no name of the tree leads to the data any more.
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)


def flush_files(tree: TreeDir, paths: Collection[str]) -> None:
    """Fsyncs each file; `paths` are relative to the tree's root. The first failure is an `EngineError`, never retried.

    The descriptor is a writing one: JuiceFS flushes nothing for a reader's fsync.
    """
    for path in paths:
        if {"", ".", ".."} & set(path.split("/")):
            raise EngineError(ErrorCode.CLONE_FAILED, f"{path!a} is no path inside a tree", retryable=False)
        try:
            _flush_file(tree, path)
        except OSError as error:
            raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, f"flushing {path!a}") from error


def _flush_file(tree: TreeDir, path: str) -> None:
    directory = open_beneath(tree.descriptor, ROOT, OPEN_DIRECTORY)
    try:
        *above, name = path.split("/")
        for component in above:
            deeper = open_beneath(directory, component, OPEN_DIRECTORY)
            os.close(directory)
            directory = deeper
        file = open_beneath(directory, name, _WRITING)
    except OSError as error:
        if error.errno in _GONE:
            return
        raise
    finally:
        os.close(directory)
    try:
        os.fsync(file)
    finally:
        os.close(file)
