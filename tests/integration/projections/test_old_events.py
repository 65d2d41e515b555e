"""Every reader makes the same rows from events of the first release and from present ones."""

import uuid
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from tests.integration.eventlog.commanding import ORIGIN, activated, now, snapshot, write_path
from tests.integration.projections.past import lively_past

from wvs.application.write_path import WritePath
from wvs.domain.commands import CreateWorkspace
from wvs.eventlog.codec import EventMapper, RecordedEvent, StoredEvent
from wvs.eventlog.reading.filtered_log import EventFilter, read_filtered
from wvs.postgres.pool import Pool, acquire
from wvs.projections.history import History
from wvs.projections.rebuild import rebuild
from wvs.projections.verify import verify

OLD, NEW = "workspace.created.v1", "workspace.created.v2"


class FirstRelease(EventMapper):
    """Stores a created workspace as the first release did."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        stored = super().to_stored_event(domain_event)
        if stored.topic != NEW:
            return stored
        body = msgspec.json.decode(stored.state)
        event = {name: body["event"][name] for name in ("name", "labels", "task_id")}
        state = msgspec.json.encode({"event": {"type": OLD, **event}, "metadata": body["metadata"]})
        return StoredEvent(stored.originator_id, stored.originator_version, OLD, state)


def silent(_phase: str, _reached: int, _end: int) -> None:
    pass


async def places(pool: Pool) -> dict[UUID, tuple[str, UUID | None]]:
    rows = await pool.fetch("SELECT id, tenant, volume_id FROM wvs.workspaces")
    return {row["id"]: (row["tenant"], row["volume_id"]) for row in rows}


@pytest.fixture
async def old(pool: Pool) -> AsyncIterator[WritePath]:
    path = write_path(pool, FirstRelease())
    yield path
    await path.close()


@pytest.fixture
async def path(pool: Pool) -> AsyncIterator[WritePath]:
    path = write_path(pool)
    yield path
    await path.close()


async def test_a_workspace_of_the_first_release_is_loaded_and_changed(pool: Pool, old: WritePath, path: WritePath):
    workspace_id = await activated(old, "old")
    assert await pool.fetchval("SELECT topic FROM wvs.events ORDER BY notification_id LIMIT 1") == OLD
    assert await path.load(workspace_id) == await old.load(workspace_id)
    assert (await snapshot(path, workspace_id)).status == 202


async def test_a_rebuild_and_a_verification_agree_on_old_and_new_events(
    pool: Pool, database_url: str, old: WritePath, path: WritePath
):
    await lively_past(old, "old")
    await lively_past(path, "new")
    placed, volume_id = uuid.uuid4(), uuid.uuid4()
    command = CreateWorkspace("placed", {}, uuid.uuid4(), tenant="other", volume_id=volume_id)
    await path.execute(placed, command, at=now(), origin=ORIGIN)
    topics = await pool.fetch("SELECT topic, count(*) FROM wvs.events WHERE topic IN ($1, $2) GROUP BY 1", OLD, NEW)
    assert dict(map(tuple, topics)) == {OLD: 3, NEW: 4}
    before = await places(pool)
    assert before.pop(placed) == ("other", volume_id)
    assert set(before.values()) == {("default", None)}
    assert (await verify(database_url, EventMapper(), silent)).equal
    await pool.execute("UPDATE wvs.workspaces SET tenant = 'forged'")
    assert (await verify(database_url, EventMapper(), silent)).differing["workspaces"] == 7
    await rebuild(database_url, EventMapper(), silent)
    assert await places(pool) == {**before, placed: ("other", volume_id)}
    assert (await verify(database_url, EventMapper(), silent)).equal


async def test_the_history_of_a_workspace_begins_with_its_old_event(pool: Pool, old: WritePath):
    workspace_id = await activated(old, "old")
    async with acquire(pool) as connection:
        history = History(connection, EventMapper(), workspace_id)
        assert [(await history.workspace(version)).state for version in (1, 3)] == ["initializing", "active"]
        assert len((await history.tasks(3, 4, 10)).rows) == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("actor", [None, ORIGIN.actor])
async def test_a_filter_by_type_finds_the_events_that_were_stored_under_an_older_name(
    pool: Pool, old: WritePath, path: WritePath, actor: str | None, limit: int
):
    created = [await activated(writer, f"ws-{n}") for n, writer in enumerate([old, path, path, old, old, path])]
    wanted = EventFilter(topic=NEW, actor=actor)
    found: list[UUID] = []
    after: int | None = 0
    async with acquire(pool) as connection:
        while after is not None:
            page = await read_filtered(connection, wanted, after, limit)
            assert len(page.rows) <= limit
            found += [workspace_id for _, workspace_id, *_ in page.rows]
            after = page.walked_to
        one = await read_filtered(connection, EventFilter(workspace_id=created[0], topic=NEW), 0, limit)
    assert found == created
    assert [row[3] for row in one.rows] == [OLD]


async def test_every_reader_of_the_log_shows_the_present_version_of_the_event(pool: Pool, old: WritePath):
    await activated(old, "old")
    (row,) = await pool.fetch(
        "SELECT originator_id, originator_version, topic, state FROM wvs.events WHERE topic = $1", OLD
    )
    recorded = cast("RecordedEvent", EventMapper().to_domain_event(StoredEvent(*row)))
    assert msgspec.to_builtins(recorded.event) | {"task_id": None} == {
        "type": NEW,
        "name": "old",
        "labels": {"team": "a"},
        "task_id": None,
        "tenant": "default",
        "volume_id": None,
    }
