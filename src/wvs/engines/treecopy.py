"""Cloning a tree file by file: the part that `copy` and `reflink` share.

The walk lists directories and makes the new ones; batches of their other entries go to a crew. A directory gets its
attributes when nothing more is made in it.
"""

import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.base import ROOT, CloneCall, CloneResult, TreeDir
from wvs.engines.crew import Crew
from wvs.engines.descent import Level, Place, descend, open_subdirectory, torn, unreadable
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.fidelity import Notes, attributes_of_open, drop_inherited_acls
from wvs.engines.hardlinks import HardLinks
from wvs.engines.kernel import OPEN_DIRECTORY, OPEN_FILE, open_unseen
from wvs.engines.meter import Meter
from wvs.engines.specials import make_special

_BATCH: Final = 32
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FillFile(Protocol):
    """Gives `target`, new and empty, the content of `source`, and tells `pulse` of every byte."""

    def __call__(self, source: int, target: int, status: os.stat_result, pulse: "Pulse") -> None: ...


class Pulse(Protocol):
    """Called after each piece of a file with the bytes of the piece; raises to cancel."""

    def __call__(self, size: int, /) -> None: ...


class _Batch(msgspec.Struct, frozen=True):
    level: "_CloneLevel"
    files: list[str]
    others: list[str]


class _CloneLevel(Level):
    """A directory of the source and the new one that becomes its clone."""

    def __init__(self, place: Place, source: int, target: int, notes: Notes) -> None:
        super().__init__(place, [source, target])
        self._notes = notes
        made = os.fstat(target)
        self.made_as = (made.st_uid, made.st_gid)

    @property
    def target(self) -> int:
        return self.descriptors[1]

    def leave(self) -> None:
        attributes_of_open(self.source, self.target, self.status, self.made_as, self._notes, self.place, "")


class TreeCopy:
    """One clone of one tree."""

    def __init__(self, fill: FillFile, workers: int, call: CloneCall) -> None:
        self._fill = fill
        self._workers = workers
        self._cancel = call.cancel
        self._meter = Meter(call.on_progress, call.totals)
        self._notes = Notes()

    def run(self, source: TreeDir, target: TreeDir) -> CloneResult:
        """Makes the root of `target`. Raises `EngineError`, or `OSError` for the two roots themselves."""
        root = self._open_root(source, target)
        kept = os.dup(root.target)
        try:
            self._links = HardLinks(kept)
            with Crew(self._workers, self._clone_batch, _drop) as self._crew:
                descend(root, self._enter, self._visit, self._cancel)
                self._crew.finish()
        finally:
            os.close(kept)
        self._meter.end()
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
                level.hold()
                self._crew.submit(batch)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {level.place.shown()}") from error

    def _batches(self, level: _CloneLevel) -> Iterator[_Batch]:
        files: list[str] = []
        others: list[str] = []
        with os.scandir(level.source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(entry.name, 0o700, dir_fd=level.target)
                    level.subdirectories.append(entry.name)
                    continue
                (files if entry.is_file(follow_symlinks=False) else others).append(entry.name)
                if len(files) + len(others) >= _BATCH:
                    yield _Batch(level, files, others)
                    files, others = [], []
        if files or others:
            yield _Batch(level, files, others)

    def _clone_batch(self, batch: _Batch) -> None:
        level = batch.level
        try:
            for name in batch.files:
                self._clone_file(level, name)
            for name in batch.others:
                self._clone_other(level, name)
        except BaseException:
            level.abandon()
            raise
        level.release()

    def _clone_file(self, level: _CloneLevel, name: str) -> None:
        try:
            source = open_unseen(level.source, name, OPEN_FILE)
        except OSError as error:
            raise unreadable(error, level.place, name) from error
        try:
            status = os.fstat(source)
            if not stat.S_ISREG(status.st_mode):
                raise torn(level.place, name, "was replaced")
            self._make(level, name, status, lambda: self._fill_new(level, name, source, status))
        finally:
            os.close(source)

    def _clone_other(self, level: _CloneLevel, name: str) -> None:
        try:
            status = os.stat(name, dir_fd=level.source, follow_symlinks=False)
        except OSError as error:
            raise unreadable(error, level.place, name) from error
        if stat.S_ISSOCK(status.st_mode):
            self._meter.add(0, 0, sockets=1)
        else:
            directories = (level.source, level.target)
            self._make(level, name, status, lambda: make_special(directories, name, status, self._notes, level.place))

    def _make(self, level: _CloneLevel, name: str, status: os.stat_result, make: Callable[[], None]) -> None:
        """Has the entry made by `make`, or links it to the copy that its inode already has."""
        self._cancel.check()
        try:
            if status.st_nlink == 1:
                make()
            else:
                self._make_once(level, name, status, make)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {level.place.shown(name)}") from error
        self._meter.add(1, 0)

    def _make_once(self, level: _CloneLevel, name: str, status: os.stat_result, make: Callable[[], None]) -> None:
        first, copy = self._links.claim(status, level.place, name)
        if not first:
            self._links.link(copy, level.target, name)
            return
        try:
            make()
        except BaseException as error:
            copy.failed(error)
            raise
        copy.made()

    def _fill_new(self, level: _CloneLevel, name: str, source: int, status: os.stat_result) -> None:
        target = os.open(name, _NEW_FILE, 0o600, dir_fd=level.target)
        try:
            if status.st_size:
                self._fill(source, target, status, self._pulse)
            attributes_of_open(source, target, status, level.made_as, self._notes, level.place, name)
        finally:
            os.close(target)

    def _pulse(self, size: int) -> None:
        self._cancel.check()
        self._meter.add(0, size)


def _drop(batch: _Batch) -> None:
    batch.level.abandon()
