"""What a clone engine promises (design §8). Synchronous and thread-safe: callers run it in worker threads.

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
"""Bytes: an inode and its name, as the check for space reckons them."""


class TreeDir(msgspec.Struct, frozen=True):
    """The service's directory around one tree: an open descriptor, and its path for messages and for `juicefs`."""

    descriptor: int
    path: str

    @property
    def root_path(self) -> str:
        """Path of the tree's own root."""
        return root_path(self.path)


class Owner(msgspec.Struct, frozen=True):
    """Numeric owner of a new live root."""

    uid: int
    gid: int


class Probe(msgspec.Struct, frozen=True):
    """Whether an engine can work on a filesystem, and why (not), in a sentence for the operator."""

    engine: EngineName
    fits: bool
    why: str


class Progress(msgspec.Struct, frozen=True):
    """How far a clone is. `files` are names that are no directories; `bytes` are sizes, each file counted once."""

    files_done: int
    bytes_done: int
    files_total: int | None
    bytes_total: int | None


class Totals(msgspec.Struct, frozen=True):
    """The size of a tree: names that are no directories, their sizes, and the bytes that they really occupy.

    `linked` of the names belong to inodes that have others, inside the tree or outside.
    """

    files: int
    bytes: int
    allocated: int
    linked: int
    directories: int = 0


class Note(msgspec.Struct, frozen=True):
    """Something that a clone could not keep: what, how often, and the first place (relative to the tree's root)."""

    what: str
    count: int
    example: str


class Stamp(msgspec.Struct, frozen=True):
    """The state of a tree at one moment. Two stamps of one tree are equal if nothing wrote in between.

    `content` leaves out what differs between a tree and its clone by nature, where the engine's proof compares the two.
    `totals` is there if the engine walks the tree for its stamp.
    """

    engine: EngineName
    value: str
    content: str | None = None
    totals: Totals | None = None


class CloneResult(msgspec.Struct, frozen=True):
    """What a clone made. `files` and `bytes` as in `Progress`, None if the engine clones without looking at files.

    `seconds` leave out what the engine does for its proof. `stamp` is the clone's own stamp where that proof needs one;
    give it to `Engine.torn`.
    """

    files: int | None
    bytes: int | None
    sockets: int
    seconds: float
    notes: tuple[Note, ...] = ()
    stamp: Stamp | None = None


class CloneMark(msgspec.Struct, frozen=True):
    """One line of the clone journal. `at_ns` is CLOCK_MONOTONIC: comparable between processes of one host."""

    phase: Literal["begin", "end"]
    workspace: str
    source: str
    target: str
    pid: int
    at_ns: int


class Cancel:
    """Asks a running operation to end at its next safe point; carries the deadline too. Thread-safe."""

    def __init__(self, deadline_s: float | None = None) -> None:
        """`deadline_s`: seconds from now after which `check` raises DEADLINE_EXCEEDED."""
        self._ends_at = None if deadline_s is None else time.monotonic() + deadline_s
        self._lock = threading.Lock()
        self._reason: EngineError | None = None

    def request(self, detail: str = "cancelled on request", code: ErrorCode = ErrorCode.CANCELLED) -> None:
        """Every later `check` raises; the first request wins."""
        with self._lock:
            self._reason = self._reason or EngineError(code, detail, retryable=False)

    def reason(self) -> EngineError | None:
        """The error that `check` would raise."""
        if self._reason is None and self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.request("the task's time is over", ErrorCode.DEADLINE_EXCEEDED)
        return self._reason

    def check(self) -> None:
        """Raises `EngineError` once cancelled or past the deadline."""
        reason = self.reason()
        if reason is not None:
            raise EngineError(reason.code, reason.detail, reason.hint, retryable=reason.retryable)


OnProgress = Callable[[Progress], None]
Journal = Callable[[CloneMark], None]


class CloneCall(msgspec.Struct, frozen=True):
    """What goes with a clone besides its two trees. `workspace`, `source_name`, `target_name` are for the journal."""

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
    freeze_budget_s: ClassVar[float] = 0.0
    """The least number of seconds that agents get to freeze and flush; `WVS_FREEZE_BUDGET_S` may give them more."""
    root_entries: ClassVar[frozenset[str]] = frozenset()
    """Names that the engine's filesystem itself shows in its root directory: a volume with these alone is empty."""

    def __init__(self, workers: int = DEFAULT_WORKERS, journal: Journal | None = None) -> None:
        self.workers = workers
        self._journal = journal

    @abstractmethod
    def probe(self, directory: TreeDir) -> Probe:
        """Tries the engine for real inside `directory` and leaves nothing behind. Raises for a medium that fails."""

    @abstractmethod
    def create(self, tree: TreeDir, owner: Owner, mode: int) -> None:
        """Makes an empty root. An existing one is an error."""

    def clone(self, source: TreeDir, target: TreeDir, call: CloneCall) -> CloneResult:
        """Makes the root of `target` equal to the root of `source`; the target's must not exist yet.

        On an error the target is left as it is: the caller retires and purges it. Begin and end go to the journal.
        """
        self._mark("begin", call)
        started = time.monotonic()
        try:
            call.cancel.check()
            result = self._clone(source, target, call)
        except OSError as error:
            raise from_os_error(error, ErrorCode.CLONE_FAILED, f"cloning {source.root_path}") from error
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
        """Taken before the clone and after it: every write before it shows in it, every later one in the next."""

    def torn(self, before: Stamp, after: Stamp, clone: Stamp | None) -> str | None:
        """Why the clone cannot be trusted, or None if the stamps prove that nothing wrote while it was made."""
        if before.value != after.value:
            return "the source changed between the stamps before and after the clone"
        if clone is not None and clone.content != before.content:
            return "the clone is not what the source was when it was stamped"
        return None

    @abstractmethod
    def flush(self, tree: TreeDir) -> None:
        """Makes every write of this host to the tree visible to a clone and durable, results checked.

        What a filesystem's own process still holds for a file that is open (`Mount.has_own_buffers`) is not reached:
        the agents fsync their open files themselves.
        """

    @abstractmethod
    def sync(self, tree: TreeDir) -> None:
        """Makes a finished clone durable, its name included; to be called before the event that commits it."""

    @abstractmethod
    def seal(self, tree: TreeDir) -> None:
        """Makes the root read-only where the engine can; a snapshot is sealed after its proof."""

    @abstractmethod
    def remove(self, tree: TreeDir, cancel: Cancel) -> None:
        """Empties the `TreeDir`, whatever it holds. Re-entrant."""

    @abstractmethod
    def space_needed(self, totals: Totals | None) -> int:
        """Bytes that a clone of a tree of this size takes at most, for the check before it starts."""

    def inodes_needed(self, totals: Totals | None) -> int:
        """Inodes that a clone of a tree of this size takes at least."""
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
