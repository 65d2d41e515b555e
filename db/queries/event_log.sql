-- name: commit_command
-- Writes one command; see the function.
SELECT outcome, version, status, answer FROM wvs.commit_command_v2($1)

-- name: settled_hash
-- The hash at a version of a stream, once no transaction can still write that version; null if there is no such version.
SELECT wvs.settled_hash($1, $2, $3, $4)

-- name: shown_rows
-- The present rows that an answer shows.
SELECT wvs.answer_rows($1)

-- name: idempotent_answer
-- The stored answer for an idempotency key.
SELECT fingerprint, status, answer FROM wvs.idempotency_keys WHERE scope = $1 AND key = $2

-- name: purge_idempotency_keys
-- Deletes up to $1 keys, 24 h after their task became final (without a task: 24 h after the request).
DELETE FROM wvs.idempotency_keys WHERE (scope, key) IN (
    SELECT k.scope, k.key FROM wvs.idempotency_keys k LEFT JOIN wvs.tasks t ON t.id = k.task_id
    WHERE k.created_at < now() - interval '24 hours'
      AND (t.id IS NULL OR t.finished_at < now() - interval '24 hours')
    ORDER BY k.created_at LIMIT $1)

-- name: stream_events_after
-- Up to $3 events of workspace $1 after version $2, in order.
SELECT originator_version, topic, state, hash FROM wvs.events
WHERE originator_id = $1 AND originator_version > $2 ORDER BY originator_version LIMIT $3

-- name: memento_get
-- The stored memento of a workspace, if it has schema $2 and belongs to this log.
SELECT m.version, m.hash, m.state FROM wvs.mementos m
JOIN wvs.events e ON e.originator_id = m.workspace_id AND e.originator_version = m.version AND e.hash = m.hash
WHERE m.workspace_id = $1 AND m.schema_version = $2

-- name: memento_put
-- Stores a memento, unless a later one is stored.
INSERT INTO wvs.mementos AS m (workspace_id, version, schema_version, hash, state) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (workspace_id) DO UPDATE
SET version = EXCLUDED.version, schema_version = EXCLUDED.schema_version, hash = EXCLUDED.hash, state = EXCLUDED.state
WHERE m.version < EXCLUDED.version OR m.schema_version <> EXCLUDED.schema_version

-- name: log_last_position
-- H of the watermark method: the last position that the sequence assigned. No event need be there, and after a crash of
-- PostgreSQL it may be assigned again: no reader keeps it or gives it out.
SELECT coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0)

-- name: log_least_key
-- W of the watermark method: the least key that a transaction appending to this database holds; null without such a one.
SELECT min(key) FROM wvs.watermark_keys()

-- name: log_watermark_holder
-- The process that holds the least key of the watermark, with the seconds since its transaction began.
SELECT k.key, k.pid, coalesce(a.application_name, 'prepared transaction') AS application, a.usename AS role, a.state,
       a.wait_event,
       CASE WHEN coalesce(a.xact_start, a.state_change) IS NOT NULL THEN
           greatest(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.state_change)), 0)::float8
       END AS age_s
FROM wvs.watermark_keys() k LEFT JOIN pg_stat_activity a ON a.pid = k.pid ORDER BY k.key, k.pid LIMIT 1

-- name: log_last_committed
-- The position of the last event at or before position $1; 0 without one.
SELECT coalesce(max(notification_id), 0) FROM wvs.events WHERE notification_id <= $1

-- name: log_end
-- The epoch of the log and the position of its last event, whether followers may read it yet or not.
SELECT epoch, coalesce((SELECT max(notification_id) FROM wvs.events), 0) AS last FROM wvs.log_identity

-- name: log_events_between
-- Up to $3 events after position $1 and up to $2, in order.
SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events
WHERE notification_id > $1 AND notification_id <= $2 ORDER BY notification_id LIMIT $3

-- name: log_epoch
-- The epoch of the positions that are assigned now.
SELECT epoch FROM wvs.log_identity

-- name: log_max_position
-- The greatest position in the log; the sequence must not be less.
SELECT coalesce(max(notification_id), 0) FROM wvs.events

-- name: log_last_event
-- The last event at or before position $1.
SELECT notification_id, encode(hash, 'hex') AS hash FROM wvs.events
WHERE notification_id <= $1 ORDER BY notification_id DESC LIMIT 1

-- name: log_hash_at
-- The hash of the event at position $1; null if no event has that position.
SELECT encode(hash, 'hex') FROM wvs.events WHERE notification_id = $1

-- name: raise_epoch
-- Begins the next epoch: positions that were assigned before belong to another log from now on.
UPDATE wvs.log_identity SET epoch = epoch + 1 RETURNING epoch

-- name: raise_fences
-- Raises every lane's fence by $1: above all fences that were issued in the lost part of the log.
UPDATE wvs.lanes SET fence = fence + $1

-- name: raise_sequence
-- Advances the log's sequence past the greatest position if it is behind; null if it was not.
SELECT setval('wvs.events_notification_id_seq', e.greatest) FROM (
    SELECT max(notification_id) AS greatest FROM wvs.events) e
WHERE e.greatest > coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0)
