"""The sweeper of one workspace: makes the volume agree with the log. It deletes only what the log calls obsolete.

It lists the disk first and reads the log afterwards. The log intends a tree before its directory exists, so no executor
made a directory without a row. The sweeper moves such a directory aside and reports it.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from wvs.application.write_path import Origin
from wvs.domain.commands import ReportLost
from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.paths import CURRENT
from wvs.engines.volume.layout import Stranger
from wvs.engines.volume.names import is_tree_name
from wvs.executor.links import move_link, note_stranger, set_link
from wvs.executor.workbench import Workbench
from wvs.failpoints import failpoint
from wvs.postgres.queries import sql
from wvs.readmodel.tree_states import TreeState

OBSOLETE: Final = frozenset({TreeState.ABANDONED, TreeState.RETIRED, TreeState.REMOVED})
"""States of trees that may be removed. Trees in any other state are kept."""

_NAMED: Final = sql("trees_named")
_EXPECTED: Final = sql("trees_expected")

log = structlog.get_logger(__name__)


class Action(StrEnum):
    """What the sweep did with a directory, or found about it."""

    RETIRED = "retired"
    PURGED = "purged"
    QUARANTINED = "quarantined"
    LOST = "lost"
    LIVE_MISSING = "live_missing"
    LINKED = "linked"
    PATH_REPLACED = "path_replaced"
    UNREADABLE = "unreadable"


class Finding(Struct, frozen=True):
    """One thing that the sweep changed or found."""

    action: Action
    workspace: str
    name: str
    detail: str = ""


async def sweep_workspace(
    bench: Workbench, workspace_id: UUID, *, repair: bool = True, clear_path: bool = False
) -> list[Finding]:
    """Sweeps one workspace; with `repair=False` it only reports what it would do. Raises `EngineError`.

    With `clear_path` it also moves to quarantine what stands at the workspace's path instead of the link. Agents may
    work in it, so that only a person decides that.

    The caller checks first that the volume belongs to this log: see `volume_sweep.check_not_restored`.
    """
    sweep = _Sweep(bench, workspace_id, repair=repair, clear_path=clear_path)
    if sweep.workspace not in await bench.run(bench.volume.workspaces):
        await sweep.missing(no_directory=True)
        return sweep.findings
    await sweep.trees()
    await sweep.trash()
    await sweep.missing()
    await sweep.link()
    return sweep.findings


class _Sweep:
    def __init__(self, bench: Workbench, workspace_id: UUID, *, repair: bool, clear_path: bool) -> None:
        self._bench = bench
        self._workspace_id = workspace_id
        self.workspace = format_id(WORKSPACE, workspace_id)
        self._repair = repair
        self._clear_path = repair and clear_path
        self.findings: list[Finding] = []

    async def trees(self) -> None:
        """Moves obsolete trees to the trash, and directories that the log does not know into quarantine."""
        listed = await self._bench.run(self._bench.volume.trees, self.workspace)
        failpoint("sweep.listed")
        states = await self._states(listed)
        for name in listed:
            state = states.get(name)
            if state is None:
                await self._quarantine(name)
            elif state in OBSOLETE:
                self._record(Action.RETIRED, name, str(state))
                if self._repair:
                    await self._bench.run(self._bench.volume.retire, self.workspace, name)
                    failpoint("sweep.retired")

    async def trash(self) -> None:
        """Removes what lies in the trash, as far as the log knows it to be obsolete or about to be dropped."""
        for name in filter(is_tree_name, await self._bench.run(self._bench.volume.trash, self.workspace)):
            state = (await self._states([name])).get(name)
            if state in OBSOLETE:
                self._record(Action.PURGED, name)
                if self._repair:
                    await self._bench.run(self._bench.volume.purge, self.workspace, name, self._bench.tidying)
                    failpoint("sweep.purged")

    async def missing(self, *, no_directory: bool = False) -> None:
        """Marks ready snapshots without a directory lost; reports a missing live tree, which a reset can recreate."""
        async with self._bench.path.pool.acquire() as connection:
            expected = await connection.fetch(_EXPECTED, self._workspace_id)
        whole: set[str] = (
            set() if no_directory else await self._bench.run(self._bench.volume.whole_trees, self.workspace)
        )
        for name, state, snapshot_id in expected:
            if name in whole:
                continue
            if state == TreeState.LIVE:
                await self._live_missing(name)
            else:
                await self._lost(name, snapshot_id)

    async def link(self) -> None:
        """Makes the link point to the live tree that Postgres names."""
        standing = await self._bench.run(self._bench.volume.standing, self.workspace)
        if isinstance(standing, Stranger):
            await self._path_replaced(standing)
            return
        if not self._repair:
            workspace = await self._bench.path.load(self._workspace_id)
            wanted = None if workspace is None else workspace.live_tree
            if wanted is not None and await self._bench.run(self._bench.volume.linked_tree, self.workspace) != wanted:
                self._record(Action.LINKED, wanted)
        elif await move_link(self._bench, self._workspace_id):
            self._record(Action.LINKED, CURRENT)
            failpoint("sweep.linked")

    async def _path_replaced(self, stranger: Stranger) -> None:
        workspace = await self._bench.path.load(self._workspace_id)
        if not self._clear_path or workspace is None or workspace.live_tree is None:
            self._record(Action.PATH_REPLACED, CURRENT, stranger.kind)
            if self._repair:
                await note_stranger(self._bench, self._workspace_id, stranger)
            return
        place = await set_link(self._bench, self.workspace, workspace.live_tree)
        self._record(Action.QUARANTINED, CURRENT, place or "")
        await move_link(self._bench, self._workspace_id)

    async def _states(self, names: list[str]) -> dict[str, TreeState]:
        async with self._bench.path.pool.acquire() as connection:
            rows = await connection.fetch(_NAMED, self._workspace_id, [n for n in names if is_tree_name(n)])
        return {row["name"]: TreeState(row["state"]) for row in rows}

    async def _quarantine(self, name: str) -> None:
        place = ""
        if self._repair:
            place = await self._bench.run(self._bench.volume.quarantine, self.workspace, name)
            failpoint("sweep.quarantined")
        self._record(Action.QUARANTINED, name, place)

    async def _lost(self, name: str, snapshot_id: UUID) -> None:
        self._record(Action.LOST, name)
        if self._repair:
            detail = f"The sweeper found no directory {name}."
            origin = Origin(actor=f"executor:{self._bench.executor_id}", request_id="sweep")
            command = ReportLost(snapshot_id, detail)
            await self._bench.path.execute(self._workspace_id, command, at=datetime.now(UTC), origin=origin)
            failpoint("sweep.reported")

    async def _live_missing(self, name: str) -> None:
        """Reads the log again after the disk: the live tree may have been replaced in between."""
        workspace = await self._bench.path.load(self._workspace_id)
        if workspace is not None and workspace.live_tree == name:
            self._record(Action.LIVE_MISSING, name, "wvsctl current set WORKSPACE SNAPSHOT --reset recreates it")

    def _record(self, action: Action, name: str, detail: str = "") -> None:
        self.findings.append(Finding(action, self.workspace, name, detail))
        self._bench.metrics.sweeper_trees.labels(action=str(action)).inc()
        log.info("sweep_found", action=str(action), workspace_id=self.workspace, tree=name, detail=detail)
