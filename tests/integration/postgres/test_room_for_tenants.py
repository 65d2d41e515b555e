"""The migration that adds a workspace's tenant and volume: old rows, commands of the previous release, the rollback."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from wvs.postgres.migrate import migrate
from wvs.postgres.pool import Connection, connect
from wvs.postgres.sources import database_files

MIGRATION: Final = "20261129000100_tenant_and_volume.sql"
SCHEMA: Final = """
SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
FROM information_schema.columns WHERE table_schema = 'wvs'
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'wvs'
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'wvs'::regnamespace
"""


def migrations_until(directory: Path, last: str) -> Path:
    """The migrations up to `last`, in a directory of their own."""
    directory.mkdir(exist_ok=True)
    for file in database_files("migrations").glob("*.sql"):
        if file.name <= last:
            shutil.copy(file, directory)
    return directory


def before_this_migration(directory: Path) -> Path:
    (migrations_until(directory, MIGRATION) / MIGRATION).unlink()
    return directory


def row_of_the_release_before(name: str, state: str = "active") -> dict[str, Any]:
    """A row as the projector of that release makes it for `wvs.apply_changes`."""
    return {
        "id": str(uuid.uuid4()),
        "name": name,
        "state": state,
        "labels": {},
        "current_snapshot_id": None,
        "live_tree": None,
        "epoch": 0,
        "error": None,
        "created_at": "2026-11-23T19:33:07Z",
        "disabled_at": None,
    }


async def apply(connection: Connection, **changes: list[dict[str, Any]]) -> None:
    await connection.execute("SELECT wvs.apply_changes($1::text::jsonb)", json.dumps(changes))


async def places(connection: Connection) -> list[tuple[str, str, uuid.UUID | None]]:
    rows = await connection.fetch("SELECT name, tenant, volume_id FROM wvs.workspaces ORDER BY name")
    return [(row["name"], row["tenant"], row["volume_id"]) for row in rows]


async def test_rows_from_before_belong_to_the_default_tenant_and_no_known_volume(
    empty_database_url: str, tmp_path: Path
) -> None:
    await migrate(empty_database_url, directory=before_this_migration(tmp_path / "before"))
    connection = await connect(empty_database_url, application_name="wvs test")
    try:
        await apply(connection, workspaces_insert=[row_of_the_release_before("a")])
        await migrate(empty_database_url, directory=migrations_until(tmp_path / "after", MIGRATION))
        assert await places(connection) == [("a", "default", None)]
    finally:
        await connection.close()


async def test_commands_of_the_previous_release_work_after_the_migration(database_url: str) -> None:
    connection = await connect(database_url, application_name="wvs test")
    try:
        row = row_of_the_release_before("a", "initializing")
        await apply(connection, workspaces_insert=[row])
        assert await places(connection) == [("a", "default", None)]
        volume_id = uuid.uuid4()
        await connection.execute("UPDATE wvs.workspaces SET tenant = 'other', volume_id = $1", volume_id)
        await apply(connection, workspaces_update=[{"id": row["id"], "state": "active", "epoch": 1}])
        assert await places(connection) == [("a", "other", volume_id)]
    finally:
        await connection.close()


async def test_a_name_is_unique_among_the_live_workspaces_of_one_tenant(database_url: str) -> None:
    connection = await connect(database_url, application_name="wvs test")
    try:
        first, elsewhere, disabled = (row_of_the_release_before("a") for _ in range(3))
        rows = [first, {**elsewhere, "tenant": "other"}, {**disabled, "state": "disabled"}]
        await apply(connection, workspaces_insert=rows)
        for tenant in ({}, {"tenant": "default"}, {"tenant": "other"}):
            with pytest.raises(asyncpg.UniqueViolationError) as raised:
                await apply(connection, workspaces_insert=[{**row_of_the_release_before("a"), **tenant}])
            assert raised.value.constraint_name == "workspaces_name_key"
    finally:
        await connection.close()


async def test_the_rollback_leaves_the_schema_as_it_was(empty_database_url: str, tmp_path: Path) -> None:
    await migrate(empty_database_url, directory=before_this_migration(tmp_path / "before"))
    connection = await connect(empty_database_url, application_name="wvs test")
    try:
        before = sorted(row[0] for row in await connection.fetch(SCHEMA))
        await migrate(empty_database_url, directory=migrations_until(tmp_path / "after", MIGRATION))
        await apply(connection, workspaces_insert=[row_of_the_release_before("a")])
        assert sorted(row[0] for row in await connection.fetch(SCHEMA)) != before
        _, down = (database_files("migrations") / MIGRATION).read_text().split("-- migrate:down")
        await connection.execute(down)
        assert sorted(row[0] for row in await connection.fetch(SCHEMA)) == before
        assert await connection.fetchval("SELECT name FROM wvs.workspaces") == "a"
    finally:
        await connection.close()
