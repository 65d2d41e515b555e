"""A workspace of a development version: its first event is `workspace.created.v1`, and it has a memento."""

import uuid
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from eventsourcing.persistence import StoredEvent

from wvs.application.write_path import Origin, WritePath
from wvs.domain.commands import CreateWorkspace
from wvs.domain.ids import TASK, WORKSPACE, format_id, parse_id
from wvs.eventlog.aggregates import put_memento
from wvs.eventlog.codec import EventMapper
from wvs.postgres.pool import create_pool
from wvs.telemetry.metrics import Metrics


class _FirstMapper(EventMapper):
    """Stores the creation of a workspace in its first shape; the hash chain covers these bytes."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        stored = super().to_stored_event(domain_event)
        body = msgspec.json.decode(stored.state, type=dict[str, dict[str, Any]])
        event = body["event"]
        if event.pop("type") != "workspace.created.v2":
            return stored
        del event["tenant"], event["volume_id"]
        topic = "workspace.created.v1"
        state = msgspec.json.encode({**body, "event": {"type": topic, **event}})
        originator = cast("uuid.UUID", stored.originator_id)
        return StoredEvent(originator, stored.originator_version, topic, state)


async def create_veteran(url: str, name: str) -> dict[str, Any]:
    """Creates the workspace as the API of that time did; returns the ids as an answer has them."""
    workspace_id, task_id = uuid.uuid4(), uuid.uuid4()
    pool = await create_pool(url, application_name="release fixture", size=1)
    try:
        path = WritePath(pool, _FirstMapper(), Metrics())
        origin = Origin("cli:first", "release-request-first")
        command = CreateWorkspace(name, {"team": "größer"}, task_id)
        await path.execute(workspace_id, command, at=datetime.now(UTC), origin=origin)
        await path.close()
    finally:
        await pool.close()
    return {"workspace": {"id": format_id(WORKSPACE, workspace_id)}, "task": {"id": format_id(TASK, task_id)}}


async def store_memento(url: str, workspace: str) -> None:
    """Stores a memento as a long-lived workspace gets it (after 500 events, too many for a small fixture)."""
    workspace_id = parse_id(WORKSPACE, workspace)
    pool = await create_pool(url, application_name="release fixture", size=1)
    try:
        path = WritePath(pool, EventMapper(), Metrics())
        await path.load(workspace_id)
        memento = await path.aggregates.memento(workspace_id)
        if memento is None:
            raise RuntimeError(f"{workspace} has no state to keep")
        async with pool.acquire() as connection:
            await put_memento(connection, workspace_id, memento)
    finally:
        await pool.close()
