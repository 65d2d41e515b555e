import asyncio
import gc
import itertools
import time
import uuid

import msgspec
import pytest
from rpds import HashTrieMap

from tests.unit.domain.story import NOW, Story
from wvs.domain.commands import CreateWorkspace
from wvs.domain.states import SnapshotState, TaskState, WorkspaceState
from wvs.domain.workspace import SCHEMA_VERSION, Snapshot, Task, Workspace
from wvs.eventlog.mementos import MEMENTO_EVERY, DamagedMementoError, decode_memento, encode_memento, memento_due

SHAPES = {
    1: (
        "Workspace id version state current epoch live_tree fence init_task queued running movers "
        "snapshots tasks ended, "
        "Snapshot id state tree before_drop tasks, "
        "Task id kind state snapshot_id attempt fence tree reset touched cancel_requested"
    ),
    2: (
        "Workspace id version state current epoch live_tree fence init_task queued running movers "
        "snapshots tasks ended, "
        "Snapshot id state tree before_drop tasks, "
        "Task id kind state snapshot_id attempt fence tree reset touched cancel_requested volume_away_since"
    ),
}
"""The content of a memento of each schema. A change of the state's fields raises SCHEMA_VERSION and adds a line."""


def large(snapshots: int) -> Workspace:
    made = [Snapshot(uuid.uuid4(), SnapshotState.READY, f"{uuid.uuid4()}.1") for _ in range(snapshots)]
    ended = HashTrieMap((uuid.uuid4(), TaskState.SUCCEEDED) for _ in range(snapshots))
    return Workspace(
        uuid.uuid4(), 3 * snapshots, WorkspaceState.ACTIVE, snapshots=HashTrieMap((s.id, s) for s in made), ended=ended
    )


def busy() -> Workspace:
    """A workspace with a value in every field that a new one can have."""
    story = Story()
    story.do(CreateWorkspace("one", {}, story.new_id()))
    return msgspec.structs.replace(
        large(3),
        tasks=HashTrieMap(
            (key, msgspec.structs.replace(task, volume_away_since=NOW)) for key, task in story.workspace.tasks.items()
        ),
        queued=story.workspace.queued,
        movers=(uuid.uuid4(), uuid.uuid4()),
        current=uuid.uuid4(),
        live_tree="t.1",
        running=uuid.uuid4(),
        init_task=uuid.uuid4(),
    )


@pytest.mark.parametrize("workspace", [large(0), large(2500), busy()], ids=["empty", "many slices", "busy"])
async def test_a_memento_reads_back_as_the_state(workspace: Workspace) -> None:
    assert await decode_memento(await encode_memento(workspace)) == workspace


async def test_a_memento_with_any_byte_changed_or_cut_off_is_refused() -> None:
    whole = await encode_memento(busy())
    for n in range(len(whole)):
        with pytest.raises(DamagedMementoError):
            await decode_memento(whole[:n] + bytes([whole[n] ^ 0x20]) + whole[n + 1 :])
        with pytest.raises(DamagedMementoError):
            await decode_memento(whole[:n])


def test_the_schema_version_changes_with_the_fields_of_the_state() -> None:
    shape = ", ".join(" ".join([t.__name__, *t.__struct_fields__]) for t in (Workspace, Snapshot, Task))
    assert SHAPES[SCHEMA_VERSION] == shape
    assert max(SHAPES) == SCHEMA_VERSION


async def test_the_event_loop_keeps_running_while_a_memento_is_encoded_and_decoded() -> None:
    workspace = large(20_000)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            # CPU time of this process, so that other processes on the machine do not count
            before = time.process_time()
            await asyncio.sleep(0)
            longest = max(longest, time.process_time() - before)

    gc.disable()  # a collection would stop both
    try:
        watcher = asyncio.create_task(watch())
        before = time.process_time()
        await decode_memento(await encode_memento(workspace))
        whole = time.process_time() - before
        watcher.cancel()
    finally:
        gc.enable()
    assert longest < whole / 4


def test_mementos_come_every_500_events_at_first() -> None:
    due = [version for version in range(1, 8_001) if memento_due(version - 1, version)]
    assert due == list(range(MEMENTO_EVERY, 8_001, MEMENTO_EVERY))
    assert memento_due(498, 501)


def test_larger_mementos_come_less_often_but_leave_at_most_an_eighth_to_replay() -> None:
    due = [0, *(version for version in range(1, 400_001) if memento_due(version - 1, version))]
    gaps = [(after - before, before) for before, after in itertools.pairwise(due)]
    assert all(gap <= max(MEMENTO_EVERY, before / 8) for gap, before in gaps)
    written = sum(due)  # a memento's size is in proportion to the version
    assert written < 32 * due[-1]
