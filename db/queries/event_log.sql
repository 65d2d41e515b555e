-- name: commit_command
-- The write path of one command; see the function.
SELECT outcome, version, status, answer FROM wvs.commit_command_v2($1)

-- name: settled_hash
-- The hash at a version of a stream once no transaction that may still write it is left; null if nothing is there.
SELECT wvs.settled_hash($1, $2, $3, $4)

-- name: shown_rows
-- The rows that an answer shows, as they are now.
SELECT wvs.answer_rows($1)

-- name: idempotent_answer
-- The stored answer to a key.
SELECT fingerprint, status, answer FROM wvs.idempotency_keys WHERE scope = $1 AND key = $2

-- name: purge_idempotency_keys
-- Forgets up to $1 keys, 24 h after their task became final (or after the request, where it had no task).
DELETE FROM wvs.idempotency_keys WHERE (scope, key) IN (
    SELECT k.scope, k.key FROM wvs.idempotency_keys k LEFT JOIN wvs.tasks t ON t.id = k.task_id
    WHERE k.created_at < now() - interval '24 hours'
      AND (t.id IS NULL OR t.finished_at < now() - interval '24 hours')
    ORDER BY k.created_at LIMIT $1)

-- name: stream_events_after
-- Up to $3 events of one workspace behind version $2, in order.
SELECT originator_version, topic, state, hash FROM wvs.events
WHERE originator_id = $1 AND originator_version > $2 ORDER BY originator_version LIMIT $3

-- name: memento_get
-- The stored memento of a workspace, if it is of schema $2 and of the log that is here.
SELECT m.version, m.hash, m.state FROM wvs.mementos m
JOIN wvs.events e ON e.originator_id = m.workspace_id AND e.originator_version = m.version AND e.hash = m.hash
WHERE m.workspace_id = $1 AND m.schema_version = $2

-- name: memento_put
-- Stores a memento, unless a later one is there.
INSERT INTO wvs.mementos AS m (workspace_id, version, schema_version, hash, state) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (workspace_id) DO UPDATE
SET version = EXCLUDED.version, schema_version = EXCLUDED.schema_version, hash = EXCLUDED.hash, state = EXCLUDED.state
WHERE m.version < EXCLUDED.version OR m.schema_version <> EXCLUDED.schema_version

-- name: log_last_position
-- H of the watermark method: the last position handed out.
SELECT coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0)

-- name: log_least_key
-- W of the watermark method: the least key that an appender in flight holds in this database; null if there is none.
SELECT min((l.classid::bigint << 32) | l.objid::bigint) FROM pg_locks l
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.mode = 'ShareLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: log_events_between
-- Up to $3 events behind position $1 and not beyond $2, in order.
SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events
WHERE notification_id > $1 AND notification_id <= $2 ORDER BY notification_id LIMIT $3

-- name: log_epoch
-- The epoch that positions are handed out with.
SELECT epoch FROM wvs.log_identity

-- name: log_max_position
-- The greatest position in the log; the sequence must not be behind it.
SELECT coalesce(max(notification_id), 0) FROM wvs.events

-- name: log_last_event
-- The last event at or before position $1.
SELECT notification_id, encode(hash, 'hex') AS hash FROM wvs.events
WHERE notification_id <= $1 ORDER BY notification_id DESC LIMIT 1

-- name: log_hash_at
-- The hash of the event at position $1; null if there is none.
SELECT encode(hash, 'hex') FROM wvs.events WHERE notification_id = $1

-- name: raise_epoch
-- Positions handed out before are of another log from here on.
UPDATE wvs.log_identity SET epoch = epoch + 1 RETURNING epoch

-- name: raise_fences
-- Puts every lane's fence $1 higher: above all that were given out in the part of the log that is lost.
UPDATE wvs.lanes SET fence = fence + $1

-- name: raise_sequence
-- Puts the log's sequence behind the greatest position, where it is not; null if nothing had to be done.
SELECT setval('wvs.events_notification_id_seq', e.greatest) FROM (
    SELECT max(notification_id) AS greatest FROM wvs.events) e
WHERE e.greatest > coalesce(pg_sequence_last_value('wvs.events_notification_id_seq'), 0)
