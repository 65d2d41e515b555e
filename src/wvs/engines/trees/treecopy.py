"""Cloning a tree file by file: the part that `copy` and `reflink` share.

The walk lists directories and makes the new ones; batches of their other entries go to worker processes or are done on
the way. A directory gets its attributes when nothing more is made in it.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

from wvs.domain.errors import ErrorCode
from wvs.engines.base import CloneCall, CloneResult, TreeDir
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.kernel import OPEN_DIRECTORY, open_unseen
from wvs.engines.paths import ROOT
from wvs.engines.trees.descent import Level, Place, descend, open_subdirectory, unreadable
from wvs.engines.trees.fidelity import attributes_of_open, drop_inherited_acls
from wvs.engines.trees.filling import FILLINGS, Filling
from wvs.engines.trees.hardlinks import HardLinks
from wvs.engines.trees.jobs import CloneBatch, Done, Failure, Payload, clone_batch
from wvs.engines.trees.meter import Meter
from wvs.engines.trees.notes import Notes
from wvs.engines.trees.worker_pool import Hands

_BATCH: Final = 32


class _CloneLevel(Level):
    """A directory of the source and the new one that becomes its clone."""

    def __init__(self, place: Place, source: int, target: int, notes: Notes) -> None:
        super().__init__(place, [source, target])
        self._notes = notes

    @property
    def target(self) -> int:
        return self.descriptors[1]

    def leave(self) -> None:
        attributes_of_open(self.source, self.target, self.status, lambda what: self._notes.add(what, self.place, ""))


class TreeCopy:
    """One clone of one tree."""

    def __init__(self, filling: Filling, workers: int, call: CloneCall) -> None:
        self._filling: Filling = filling
        self._workers = workers
        self._cancel = call.cancel
        self._meter = Meter(call.on_progress, call.totals)
        self._notes = Notes()

    def run(self, source: TreeDir, target: TreeDir) -> CloneResult:
        """Makes the root of `target`. Raises `EngineError`, or `OSError` for the two roots themselves."""
        root = self._open_root(source, target)
        kept = os.dup(root.target)
        self._links = HardLinks(kept)
        try:
            with Hands(self._workers, self._cancel, self._pulse) as self._hands:
                try:
                    descend(root, self._enter, self._visit, self._cancel)
                    self._finish()
                finally:
                    for level in self._hands.waiting():
                        level.abandon()
        finally:
            os.close(kept)
        self._meter.tell()
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
        level = _CloneLevel(Place(None, ""), reading, writing, self._notes)
        drop_inherited_acls(writing)
        return level

    def _enter(self, parent: _CloneLevel, name: str) -> _CloneLevel:
        source = open_subdirectory(parent, name)
        try:
            target = os.open(name, OPEN_DIRECTORY, dir_fd=parent.target)
        except BaseException:
            os.close(source)
            raise
        return _CloneLevel(Place(parent.place, name), source, target, self._notes)

    def _visit(self, level: _CloneLevel) -> None:
        try:
            for batch in self._batches(level):
                self._cancel.check()
                self._do(level, batch)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {level.place.shown()}") from error

    def _batches(self, level: _CloneLevel) -> Iterator[Payload]:
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

    def _do(self, level: _CloneLevel, batch: Payload) -> None:
        for done_level, done in self._hands.results():
            self._absorb_and_release(done_level, done)
        if self._hands.offer(self._filling, level.descriptors, batch, level):
            level.hold()
        else:
            self._absorb(level, clone_batch(self._filling, level.source, level.target, batch, self._pulse))

    def _finish(self) -> None:
        for level, done in self._hands.remaining():
            self._absorb_and_release(level, done)

    def _absorb_and_release(self, level: _CloneLevel, done: Done) -> None:
        try:
            self._absorb(level, done)
        except BaseException:
            level.abandon()
            raise
        level.release()

    def _absorb(self, level: _CloneLevel, done: Done) -> None:
        self._meter.add(done.files, done.bytes, done.sockets)
        for what, name in done.notes:
            self._notes.add(what, level.place, name)
        if done.failure is not None:
            raise _error(done.failure, level.place)
        for name in done.linked:
            self._clone_linked(level, name)

    def _clone_linked(self, level: _CloneLevel, name: str) -> None:
        """An entry whose inode has other names: made here, one after the other, so that each knows the first."""
        try:
            status = os.stat(name, dir_fd=level.source, follow_symlinks=False)
            if self._links.link(status, level.target, name):
                self._meter.add(1, 0)
                return
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"linking {level.place.shown(name)}") from error
        is_file = stat.S_ISREG(status.st_mode)
        batch: Payload = ([(name, status.st_ino)], []) if is_file else ([], [name])
        one = CloneBatch(level.source, level.target, FILLINGS[self._filling], self._pulse, linked_too=True)
        self._absorb(level, one.run(batch))
        self._links.made(status, level.place, name)

    def _pulse(self, size: int) -> None:
        self._cancel.check()
        self._meter.add(0, size)


def _error(failure: Failure, place: Place) -> EngineError:
    if failure.code:
        detail = f"{failure.doing} {place.shown(failure.name)}: {failure.detail}"
        return EngineError(ErrorCode(failure.code), detail, retryable=failure.retryable)
    error = OSError(failure.error_number, os.strerror(failure.error_number))
    if failure.doing == "reading":
        return unreadable(error, place, failure.name)
    return from_os_error(error, ErrorCode.CLONE_FAILED, f"{failure.doing} {place.shown(failure.name)}")
