"""A verification names every row that differs from the log, and only those."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from tests.integration.eventlog.commanding import snapshot, write_path
from tests.integration.projections.past import Past, lively_past

from wvs.eventlog.codec import EventMapper
from wvs.postgres.pool import Pool
from wvs.projections import verify as verification
from wvs.projections.verify import Verified, verify


def silent(_phase: str, _reached: int, _end: int) -> None:
    pass


@pytest.fixture
async def past(pool: Pool) -> AsyncIterator[Past]:
    path = write_path(pool)
    yield await lively_past(path, "one")
    await path.close()


async def verified(url: str) -> Verified:
    return await verify(url, EventMapper(), silent)


async def test_untouched_rows_are_equal_and_counted(pool: Pool, database_url: str, past: Past) -> None:
    found = await verified(database_url)
    assert found.equal
    assert found.differences == []
    assert found.rows["workspaces"] == 3
    assert found.rows["snapshots"] == 8
    assert found.events == await pool.fetchval("SELECT count(*) FROM wvs.events")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("workspaces", "epoch", "7"),
        ("workspaces", "labels", '\'{"team": "b"}\''),
        ("snapshots", "ready_at", "ready_at + interval '1 microsecond'"),
        ("snapshots", "certificate", "jsonb_set(certificate, '{stamp_after}', '\"other\"')"),
        ("snapshots", "message", "''"),
        ("tasks", "attempt", "attempt + 1"),
        ("trees", "snapshot_id", "gen_random_uuid()"),
    ],
)
async def test_a_changed_value_is_named_with_both_sides(
    pool: Pool, database_url: str, past: Past, table: str, column: str, value: str
) -> None:
    state = "ready" if table == "snapshots" else None
    where = f"state = '{state}'" if state else "true"
    changed = await pool.execute(
        f"UPDATE wvs.{table} SET {column} = {value} WHERE ctid = (SELECT ctid FROM wvs.{table} WHERE {where} LIMIT 1)"
    )
    assert changed == "UPDATE 1"
    (difference,) = (await verified(database_url)).differences
    assert difference.table == table
    assert difference.live is not None
    assert difference.log is not None
    assert difference.live.keys() == difference.log.keys() == {column}
    assert difference.live[column] != difference.log[column]


async def test_a_missing_row_and_a_row_without_events_are_named(pool: Pool, database_url: str, past: Past) -> None:
    gone = await pool.fetchval("DELETE FROM wvs.tasks WHERE ctid = (SELECT min(ctid) FROM wvs.tasks) RETURNING id")
    await pool.execute("INSERT INTO wvs.snapshot_labels VALUES ($1, 'made=up', gen_random_uuid())", past.workspace_id)
    found = await verified(database_url)
    assert found.differing["tasks"] == found.differing["snapshot_labels"] == 1
    missing = next(d for d in found.differences if d.table == "tasks")
    assert missing.live is None
    assert missing.key == {"id": str(gone)}
    strange = next(d for d in found.differences if d.table == "snapshot_labels")
    assert strange.log is None
    assert strange.key["label"] == "made=up"


async def test_all_differing_rows_are_counted_although_only_some_are_named(
    pool: Pool, database_url: str, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "MAX_DIFFERENCES", 2)
    tasks = await pool.fetchval("SELECT count(*) FROM wvs.tasks")
    await pool.execute("UPDATE wvs.tasks SET max_attempts = 99")
    found = await verified(database_url)
    assert found.differing["tasks"] == tasks > 2
    assert len(found.differences) == 2


async def test_commands_continue_during_a_verification(pool: Pool, database_url: str, past: Past) -> None:
    """Log and rows are from one database snapshot: neither has what is committed later."""
    asked = asyncio.Event()

    async def write() -> None:
        while not asked.is_set():
            await past.ready_snapshot()

    writing = asyncio.create_task(write())
    try:
        for _ in range(5):
            assert (await verified(database_url)).differences == []
    finally:
        asked.set()
        await writing


async def test_the_program_exits_1_and_names_the_row(pool: Pool, database_url: str, past: Past) -> None:
    assert await program(database_url) == (0, "equal: ")
    await pool.execute("UPDATE wvs.workspaces SET epoch = 9 WHERE id = $1", past.workspace_id)
    code, output = await program(database_url)
    assert code == 1
    assert output.startswith(f"workspaces {past.workspace_id}: epoch is 9, but 2 in the log")
    code, output = await program(database_url, "--json")
    assert code == 1
    document = json.loads(output)
    assert document["equal"] is False
    assert document["differing"] == {**dict.fromkeys(document["rows"], 0), "workspaces": 1}
    assert document["differences"][0]["log"] == {"epoch": 2}


async def program(url: str, *options: str) -> tuple[int, str]:
    """Exit code and output of `wvs projections verify`; of the output `equal: …` only the first word."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "wvs.cli.wvs", "projections", "verify", *options],
        env={"PATH": "/usr/bin:/bin", "WVS_DATABASE_URL": url, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return ended.returncode, ended.stdout[:7] if ended.stdout.startswith("equal") else ended.stdout


async def test_a_requested_snapshot_is_in_the_rows_before_it_is_created(database_url: str, past: Past) -> None:
    await snapshot(past.path, past.workspace_id)
    assert (await verified(database_url)).equal
