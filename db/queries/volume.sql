-- name: log_volume
-- The volume that the log names, and the path at which an executor bound it last; nulls if the log names none yet.
SELECT volume_id, volume_path FROM wvs.log_identity

-- name: name_volume
-- Makes the log name the volume $1 at path $2, unless it names another one; a row if it names this one now.
UPDATE wvs.log_identity SET volume_id = $1, volume_path = $2 WHERE volume_id IS NULL OR volume_id = $1 RETURNING volume_id

-- name: rename_volume
-- Makes the log name the volume $1 at path $2, whichever it named before.
UPDATE wvs.log_identity SET volume_id = $1, volume_path = $2

-- name: log_tree_count
-- How many directories must exist according to the log.
SELECT count(*) FROM wvs.trees WHERE state IN ('live', 'snapshot')

-- name: knows_workspaces
-- Whether the log has a live tree in one of the workspaces $1.
SELECT EXISTS (SELECT FROM wvs.workspaces WHERE id = ANY($1::uuid[]) AND live_tree IS NOT NULL)

-- name: connected_executors
-- How many connections of executors this database has.
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND (application_name = 'wvs-executor' OR application_name LIKE 'wvs-executor %')

-- name: active_sessions
-- How many sessions of agents have not ended.
SELECT count(*) FROM wvs.sessions WHERE state = 'active'

-- name: volume_brake
-- What the brake of the volume holds back; no row while it does not hold.
SELECT since, lost, unknown, trees FROM wvs.volume_brake

-- name: hold_volume_brake
-- The brake holds back $1 lost and $2 unknown directories, of $3 trees that must exist.
INSERT INTO wvs.volume_brake AS b (lost, unknown, trees) VALUES ($1, $2, $3)
ON CONFLICT (only_row) DO UPDATE SET lost = EXCLUDED.lost, unknown = EXCLUDED.unknown, trees = EXCLUDED.trees

-- name: release_volume_brake
-- The brake holds nothing back any more.
DELETE FROM wvs.volume_brake
