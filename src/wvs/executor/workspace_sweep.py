"""The sweeper: makes the volume what the log says, without ever deleting what the log does not know to be obsolete.

The disk is listed first and the log is asked afterwards: a tree is intended in the log before its directory exists, so
a directory without a row was made by nobody of ours. It is moved aside and reported.
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
from wvs.engines.volume.names import is_tree_name
from wvs.executor.links import move_link
from wvs.executor.workbench import Workbench
from wvs.failpoints import failpoint
from wvs.postgres.queries import sql
from wvs.readmodel.tree_states import TreeState

OBSOLETE: Final = frozenset({TreeState.ABANDONED, TreeState.RETIRED, TreeState.REMOVED})
"""What may be removed; everything else is kept."""

_NAMED: Final = sql("trees_named")
_EXPECTED: Final = sql("trees_expected")

log = structlog.get_logger(__name__)


class Action(StrEnum):
    """What was done with a directory, or found about one."""

    RETIRED = "retired"
    PURGED = "purged"
    QUARANTINED = "quarantined"
    LOST = "lost"
    LIVE_MISSING = "live_missing"
    LINKED = "linked"
    UNREADABLE = "unreadable"


class Finding(Struct, frozen=True):
    """One thing that the sweep changed or found."""

    action: Action
    workspace: str
    name: str
    detail: str = ""


async def sweep_workspace(bench: Workbench, workspace_id: UUID, *, repair: bool = True) -> list[Finding]:
    """Sweeps one workspace; with `repair=False` it only tells what it would do. Raises `EngineError`.

    Only for a volume that this database is the log of: see `sweeping.check_not_restored`.
    """
    sweep = _Sweep(bench, workspace_id, repair=repair)
    if sweep.workspace not in await bench.run(bench.volume.workspaces):
        await sweep.missing(nothing_there=True)
        return sweep.findings
    await sweep.trees()
    await sweep.trash()
    await sweep.missing()
    await sweep.link()
    return sweep.findings


class _Sweep:
    def __init__(self, bench: Workbench, workspace_id: UUID, *, repair: bool) -> None:
        self._bench = bench
        self._workspace_id = workspace_id
        self.workspace = format_id(WORKSPACE, workspace_id)
        self._repair = repair
        self.findings: list[Finding] = []

    async def trees(self) -> None:
        """Obsolete trees go to the trash, strangers into quarantine."""
        listed = await self._bench.run(self._bench.volume.trees, self.workspace)
        failpoint("sweep.listed")
        states = await self._states(listed)
        for name in listed:
            state = states.get(name)
            if state is None:
                await self._quarantine(name)
            elif state in OBSOLETE:
                self._found(Action.RETIRED, name, str(state))
                if self._repair:
                    await self._bench.run(self._bench.volume.retire, self.workspace, name)
                    failpoint("sweep.retired")

    async def trash(self) -> None:
        """Removes what lies in the trash, as far as the log knows it to be obsolete or about to be dropped."""
        for name in filter(is_tree_name, await self._bench.run(self._bench.volume.trash, self.workspace)):
            state = (await self._states([name])).get(name)
            if state in OBSOLETE:
                self._found(Action.PURGED, name)
                if self._repair:
                    await self._bench.run(self._bench.volume.purge, self.workspace, name, self._bench.tidying)
                    failpoint("sweep.purged")

    async def missing(self, *, nothing_there: bool = False) -> None:
        """A ready snapshot without its directory is lost; a live tree without one can be made afresh by a reset."""
        async with self._bench.path.pool.acquire() as connection:
            expected = await connection.fetch(_EXPECTED, self._workspace_id)
        whole: set[str] = (
            set() if nothing_there else await self._bench.run(self._bench.volume.whole_trees, self.workspace)
        )
        for name, state, snapshot_id in expected:
            if name in whole:
                continue
            if state == TreeState.LIVE:
                await self._live_missing(name)
            else:
                await self._lost(name, snapshot_id)

    async def link(self) -> None:
        """The link is what Postgres says."""
        if not self._repair:
            workspace = await self._bench.path.load(self._workspace_id)
            wanted = None if workspace is None else workspace.live_tree
            if wanted is not None and await self._bench.run(self._bench.volume.linked_tree, self.workspace) != wanted:
                self._found(Action.LINKED, wanted)
        elif await move_link(self._bench, self._workspace_id):
            self._found(Action.LINKED, CURRENT)
            failpoint("sweep.linked")

    async def _states(self, names: list[str]) -> dict[str, TreeState]:
        async with self._bench.path.pool.acquire() as connection:
            rows = await connection.fetch(_NAMED, self._workspace_id, [n for n in names if is_tree_name(n)])
        return {row["name"]: TreeState(row["state"]) for row in rows}

    async def _quarantine(self, name: str) -> None:
        place = ""
        if self._repair:
            place = await self._bench.run(self._bench.volume.quarantine, self.workspace, name)
            failpoint("sweep.quarantined")
        self._found(Action.QUARANTINED, name, place)

    async def _lost(self, name: str, snapshot_id: UUID) -> None:
        self._found(Action.LOST, name)
        if self._repair:
            detail = f"The sweeper found no directory {name}."
            origin = Origin(actor=f"executor:{self._bench.executor_id}", request_id="sweep")
            command = ReportLost(snapshot_id, detail)
            await self._bench.path.execute(self._workspace_id, command, at=datetime.now(UTC), origin=origin)
            failpoint("sweep.reported")

    async def _live_missing(self, name: str) -> None:
        """Asked again after the disk was read: the live tree may have been replaced in between."""
        workspace = await self._bench.path.load(self._workspace_id)
        if workspace is not None and workspace.live_tree == name:
            self._found(Action.LIVE_MISSING, name, "wvsctl current set WORKSPACE SNAPSHOT --reset makes it afresh")

    def _found(self, action: Action, name: str, detail: str = "") -> None:
        self.findings.append(Finding(action, self.workspace, name, detail))
        self._bench.metrics.sweeper_trees.labels(action=str(action)).inc()
        log.info("sweep_found", action=str(action), workspace_id=self.workspace, tree=name, detail=detail)
