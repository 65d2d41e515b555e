"""The sweeper of one workspace: looks at the log, at the disk and at the log again, and makes the disk agree.

It deletes only what the log calls obsolete. The log intends a tree before its directory exists, so no executor made a
directory that the log does not know when it is asked after the disk. A directory is missing only if the log names it
before and after the look at the disk.
"""

import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from wvs.application.write_path import Origin
from wvs.domain.commands import ReportFound, ReportLost
from wvs.domain.errors import ErrorCode
from wvs.domain.ids import WORKSPACE, format_id
from wvs.domain.values import Certificate, CloneReport
from wvs.engines.errors import EngineError
from wvs.engines.paths import LIVE
from wvs.engines.volume.switching import Stranger
from wvs.engines.volume.volume import Made
from wvs.executor.switching import bring_live, clear_path, note_stranger, states_of
from wvs.executor.workbench import Workbench
from wvs.failpoints import failpoint
from wvs.postgres.queries import sql
from wvs.readmodel.tree_states import OBSOLETE, TreeState

_EXPECTED: Final = sql("trees_expected")
_MADE: Final = sql("snapshot_made")

log = structlog.get_logger(__name__)


class Action(StrEnum):
    """What the sweep does with a directory, or that it only reports it."""

    RETIRED = "retired"
    PURGED = "purged"
    QUARANTINED = "quarantined"
    LOST = "lost"
    FOUND = "found"
    CHANGED = "changed"
    LIVE_MISSING = "live_missing"
    SWITCHED = "switched"
    STUCK = "stuck"
    PATH_REPLACED = "path_replaced"
    UNREADABLE = "unreadable"


_LEVELS: Final = {
    Action.QUARANTINED: logging.WARNING,
    Action.LOST: logging.ERROR,
    Action.FOUND: logging.WARNING,
    Action.CHANGED: logging.ERROR,
    Action.LIVE_MISSING: logging.ERROR,
    Action.PATH_REPLACED: logging.ERROR,
    Action.STUCK: logging.WARNING,
}
"""The level of an action's log line; info for all others, which are the sweeper's daily work."""

DIFFERENCES: Final = {
    Action.RETIRED: "obsolete tree",
    Action.PURGED: "obsolete tree in the trash",
    Action.QUARANTINED: "unknown directory",
    Action.LOST: "the snapshot's directory is missing",
    Action.FOUND: "the directory of a lost snapshot is there again",
    Action.CHANGED: "the directory of a lost snapshot is there again with another content",
    Action.LIVE_MISSING: "the live tree is missing",
    Action.SWITCHED: "the live tree is not at its path",
    Action.STUCK: "a tree in the trash cannot be removed",
    Action.PATH_REPLACED: "something else is in the place of the live tree or of the link to it",
    Action.UNREADABLE: "the workspace cannot be swept",
}
"""What differs between volume and log where the sweeper takes an action."""


class Finding(Struct, frozen=True):
    """One difference between volume and log. `held`: the brake of the volume keeps the sweep from acting on it."""

    action: Action
    workspace: str
    name: str
    detail: str = ""
    snapshot_id: UUID | None = None
    held: bool = False

    @property
    def key(self) -> tuple[Action, str, str]:
        return self.action, self.workspace, self.name


class _Expected(Struct, frozen=True):
    """A directory that the log names; `disabled`: of a workspace whose live tree nobody can use or recreate."""

    state: TreeState
    snapshot_id: UUID | None
    disabled: bool


class _Disk(Struct, frozen=True):
    """What lies in a workspace's directory; all of it is empty without one. `trash`: why each tree stays, if known."""

    trees: list[str] = []
    misnamed: list[str] = []
    trash: dict[str, str] = {}
    whole: set[str] = set()
    standing: str | Stranger | None = None
    exists: bool = False


async def look(bench: Workbench, workspace_id: UUID) -> list[Finding]:
    """The differences between volume and log, which may be work in progress; changes nothing. Raises `EngineError`."""
    workspace = format_id(WORKSPACE, workspace_id)
    before = await _expected(bench, workspace_id)
    disk = await _on_disk(bench, workspace)
    failpoint("sweep.listed")
    after = await _expected(bench, workspace_id)
    states = await states_of(bench, workspace_id, [*disk.trees, *disk.trash])
    named = {name: tree for name, tree in after.items() if before.get(name) == tree}
    return [
        *(Finding(action, workspace, name, detail) for action, name, detail in _present(disk, states)),
        *(_missing(workspace, name, tree) for name, tree in named.items() if _is_missing(name, tree, disk)),
        *(
            Finding(Action.FOUND, workspace, name, snapshot_id=tree.snapshot_id)
            for name, tree in named.items()
            if tree.state is TreeState.LOST and name in disk.whole
        ),
        *(_misplaced(workspace, name, disk) for name, tree in named.items() if _is_misplaced(name, tree, disk)),
    ]


async def tidy_workspace(bench: Workbench, workspace_id: UUID) -> None:
    """Removes what is obsolete and ends a switch; whatever else differs is left to the sweep of the volume.

    The caller checks first that the volume belongs to this log: see `volume_sweep.check_log`.
    """
    for finding in await look(bench, workspace_id):
        if finding.action in (Action.RETIRED, Action.PURGED, Action.STUCK, Action.SWITCHED):
            await settle(bench, workspace_id, finding)


async def report(bench: Workbench, finding: Finding) -> list[Finding]:
    """Logs what differs, and changes nothing. Raises `EngineError`."""
    finding = await _judged(bench, finding)
    log.log(
        _LEVELS.get(finding.action, logging.INFO),
        "volume_differs",
        difference=DIFFERENCES[finding.action],
        workspace_id=finding.workspace,
        tree=finding.name,
        detail=finding.detail,
    )
    return [finding]


async def repair_path(bench: Workbench, workspace_id: UUID, finding: Finding) -> list[Finding]:
    """Moves what stands at the workspace's path to quarantine and makes the path right. Raises `EngineError`.

    Agents may work in it, so that only a person decides this: the periodic sweep leaves it. Returns the finding with
    what was done: where each thing lies now, and whether the live tree is at its path.
    """
    places = await clear_path(bench, finding.workspace)
    moved = f"moved to {' and '.join(places)}" if places else "not there any more"
    try:
        await bring_live(bench, workspace_id)
        result = "the live tree is at its path"
    except EngineError as error:
        result = f"the live tree is not at its path: {error}. {error.hint}"
    return [msgspec.structs.replace(finding, detail=f"{finding.detail}; {moved}; {result}")]


async def settle(bench: Workbench, workspace_id: UUID, finding: Finding) -> list[Finding]:
    """Makes volume and log agree; returns what was done, nothing if it was needed no more. Raises `EngineError`."""
    volume, workspace, name = bench.volume, finding.workspace, finding.name
    finding = await _judged(bench, finding)
    match finding.action:
        case Action.RETIRED:
            _record(bench, finding)
            await bench.run(volume.retire, workspace, name)
            failpoint("sweep.retired")
            purged = Finding(Action.PURGED, workspace, name)
            return [finding, *await settle(bench, workspace_id, purged)]
        case Action.PURGED | Action.STUCK:
            finding = await _purged(bench, workspace_id, finding)
            _record(bench, finding)
            failpoint("sweep.purged")
        case Action.QUARANTINED:
            place = await bench.run(volume.quarantine, workspace, name)
            failpoint("sweep.quarantined")
            finding = msgspec.structs.replace(finding, detail=place)
            _record(bench, finding)
        case Action.LOST | Action.FOUND:
            if not await _reported(bench, workspace_id, finding):
                return []
            _record(bench, finding)
        case Action.SWITCHED:
            if not await bring_live(bench, workspace_id):
                return []
            finding = msgspec.structs.replace(finding, name=LIVE)
            _record(bench, finding)
            failpoint("sweep.switched")
            return [finding, *await _purged_after_switch(bench, workspace_id)]
        case Action.PATH_REPLACED:
            await note_stranger(bench, workspace_id, Stranger(finding.detail))
            _record(bench, finding)
        case Action.CHANGED | Action.LIVE_MISSING:
            _record(bench, finding)
        case Action.UNREADABLE:
            pass  # nothing can be done, and the look at the workspace has logged the failure
    return [finding]


async def _purged_after_switch(bench: Workbench, workspace_id: UUID) -> list[Finding]:
    """Removes what came out of the path: no look of this sweep has seen it in the trash."""
    out = [finding for finding in await look(bench, workspace_id) if finding.action is Action.PURGED]
    return [done for finding in out for done in await settle(bench, workspace_id, finding)]


def _present(disk: _Disk, states: dict[str, TreeState]) -> list[tuple[Action, str, str]]:
    """Directories that should not be there. In the trash lies only what the log knows, so strangers there are left."""
    unknown = [(Action.QUARANTINED, name, "") for name in disk.trees if name not in states or name in disk.misnamed]
    obsolete = [
        (Action.RETIRED, n, str(states[n])) for n in disk.trees if states.get(n) in OBSOLETE and n not in disk.misnamed
    ]
    waiting = [(Action.PURGED, n, "") for n, why in disk.trash.items() if not why and states.get(n) in OBSOLETE]
    return [*unknown, *obsolete, *waiting, *((Action.STUCK, n, why) for n, why in disk.trash.items() if why)]


def _is_missing(name: str, tree: _Expected, disk: _Disk) -> bool:
    """Nobody needs the live tree of a disabled workspace: people delete it by hand to free its space."""
    unneeded = tree.disabled and tree.state is TreeState.LIVE
    return name not in disk.whole and tree.state is not TreeState.LOST and not unneeded


def _misplaced(workspace: str, name: str, disk: _Disk) -> Finding:
    if isinstance(disk.standing, Stranger):
        return Finding(Action.PATH_REPLACED, workspace, name, disk.standing.kind)
    return Finding(Action.SWITCHED, workspace, name)


def _is_misplaced(name: str, tree: _Expected, disk: _Disk) -> bool:
    """A live tree that is nowhere is reported as missing, and no switch can bring it."""
    if not disk.exists or tree.state is not TreeState.LIVE or disk.standing == name:
        return False
    return name in disk.whole or (isinstance(disk.standing, Stranger) and not tree.disabled)


def _missing(workspace: str, name: str, tree: _Expected) -> Finding:
    if tree.state is TreeState.LIVE:
        way_out = "wvsctl current set WORKSPACE SNAPSHOT --reset recreates it"
        return Finding(Action.LIVE_MISSING, workspace, name, way_out)
    return Finding(Action.LOST, workspace, name, snapshot_id=tree.snapshot_id)


async def _expected(bench: Workbench, workspace_id: UUID) -> dict[str, _Expected]:
    async with bench.path.pool.acquire() as connection:
        rows = await connection.fetch(_EXPECTED, workspace_id)
    return {row["name"]: _Expected(TreeState(row["state"]), row["snapshot_id"], row["disabled"]) for row in rows}


async def _on_disk(bench: Workbench, workspace: str) -> _Disk:
    volume = bench.volume
    if not await bench.run(volume.has_workspace, workspace):
        return _Disk()
    return _Disk(
        await bench.run(volume.trees, workspace),
        await bench.run(volume.misnamed, workspace),
        await bench.run(volume.trash_with_reasons, workspace),
        await bench.run(volume.whole_trees, workspace),
        await bench.run(volume.standing, workspace),
        exists=True,
    )


async def _judged(bench: Workbench, finding: Finding) -> Finding:
    """Compares a directory that is there again with the event of its creation: `changed` if it is another tree."""
    if finding.action is not Action.FOUND:
        return finding
    row = await bench.path.pool.fetchrow(_MADE, finding.snapshot_id)
    if row is None:
        raise LookupError(f"the read models have no snapshot {finding.snapshot_id}")
    report = msgspec.json.decode(row["report"], type=CloneReport)
    certificate = msgspec.json.decode(row["certificate"], type=Certificate)
    made = Made(report.files, report.bytes, report.sockets, certificate.stamp_after)
    why = await bench.run(bench.volume.differs, finding.workspace, finding.name, made, bench.tidying)
    if why is None:
        return msgspec.structs.replace(finding, detail="It is what the event of its creation says.")
    return msgspec.structs.replace(finding, action=Action.CHANGED, detail=why)


async def _purged(bench: Workbench, workspace_id: UUID, finding: Finding) -> Finding:
    """Removes a tree from the trash; `stuck` if it resists: that ends no sweep, and a person has to see why.

    A tree of a drop that failed is left to the task.
    """
    if (await states_of(bench, workspace_id, [finding.name])).get(finding.name) not in OBSOLETE:
        return finding
    try:
        await bench.run(bench.volume.purge, finding.workspace, finding.name, bench.tidying)
    except EngineError as error:
        if error.code is not ErrorCode.REMOVE_FAILED:
            raise
        return msgspec.structs.replace(finding, action=Action.STUCK, detail=f"{error.detail}. {error.hint}")
    return msgspec.structs.replace(finding, action=Action.PURGED, detail="")


async def _reported(bench: Workbench, workspace_id: UUID, finding: Finding) -> bool:
    """Appends the event that a snapshot is lost or found; False if its state had changed and no event was needed."""
    if finding.snapshot_id is None:
        raise LookupError(f"the tree {finding.name} belongs to no snapshot")
    if finding.action is Action.FOUND:
        await bench.run(bench.volume.take_back, finding.workspace, finding.name)
        command: ReportFound | ReportLost = ReportFound(finding.snapshot_id, finding.detail)
    else:
        command = ReportLost(finding.snapshot_id, f"The sweeper found no directory {finding.name}.")
    origin = Origin(actor=f"executor:{bench.executor_id}", request_id="sweep")
    committed = await bench.path.execute(workspace_id, command, at=datetime.now(UTC), origin=origin)
    failpoint("sweep.reported")
    return bool(committed.events)


def _record(bench: Workbench, finding: Finding) -> None:
    bench.metrics.sweeper_trees.labels(action=str(finding.action)).inc()
    log.log(
        _LEVELS.get(finding.action, logging.INFO),
        "sweep_found",
        action=str(finding.action),
        workspace_id=finding.workspace,
        tree=finding.name,
        detail=finding.detail,
    )
