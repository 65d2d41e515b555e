-- name: snapshot_by_id
-- One snapshot of workspace $1, dropped or not.
SELECT to_jsonb(s) FROM wvs.snapshots s WHERE s.id = $2 AND s.workspace_id = $1

-- name: snapshots_kept
-- Up to $2 snapshots of workspace $3 older than id $1 that were not dropped, newest first; ANY for the reason in tasks_by_state.
SELECT to_jsonb(s) FROM wvs.snapshots s
WHERE s.workspace_id = ANY (ARRAY[$3::uuid]) AND s.deleted_at IS NULL AND s.id < $1
ORDER BY s.workspace_id DESC, s.id DESC LIMIT $2

-- name: snapshots_all
-- The same with the dropped ones.
SELECT to_jsonb(s) FROM wvs.snapshots s
WHERE s.workspace_id = ANY (ARRAY[$3::uuid]) AND s.id < $1 ORDER BY s.workspace_id DESC, s.id DESC LIMIT $2

-- name: snapshots_by_state
-- The same of state $4.
SELECT to_jsonb(s) FROM wvs.snapshots s
WHERE s.workspace_id = ANY (ARRAY[$3::uuid]) AND (s.state, s.id) < ($4, $1) AND s.state >= $4
ORDER BY s.workspace_id DESC, s.state DESC, s.id DESC LIMIT $2

-- name: snapshots_by_label_kept
-- Those with label $4 ('key=value') and every one of $5, without dropped ones. OFFSET 0 keeps the planner from joining
-- whole tables: it walks the label in the order of the list and looks at one snapshot after the other.
SELECT to_jsonb(s)
FROM wvs.snapshot_labels l
CROSS JOIN LATERAL (SELECT * FROM wvs.snapshots i WHERE i.id = l.snapshot_id OFFSET 0) s
WHERE l.workspace_id = ANY (ARRAY[$3::uuid]) AND l.label = $4 AND l.snapshot_id < $1
  AND s.deleted_at IS NULL
  AND cardinality($5::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = $3 AND m.label = ANY ($5::text[]) AND m.snapshot_id = l.snapshot_id)
ORDER BY l.workspace_id DESC, l.snapshot_id DESC LIMIT $2

-- name: snapshots_by_label_all
-- The same with the dropped ones.
SELECT to_jsonb(s)
FROM wvs.snapshot_labels l
CROSS JOIN LATERAL (SELECT * FROM wvs.snapshots i WHERE i.id = l.snapshot_id OFFSET 0) s
WHERE l.workspace_id = ANY (ARRAY[$3::uuid]) AND l.label = $4 AND l.snapshot_id < $1
  AND cardinality($5::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = $3 AND m.label = ANY ($5::text[]) AND m.snapshot_id = l.snapshot_id)
ORDER BY l.workspace_id DESC, l.snapshot_id DESC LIMIT $2

-- name: snapshots_by_label_and_state
-- The same of state $6.
SELECT to_jsonb(s)
FROM wvs.snapshot_labels l
CROSS JOIN LATERAL (SELECT * FROM wvs.snapshots i WHERE i.id = l.snapshot_id OFFSET 0) s
WHERE l.workspace_id = ANY (ARRAY[$3::uuid]) AND l.label = $4 AND l.snapshot_id < $1
  AND s.state = $6
  AND cardinality($5::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = $3 AND m.label = ANY ($5::text[]) AND m.snapshot_id = l.snapshot_id)
ORDER BY l.workspace_id DESC, l.snapshot_id DESC LIMIT $2
