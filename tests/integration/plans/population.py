"""Creates rows by the hundred thousand in SQL: one big workspace of a thousand, tasks in every state, a full queue."""

from typing import Final

import psycopg
from msgspec import Struct

BIG: Final = "00000000-0000-7000-8000-000000000001"
LANES: Final = 1000

# These ids sort by their number, as UUIDv7 sort by their time.
_UUID: Final = "(lpad(to_hex({number}), 12, '0') || '-7000-8000-' || lpad(to_hex({number}), 12, '0'))"
_ID: Final = f"(substr({_UUID}, 1, 8) || '-' || substr({_UUID}, 9))::uuid"


class Size(Struct, frozen=True):
    """The number of rows. The big workspace has half of the tasks, all snapshots and half of the events."""

    tasks: int
    snapshots: int

    @property
    def workspaces(self) -> int:
        return self.tasks // 10

    @property
    def events(self) -> int:
        return self.tasks // 4


def uuid_of(number: int) -> str:
    """The id of the row with this number."""
    digits = f"{number:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-{digits}"


def populate(url: str, size: Size) -> None:
    """Fills an empty, migrated database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        for statement in _statements(size):
            connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE")


def _id(number: str) -> str:
    return _ID.format(number=number)


def _statements(size: Size) -> list[str]:
    some_workspace = f"CASE WHEN n % 2 = 0 THEN '{BIG}'::uuid ELSE {_id(f'(n % {LANES}) + 2')} END"
    return [
        f"""INSERT INTO wvs.workspaces (id, name, state, labels, epoch, created_at)
        SELECT {_id("n")}, CASE WHEN n % 3 = 0 THEN 'again' ELSE 'w' || n END,
               CASE WHEN n % 3 = 0 THEN 'disabled' WHEN n % 100 = 1 THEN 'init_failed' ELSE 'active' END,
               '{{"team": "a"}}', 1, now()
        FROM generate_series(1, {size.workspaces}) n""",
        f"""INSERT INTO wvs.tasks
            (id, workspace_id, snapshot_id, kind, state, noop, cancel_requested, attempt, max_attempts, created_at)
        SELECT {_id("n")}, {some_workspace}, {_id(f"n % {size.snapshots} + 1")},
               (ARRAY['snapshot_create', 'snapshot_drop', 'snapshot_create', 'current_set'])[n / 2 % 4 + 1],
               CASE WHEN n > {size.tasks} * 0.9 THEN CASE WHEN n % 97 = 0 THEN 'running' ELSE 'queued' END
                    ELSE (ARRAY['succeeded', 'succeeded', 'succeeded', 'failed', 'cancelled'])[n / 8 % 5 + 1] END,
               false, false, 1, 4, now()
        FROM generate_series(1, {size.tasks}) n""",
        f"""UPDATE wvs.tasks SET kind = 'workspace_init'
        WHERE id IN (SELECT {_id("n * 10")} FROM generate_series(1, {size.workspaces}) n)""",
        f"""INSERT INTO wvs.snapshots (id, workspace_id, state, message, labels, created_at, deleted_at)
        SELECT {_id("n")}, '{BIG}', CASE WHEN n % 4 = 0 THEN 'dropped' WHEN n % 50 = 1 THEN 'failed' ELSE 'ready' END,
               'message ' || n, jsonb_build_object('run', (n % 100)::text, 'kind', 'nightly'), now(),
               CASE WHEN n % 4 = 0 THEN now() END
        FROM generate_series(1, {size.snapshots}) n""",
        f"""INSERT INTO wvs.snapshots (id, workspace_id, state, labels, created_at)
        SELECT {_id("n")}, {_id(f"(n % {LANES}) + 2")}, 'ready', '{{}}', now()
        FROM generate_series({size.snapshots} + 1, {size.snapshots} * 3 / 2) n""",
        """INSERT INTO wvs.snapshot_labels
        SELECT s.workspace_id, l.key || '=' || l.value, s.id FROM wvs.snapshots s, jsonb_each_text(s.labels) l""",
        f"""INSERT INTO wvs.lanes (workspace_id, ready_at)
        SELECT {_id("n + 1")}, now() - n * interval '1 second' FROM generate_series(1, {LANES}) n""",
        f"""INSERT INTO wvs.queue (task_id, workspace_id, seq, kind)
        SELECT {_id("n")}, {_id(f"(n % {LANES}) + 2")}, n, 'snapshot_create' FROM generate_series(1, {size.tasks}) n""",
        f"""INSERT INTO wvs.events
            (originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id, task_id,
             snapshot_id)
        SELECT {some_workspace}, CASE WHEN n % 2 = 0 THEN n / 2 ELSE n END,
               CASE WHEN n % 5000 = 2 THEN 'workspace.initialized.v1'
                    ELSE (ARRAY['snapshot.requested.v1', 'task.started.v1', 'snapshot.created.v1', 'current.set.v1'])
                         [n / 2 % 4 + 1] END, '{{}}',
               decode(repeat('00', 32), 'hex'), timestamptz '2026-01-01' + n * interval '1 second',
               CASE WHEN n % 1000 = 6 THEN 'rare' ELSE 'a' END, 'r', {_id("n / 4")}, {_id("n / 8")}
        FROM generate_series(1, {size.events}) n""",
        """INSERT INTO wvs.streams
        SELECT originator_id, max(originator_version), decode(repeat('00', 32), 'hex')
        FROM wvs.events GROUP BY originator_id""",
        f"""INSERT INTO wvs.idempotency_keys
            (scope, key, fingerprint, status, answer, workspace_id, task_id, created_at)
        SELECT 'anonymous createSnapshot', 'k' || n, '', 202, '{{}}', '{BIG}', {_id("n")},
               now() - (n % 172800) * interval '1 second'
        FROM generate_series(1, {size.tasks} / 10) n""",
    ]
