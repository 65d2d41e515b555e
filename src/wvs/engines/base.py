"""What a clone engine promises (design §8). Engines block and are thread-safe: callers run them in worker threads.

A tree is the directory `root` inside a `TreeDir`. Its content belongs to agents and may be hostile; the `TreeDir` and
everything above it belong to the service.
"""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final, Literal, TypeAlias

import msgspec

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError, from_os_error
from wvs.engines.paths import root_path

EngineName: TypeAlias = str
"""A key of `choice.ENGINES`. Volumes and events store it."""

DEFAULT_WORKERS: Final = 2
METADATA_PER_FILE: Final = 1024
"""Bytes that the check for space counts for an inode and its name."""


class TreeDir(msgspec.Struct, frozen=True):
    """The service's directory around one tree: an open descriptor, and the path for messages and for `juicefs`."""

    descriptor: int
    path: str

    @property
    def root_path(self) -> str:
        """Path of the tree's own root."""
        return root_path(self.path)


class TreeOwner(msgspec.Struct, frozen=True):
    """Numeric owner of a new live root; -1 keeps the service's own."""

    uid: int
    gid: int


class Probe(msgspec.Struct, frozen=True):
    """Whether an engine works on a filesystem; `why` is a sentence for the operator."""

    engine: EngineName
    fits: bool
    why: str


class CloneProgress(msgspec.Struct, frozen=True):
    """How far a clone is. `files` counts names other than directories; `bytes` counts the size of each file once."""

    files_done: int
    bytes_done: int
    files_total: int | None
    bytes_total: int | None


class Totals(msgspec.Struct, frozen=True):
    """The size of a tree: the number of names other than directories, their sizes, and the bytes that they occupy.

    `linked` counts the names whose inode has further names, inside the tree or outside.
    """

    files: int
    bytes: int
    allocated: int
    linked: int
    directories: int = 0


class CloneNote(msgspec.Struct, frozen=True):
    """Something that a clone could not keep: what it was, how often, and the first path, relative to the root.

    `more`: further paths, of a kind whose names matter.
    """

    what: str
    count: int
    example: str
    more: tuple[str, ...] = ()


class Stamp(msgspec.Struct, frozen=True):
    """The state of a tree at one moment. Two stamps of one tree are equal if nothing wrote in between.

    `content` is set if the engine's proof compares a tree with its clone: it leaves out what always differs between
    the two. `totals` is set if the engine walks the tree for its stamp.
    """

    engine: EngineName
    value: str
    content: str | None = None
    totals: Totals | None = None


class CloneResult(msgspec.Struct, frozen=True):
    """What a clone made. `files` and `bytes` as in `CloneProgress`; None if the engine clones without a look at files.

    `seconds` leaves out the engine's work for its proof. `stamp` is the clone's own stamp if the proof needs one; the
    caller passes it to `Engine.torn`.
    """

    files: int | None
    bytes: int | None
    sockets: int
    seconds: float
    notes: tuple[CloneNote, ...] = ()
    stamp: Stamp | None = None


class CloneMark(msgspec.Struct, frozen=True):
    """One line of the clone journal. `at_ns` is CLOCK_MONOTONIC: processes of one host can compare it."""

    phase: Literal["begin", "end"]
    workspace: str
    source: str
    target: str
    pid: int
    at_ns: int


class Cancel:
    """Asks a running operation to end at its next safe point; also carries its deadline. Thread-safe."""

    def __init__(self, deadline_s: float | None = None) -> None:
        """`deadline_s`: seconds from now after which `check` raises DEADLINE_EXCEEDED."""
        self._ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        self._lock = threading.Lock()
        self._reason: EngineError | None = None

    def request(self, detail: str = "cancelled on request", code: ErrorCode = ErrorCode.CANCELLED) -> None:
        """Makes every later `check` raise. The first request wins."""
        with self._lock:
            self._reason = self._reason or EngineError(code, detail, retryable=False)

    def reason(self) -> EngineError | None:
        """The error that `check` would raise now, or None."""
        if self._reason is None and self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.request("the task's time is over", ErrorCode.DEADLINE_EXCEEDED)
        return self._reason

    def check(self) -> None:
        """Raises `EngineError` once cancelled or past the deadline."""
        reason = self.reason()
        if reason is not None:
            raise EngineError(reason.code, reason.detail, reason.hint, retryable=reason.retryable)


OnProgress = Callable[[CloneProgress], None]
Journal = Callable[[CloneMark], None]


class CloneCall(msgspec.Struct, frozen=True):
    """The arguments of a clone besides its two trees. `workspace`, `source_name`, `target_name` are for the journal."""

    cancel: Cancel
    on_progress: OnProgress | None = None
    totals: Totals | None = None
    workspace: str = ""
    source_name: str = ""
    target_name: str = ""


class Engine(ABC):
    """One way to clone a tree. Every method raises `EngineError` only.

    What is true of an engine is an attribute of its class; no other code asks for an engine's name. A new engine is a
    new module with a subclass, and its line in `choice.ENGINES`.
    """

    name: ClassVar[EngineName]
    """Volumes and events store it: it never changes."""
    counts_files: ClassVar[bool] = True
    """Whether a stamp or a clone includes the size of its tree. If not, only a walk finds it (`Volume.measure`)."""
    needs_space: ClassVar[bool] = True
    """Whether a clone takes free space. If not, a full volume can be set back to a snapshot."""
    freeze_budget_s: ClassVar[float] = 0.0
    """The least number of seconds that agents get to freeze and flush; `WVS_FREEZE_BUDGET_S` may give them more."""
    root_entries: ClassVar[frozenset[str]] = frozenset()
    """Names that the engine's filesystem itself shows in its root directory: a volume with these alone is empty."""

    def __init__(
        self, workers: int = DEFAULT_WORKERS, journal: Journal | None = None, *, skip_unreadable: bool = False
    ) -> None:
        """`skip_unreadable`: a clone leaves out, and notes, what the service may not read, if the engine can do so."""
        self.workers = workers
        self.skip_unreadable = skip_unreadable
        self._journal = journal

    @abstractmethod
    def probe(self, directory: TreeDir) -> Probe:
        """Tries the engine inside `directory` and leaves nothing behind. Raises if the medium fails."""

    @abstractmethod
    def create(self, tree: TreeDir, owner: TreeOwner, mode: int) -> None:
        """Makes an empty root. Raises if the root exists."""

    @abstractmethod
    def require_rights(self, source: TreeDir, cancel: Cancel) -> None:
        """Raises `EngineError` if the service lacks a right that a clone of the source needs.

        Callers ask before they freeze anybody, so agents write meanwhile. Cheap for a service that has all rights.
        """

    def clone(self, source: TreeDir, target: TreeDir, call: CloneCall) -> CloneResult:
        """Makes the root of `target` equal to the root of `source`. The target must not have a root yet.

        After an error the target stays as it is: the caller retires and purges it. The journal records begin and end.
        """
        self._mark("begin", call)
        started = time.monotonic()
        try:
            call.cancel.check()
            result = self._clone(source, target, call)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {source.root_path}") from error
        except EngineError as error:
            raise error.inside(source.root_path) from error
        finally:
            self._mark("end", call)
        return msgspec.structs.replace(result, seconds=result.seconds or time.monotonic() - started)

    @abstractmethod
    def _clone(self, source: TreeDir, target: TreeDir, call: CloneCall) -> CloneResult: ...

    def _mark(self, phase: Literal["begin", "end"], call: CloneCall) -> None:
        if self._journal is not None:
            self._journal(_mark(phase, call))

    @abstractmethod
    def stamp(self, tree: TreeDir, cancel: Cancel) -> Stamp:
        """The stamp of the tree: it shows every earlier write, and the next stamp shows every later one.

        The caller takes one before the clone and one after it.
        """

    def torn(self, before: Stamp, after: Stamp, clone: Stamp | None) -> str | None:
        """Why the clone cannot be trusted; None if the stamps prove that nothing wrote while it was made."""
        if before.value != after.value:
            return "the source changed between the stamps before and after the clone"
        if clone is not None and clone.content != before.content:
            return "the clone is not what the source was when it was stamped"
        return None

    def recognises(self, tree: TreeDir, source_stamp: str) -> bool | None:
        """Whether the root is the clone of a source with that stamp; None if only a walk can tell."""
        return None

    @abstractmethod
    def flush(self, tree: TreeDir) -> None:
        """Makes every write of this host to the tree visible to a clone, and durable. Raises if the write-back failed.

        It does not reach what the filesystem's own process buffers for an open file (`Mount.has_own_buffers`): agents
        fsync their open files themselves.
        """

    @abstractmethod
    def sync(self, tree: TreeDir) -> None:
        """Makes a finished clone durable, its name included. Callers do so before the event that commits the clone."""

    @abstractmethod
    def seal(self, tree: TreeDir) -> None:
        """Makes the root read-only if the engine can. Callers seal a snapshot after its proof."""

    @abstractmethod
    def remove(self, tree: TreeDir, cancel: Cancel) -> None:
        """Empties the `TreeDir`, whatever it contains. Re-entrant."""

    @abstractmethod
    def space_needed(self, totals: Totals | None) -> int:
        """The most bytes that a clone of a tree of this size can take; checked before the clone starts."""

    def inodes_needed(self, totals: Totals | None) -> int:
        """The least number of inodes that a clone of a tree of this size takes."""
        return totals.files - totals.linked + totals.directories if totals is not None else 1


def _mark(phase: Literal["begin", "end"], call: CloneCall) -> CloneMark:
    return CloneMark(
        phase=phase,
        workspace=call.workspace,
        source=call.source_name,
        target=call.target_name,
        pid=os.getpid(),
        at_ns=time.monotonic_ns(),
    )
