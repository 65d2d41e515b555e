"""Clones a tree file by file, for `copy` and `reflink`.

The walk lists directories and makes the new ones. Batches of their other entries go to worker processes, or the walk
does them itself. A directory gets its attributes when everything in it is made.
"""

import os
import stat
from collections.abc import Iterator
from functools import partial
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import CloneCall, CloneResult, TreeDir
from wvs.engines.errors import EngineError, UnreadableError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_unseen
from wvs.engines.paths import ROOT
from wvs.engines.trees.descent import Level, TreePath, denied, descend, open_subdirectory, owner_of, unreadable
from wvs.engines.trees.fidelity import copy_attributes, drop_inherited_acls, keep_encryption
from wvs.engines.trees.filling import FILLINGS, Filling
from wvs.engines.trees.hardlinks import HardLinks
from wvs.engines.trees.jobs import Batch, BatchFailure, BatchResult, CloneBatch, clone_batch
from wvs.engines.trees.meter import Meter
from wvs.engines.trees.notes import Notes
from wvs.engines.trees.worker_pool import WorkerPool

_BATCH: Final = 32
_LEFT_OUT: Final = "left out because the service may not read it"


class _CloneLevel(Level):
    """A directory of the source and the new one that becomes its clone."""

    def __init__(self, place: TreePath, source: int, target: int, notes: Notes) -> None:
        super().__init__(place, [source, target])
        self._notes = notes
        self._flags = 0

    @property
    def target(self) -> int:
        return self.descriptors[1]

    def complete(self) -> None:
        note = partial(self._notes.add, place=self.place, name="")
        copy_attributes(self.source, self.target, self.status, self._flags, note)

    def keep_encryption(self) -> None:
        """Encrypts the new directory if the original is encrypted; the walk calls it before it fills the directory."""
        try:
            self._flags = keep_encryption(self.source, self.target)
        except EngineError as error:
            detail = f"cloning {self.place.shown()}: {error.detail}"
            raise EngineError(error.code, detail, error.hint, retryable=error.retryable) from error


class TreeCopy:
    """One clone of one tree. With `skip_unreadable` it leaves out, and notes, what the service may not read."""

    def __init__(self, filling: Filling, workers: int, call: CloneCall, *, skip_unreadable: bool = False) -> None:
        self._filling: Filling = filling
        self._workers = workers
        self._skip_unreadable = skip_unreadable
        self._cancel = call.cancel
        self._meter = Meter(call.on_progress, call.totals)
        self._notes = Notes()

    def run(self, source: TreeDir, target: TreeDir) -> CloneResult:
        """Clones the root of `source` into `target`. Raises `EngineError`, or `OSError` for the two roots."""
        root = self._open_root(source, target)
        kept = os.dup(root.target)
        self._links = HardLinks(kept)
        try:
            with WorkerPool(self._workers, self._cancel, self._pulse) as self._pool:
                try:
                    descend(root, self._enter, self._visit, self._cancel)
                    self._finish()
                finally:
                    for level in self._pool.waiting():
                        level.abandon()
        finally:
            os.close(kept)
        self._links.note_outside(self._notes)
        self._meter.report()
        meter = self._meter
        return CloneResult(meter.files, meter.bytes, meter.sockets, 0.0, self._notes.all())

    def _open_root(self, source: TreeDir, target: TreeDir) -> _CloneLevel:
        try:
            reading = open_unseen(source.descriptor, ROOT, OPEN_DIRECTORY)
        except FileNotFoundError as error:
            raise EngineError(ErrorCode.TREE_MISSING, f"{source.root_path} is missing", retryable=False) from error
        try:
            os.mkdir(ROOT, 0o700, dir_fd=target.descriptor)
            writing = os.open(ROOT, OPEN_DIRECTORY, dir_fd=target.descriptor)
        except BaseException:
            os.close(reading)
            raise
        level = _CloneLevel(TreePath(None, ""), reading, writing, self._notes)
        drop_inherited_acls(writing)
        return level

    def _enter(self, parent: _CloneLevel, name: str) -> _CloneLevel | None:
        try:
            source = open_subdirectory(parent, name)
        except UnreadableError:
            self._leave_out(parent, name)
            os.rmdir(name, dir_fd=parent.target)
            return None
        try:
            target = os.open(name, OPEN_DIRECTORY, dir_fd=parent.target)
        except BaseException:
            os.close(source)
            raise
        level = _CloneLevel(TreePath(parent.place, name), source, target, self._notes)
        if level.status.st_dev != parent.status.st_dev:
            # No mount point: to open one fails. The clone has a plain directory in the place of a subvolume of btrfs.
            self._notes.add("btrfs subvolume", level.place, "")
        return level

    def _visit(self, level: _CloneLevel) -> None:
        level.keep_encryption()
        try:
            for batch in self._batches(level):
                self._cancel.check()
                self._do(level, batch)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {level.place.shown()}") from error

    def _batches(self, level: _CloneLevel) -> Iterator[Batch]:
        files: list[tuple[str, int]] = []
        others: list[str] = []
        with os.scandir(level.source) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    files.append((entry.name, entry.inode()))
                elif entry.is_dir(follow_symlinks=False):
                    os.mkdir(entry.name, 0o700, dir_fd=level.target)
                    level.subdirectories.append(entry.name)
                else:
                    others.append(entry.name)
                if len(files) + len(others) >= _BATCH:
                    yield files, others
                    files, others = [], []
        if files or others:
            yield files, others

    def _do(self, level: _CloneLevel, batch: Batch) -> None:
        for done_level, done in self._pool.results():
            self._absorb_and_release(done_level, done)
        if self._pool.offer(self._filling, level.descriptors, batch, level):
            level.hold()
        else:
            self._absorb(level, clone_batch(self._filling, level.source, level.target, batch, self._pulse))

    def _finish(self) -> None:
        for level, done in self._pool.remaining():
            self._absorb_and_release(level, done)

    def _absorb_and_release(self, level: _CloneLevel, done: BatchResult) -> None:
        try:
            self._absorb(level, done)
        except BaseException:
            level.abandon()
            raise
        level.release()

    def _absorb(self, level: _CloneLevel, done: BatchResult) -> None:
        self._meter.add(done.files, done.bytes, done.sockets)
        for what, name in done.notes:
            self._notes.add(what, level.place, name)
        if done.failure is not None:
            raise _error(done.failure, level)
        for name in done.unreadable:
            self._leave_out(level, name)
        for name in done.linked:
            self._clone_linked(level, name)

    def _leave_out(self, level: _CloneLevel, name: str) -> None:
        if not self._skip_unreadable:
            raise denied(level, name)
        self._notes.add_named(_LEFT_OUT, level.place, name, owner_of(level, name))

    def _clone_linked(self, level: _CloneLevel, name: str) -> None:
        """Clones an entry whose inode has further names: here, one by one, so that each can link to the first."""
        try:
            status = os.stat(name, dir_fd=level.source, follow_symlinks=False)
            if self._links.link(status, level.target, name):
                self._meter.add(1, 0)
                return
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"linking {level.place.shown(name)}") from error
        is_file = stat.S_ISREG(status.st_mode)
        batch: Batch = ([(name, status.st_ino)], []) if is_file else ([], [name])
        one = CloneBatch(level.source, level.target, FILLINGS[self._filling], self._pulse, with_linked=True)
        self._absorb(level, one.run(batch))
        self._links.record(status, level.place, name)

    def _pulse(self, size: int) -> None:
        self._cancel.check()
        self._meter.add(0, size)


def _error(failure: BatchFailure, level: Level) -> EngineError:
    place = level.place
    if failure.code:
        detail = f"{failure.doing} {place.shown(failure.name)}: {failure.detail}"
        return EngineError(ErrorCode(failure.code), detail, failure.hint, retryable=failure.retryable)
    error = OSError(failure.error_number, os.strerror(failure.error_number))
    if failure.doing == "reading":
        return unreadable(error, level, failure.name)
    return from_os_error(error, ErrorCode.CLONE_FAILED, f"{failure.doing} {place.shown(failure.name)}")
