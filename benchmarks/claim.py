"""How long a claim takes with a million queued tasks, in three shapes of queue.

    python -m benchmarks.claim [--tasks 1000000] [--claims 500]

The benchmark claims as an executor does: `wvs.claim_task` on a connection of its own, with its bounded scan. The aim is
a median of at most 2 ms. For comparison it runs the tempting query without lanes, which looks for tasks without an
earlier task in their workspace.
"""

import argparse
import time

import psycopg
import uvloop

from benchmarks.platform import database, percentile, scratch
from wvs.postgres.pool import connect
from wvs.queue.lanes import LaneCursor, claim

_TASK = "(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000')::uuid"
_WORKSPACE = "(lpad(to_hex({number}), 8, '0') || '-0000-7000-9000-000000000000')::uuid"

_PATIENCE_S = 10

_NAIVE = """SELECT q.task_id FROM wvs.queue q
WHERE q.state = 'queued' AND NOT EXISTS (
    SELECT FROM wvs.queue e WHERE e.workspace_id = q.workspace_id AND e.seq < q.seq)
ORDER BY q.run_at LIMIT 1 FOR UPDATE SKIP LOCKED"""


def fill(url: str, tasks: int, workspace_of: str) -> int:
    """Queues `tasks` tasks; the SQL expression over `n` names the workspace of each. Returns the number of lanes."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "TRUNCATE wvs.queue, wvs.lanes",
            f"""INSERT INTO wvs.queue (task_id, workspace_id, seq, kind)
            SELECT {_TASK}, {_WORKSPACE.format(number=workspace_of)}, n, 'snapshot_create'
            FROM generate_series(1, {tasks}) n""",
            """INSERT INTO wvs.lanes (workspace_id, ready_at)
            SELECT workspace_id, now() - random() * interval '1 hour' FROM wvs.queue GROUP BY workspace_id""",
            "VACUUM ANALYZE wvs.queue, wvs.lanes",
        ):
            connection.execute(statement.encode())
        row = connection.execute("SELECT count(*) FROM wvs.lanes").fetchone()
    return 0 if row is None else row[0]


async def claims(url: str, count: int) -> list[float]:
    """Milliseconds of each claim; every lane that is claimed stays claimed, as under running tasks."""
    connection = await connect(url, application_name="wvs-bench")
    cursor = LaneCursor()
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        claimed = await claim(connection, "bench", 30.0, cursor)
        times.append((time.perf_counter() - began) * 1e3)
        if claimed is None:
            raise RuntimeError("nothing was claimed, although a task is ready")
    await connection.close()
    return times


def naive(url: str) -> str:
    """Milliseconds of one claim by the query without lanes, cancelled after ten seconds."""
    with psycopg.connect(url) as connection:
        connection.execute(f"SET statement_timeout = '{_PATIENCE_S}s'".encode())
        began = time.perf_counter()
        try:
            connection.execute(_NAIVE.encode()).fetchall()
        except psycopg.errors.QueryCanceled:
            return f"more than {_PATIENCE_S * 1000}"
        return f"{(time.perf_counter() - began) * 1e3:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--claims", type=int, default=500)
    options = parser.parse_args()
    shapes = {
        "100,000 workspaces alike": "n % 100000",
        "1,000 workspaces alike": "n % 1000",
        "one with all but 1,000": f"CASE WHEN n > {options.tasks - 1_000} THEN n ELSE 0 END",
    }
    with scratch() as directory, database(directory) as url:
        print(f"{options.tasks:,} queued tasks; milliseconds a claim (aim: median at most 2)")
        for name, workspace_of in shapes.items():
            lanes = fill(url, options.tasks, workspace_of)
            times = uvloop.run(claims(url, min(options.claims, lanes)))
            print(
                f"{name:26} p50 {percentile(times, 50):6.2f}   p99 {percentile(times, 99):6.2f}   "
                f"without lanes {naive(url)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
