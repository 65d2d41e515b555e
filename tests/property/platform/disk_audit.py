"""Checks the volume from outside: with walks of the test's own, and with the journal of the clone engine."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec

from tests.property.platform.log_audit import Look
from tests.property.platform.manifests import Manifest, difference, manifest_of
from tests.property.platform.processes import Processes
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.states import SnapshotState
from wvs.engines.base import CloneMark

_NOTICED_NS = 500_000_000
"""On a busy machine the test may notice the end of a process this much later."""


@dataclass
class Clone:
    """One clone according to the journal; `end_ns` is None if the journal has no end of it."""

    pid: int
    target: str
    begin_ns: int
    end_ns: int | None = None


class DiskAudit:
    """Audits one volume. `excused` are snapshots that the test itself has damaged."""

    def __init__(self, volume: Path, journal: Path, processes: Processes) -> None:
        self._volume = volume
        self._journal = journal
        self._processes = processes
        self._read = 0
        self._clones: dict[str, list[Clone]] = {}
        self.recorded: dict[UUID, Manifest] = {}
        self.excused: set[UUID] = set()

    def directory(self, workspace_id: UUID) -> Path:
        return self._volume / format_id(WORKSPACE, workspace_id)

    def tree(self, workspace_id: UUID, name: str) -> Path:
        """The root of a tree."""
        if name == self.live_tree(workspace_id):
            return self.directory(workspace_id) / "live" / "root"
        return self.directory(workspace_id) / "trees" / name / "root"

    def live_tree(self, workspace_id: UUID) -> str | None:
        """The name of the tree at the workspace's path."""
        link = self.directory(workspace_id) / "current"
        if link.is_symlink():
            assert str(link.readlink()) == "live/root"
        try:
            return (self.directory(workspace_id) / "live" / "name").read_text().strip()
        except FileNotFoundError:
            return None

    def check_snapshots(self, workspace_id: UUID, look: Look) -> None:
        """Ready snapshots have the same content as when they became ready; dropped ones have no directory."""
        directory = self.directory(workspace_id)
        for snapshot in look.workspace.snapshots.values():
            if snapshot.tree is None:
                continue
            if snapshot.state is SnapshotState.DROPPED:
                left = [p for p in ("trees", "trash") if (directory / p / snapshot.tree).exists()]
                assert not left, f"{snapshot.tree} is dropped but still in {left}"
            elif snapshot.state is SnapshotState.READY and snapshot.id not in self.excused:
                found = manifest_of(self.tree(workspace_id, snapshot.tree))
                assert found is not None, f"{snapshot.tree} is ready but missing"
                wrong = difference(self.recorded.setdefault(snapshot.id, found), found)
                assert not wrong, f"{snapshot.tree} changed since it became ready: {wrong}"
        current = look.workspace.current
        if current is not None and current not in self.excused:
            assert look.workspace.snapshots[current].state is SnapshotState.READY

    def check_clones(self) -> None:
        """No two clones of one workspace overlap, and no tree is cloned twice."""
        if not self._journal.exists():
            return
        with self._journal.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        self._read += whole
        for line in content[:whole].splitlines():
            self._mark(msgspec.json.decode(line, type=CloneMark))

    def check_owners(self, workspace_id: UUID, look: Look) -> str:
        """Directories on the volume that belong to no tree of the log; empty after a sweep."""
        directory = self.directory(workspace_id)
        if not directory.exists():
            return ""
        workspace = look.workspace
        kept = {s.tree: s.state for s in workspace.snapshots.values() if s.tree is not None}
        going = {t for t, state in kept.items() if state in (SnapshotState.DROPPING, SnapshotState.DROP_FAILED)}
        owned = {t for t, state in kept.items() if state is not SnapshotState.DROPPED} | {workspace.live_tree}
        trees = {p.name for p in (directory / "trees").iterdir()}
        trash = {p.name for p in (directory / "trash").iterdir()}
        slots = {p.name for p in (directory / "switch").iterdir()}
        strays = [*(f"trees/{n}" for n in sorted(trees - owned)), *(f"trash/{n}" for n in sorted(trash - going))]
        strays += [f"switch/{n}" for n in sorted(slots)]
        return ", ".join(strays)

    def _mark(self, mark: CloneMark) -> None:
        clones = self._clones.setdefault(mark.workspace, [])
        if mark.phase == "end":
            clone = next(c for c in reversed(clones) if c.target == mark.target)
            assert clone.pid == mark.pid
            clone.end_ns = mark.at_ns
            return
        for earlier in clones:
            assert earlier.target != mark.target, f"{mark.target} is cloned a second time"
            assert self._ended_before(earlier, mark), f"{mark} begins within {earlier}"
        clones.append(Clone(mark.pid, mark.target, mark.at_ns))

    def _ended_before(self, earlier: Clone, begun: CloneMark) -> bool:
        """Whether a clone ended before another began. If its process has ended, the clone ended with it.

        There is one exception, which no lease can prevent: a process that was stopped until its lease expired may
        continue a clone that another executor has taken over. The tree's name and the fence make that harmless.
        """
        if earlier.end_ns is not None and earlier.end_ns <= begun.at_ns:
            return True
        maker = self._processes.by_pid(earlier.pid)
        if maker.was_stopped or self._processes.by_pid(begun.pid).was_stopped:
            return True
        maker.ended.wait(_NOTICED_NS / 1e9)
        return maker.ended_ns is not None and maker.ended_ns - _NOTICED_NS <= begun.at_ns
