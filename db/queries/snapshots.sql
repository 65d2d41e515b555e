-- name: snapshot_by_id
-- One snapshot of workspace $1, dropped or not.
SELECT to_jsonb(s) FROM wvs.snapshots s WHERE s.id = $2 AND s.workspace_id = $1

-- name: snapshots_kept
-- Up to $2 snapshots of workspace $3 older than id $1 that were not dropped, newest first.
SELECT to_jsonb(s) FROM wvs.snapshots s
WHERE s.workspace_id = $3 AND s.deleted_at IS NULL AND s.id < $1 ORDER BY s.id DESC LIMIT $2

-- name: snapshots_all
-- The same with the dropped ones.
SELECT to_jsonb(s) FROM wvs.snapshots s WHERE s.workspace_id = $3 AND s.id < $1 ORDER BY s.id DESC LIMIT $2

-- name: snapshots_by_state
-- The same of state $4.
SELECT to_jsonb(s) FROM wvs.snapshots s
WHERE s.workspace_id = $3 AND s.state = $4 AND s.id < $1 ORDER BY s.id DESC LIMIT $2

-- name: snapshots_by_label_kept
-- Those with label $4 ('key=value') and every one of $5, without dropped ones.
SELECT to_jsonb(s) FROM wvs.snapshot_labels l JOIN wvs.snapshots s ON s.id = l.snapshot_id
WHERE l.workspace_id = $3 AND l.label = $4 AND l.snapshot_id < $1 AND s.deleted_at IS NULL
  AND cardinality($5::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = $3 AND m.label = ANY ($5::text[]) AND m.snapshot_id = l.snapshot_id)
ORDER BY l.snapshot_id DESC LIMIT $2

-- name: snapshots_by_label_all
-- The same with the dropped ones.
SELECT to_jsonb(s) FROM wvs.snapshot_labels l JOIN wvs.snapshots s ON s.id = l.snapshot_id
WHERE l.workspace_id = $3 AND l.label = $4 AND l.snapshot_id < $1
  AND cardinality($5::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = $3 AND m.label = ANY ($5::text[]) AND m.snapshot_id = l.snapshot_id)
ORDER BY l.snapshot_id DESC LIMIT $2

-- name: snapshots_by_label_and_state
-- The same of state $6.
SELECT to_jsonb(s) FROM wvs.snapshot_labels l JOIN wvs.snapshots s ON s.id = l.snapshot_id
WHERE l.workspace_id = $3 AND l.label = $4 AND l.snapshot_id < $1 AND s.state = $6
  AND cardinality($5::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = $3 AND m.label = ANY ($5::text[]) AND m.snapshot_id = l.snapshot_id)
ORDER BY l.snapshot_id DESC LIMIT $2
