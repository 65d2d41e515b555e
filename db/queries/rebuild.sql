-- name: fresh_columns
-- The columns of the tables of schema $1, in order, and whether they hold JSON.
SELECT c.relname AS table_name, a.attname AS column_name, a.atttypid = 'jsonb'::regtype AS is_json
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY (wvs.read_models()) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum

-- name: begin_rebuild
-- Begins a rebuild by code with fingerprint $1, or continues the interrupted one. Returns the position that it has reached.
SELECT wvs.begin_rebuild($1)

-- name: update_fresh_rows
-- Applies updates of rows in the fresh tables.
SELECT wvs_fresh.apply_changes($1)

-- name: rebuild_is_at
-- Stores the position up to which the fresh tables are filled.
UPDATE wvs_fresh.progress SET position = $1

-- name: index_fresh_tables
-- Creates the indexes and the statistics of the fresh tables.
SELECT wvs.index_fresh_tables('wvs_fresh')

-- name: finish_rebuild
-- Replaces the read models by the fresh tables.
SELECT wvs.finish_rebuild()

-- name: drop_retired
-- Drops the tables that a rebuild has replaced.
DROP SCHEMA IF EXISTS wvs_retired CASCADE

-- name: make_replayed_tables
-- Creates empty temporary tables like the read models.
SELECT wvs.make_fresh_tables('pg_temp')

-- name: update_replayed_rows
-- Applies updates of rows in the temporary tables.
SELECT pg_temp.apply_changes($1)

-- name: temporary_schema
-- The name of the schema that pg_temp stands for.
SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()

-- name: stop_commands
-- Waits until no command is running, and blocks new ones until the end of the transaction. Readers are not blocked.
LOCK TABLE wvs.streams IN EXCLUSIVE MODE

-- name: log_page
-- Up to $2 events after position $1, in order, as this transaction's snapshot has them.
SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events
WHERE notification_id > $1 ORDER BY notification_id LIMIT $2

-- name: export_snapshot
-- Lets another session see the database as this transaction sees it.
SELECT pg_export_snapshot()

-- name: count_workspaces
-- The number of rows of the live read model.
SELECT count(*) FROM wvs.workspaces

-- name: differing_workspaces
-- Up to $1 rows that differ from the replayed log, each with the number of all such rows.
SELECT to_jsonb(l) AS live, to_jsonb(r) AS log, count(*) OVER () AS differing
FROM wvs.workspaces l FULL JOIN pg_temp.workspaces r USING (id)
WHERE l IS DISTINCT FROM r LIMIT $1

-- name: count_snapshots
-- The number of rows of the live read model.
SELECT count(*) FROM wvs.snapshots

-- name: differing_snapshots
-- Up to $1 rows that differ from the replayed log, each with the number of all such rows.
SELECT to_jsonb(l) AS live, to_jsonb(r) AS log, count(*) OVER () AS differing
FROM wvs.snapshots l FULL JOIN pg_temp.snapshots r USING (id)
WHERE l IS DISTINCT FROM r LIMIT $1

-- name: count_snapshot_labels
-- The number of rows of the live read model.
SELECT count(*) FROM wvs.snapshot_labels

-- name: differing_snapshot_labels
-- Up to $1 rows that differ from the replayed log, each with the number of all such rows.
SELECT to_jsonb(l) AS live, to_jsonb(r) AS log, count(*) OVER () AS differing
FROM wvs.snapshot_labels l FULL JOIN pg_temp.snapshot_labels r USING (workspace_id, label, snapshot_id)
WHERE l IS DISTINCT FROM r LIMIT $1

-- name: count_tasks
-- The number of rows of the live read model.
SELECT count(*) FROM wvs.tasks

-- name: differing_tasks
-- Up to $1 rows that differ from the replayed log, each with the number of all such rows.
SELECT to_jsonb(l) AS live, to_jsonb(r) AS log, count(*) OVER () AS differing
FROM wvs.tasks l FULL JOIN pg_temp.tasks r USING (id)
WHERE l IS DISTINCT FROM r LIMIT $1

-- name: count_trees
-- The number of rows of the live read model.
SELECT count(*) FROM wvs.trees

-- name: differing_trees
-- Up to $1 rows that differ from the replayed log, each with the number of all such rows.
SELECT to_jsonb(l) AS live, to_jsonb(r) AS log, count(*) OVER () AS differing
FROM wvs.trees l FULL JOIN pg_temp.trees r USING (workspace_id, name)
WHERE l IS DISTINCT FROM r LIMIT $1
