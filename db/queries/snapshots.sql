-- name: snapshot_by_id
-- One snapshot of workspace $1, dropped or not.
SELECT to_jsonb(s) FROM wvs.snapshots s WHERE s.id = $2 AND s.workspace_id = $1

-- fragment: snapshot_shown
-- A snapshot in a list.
SELECT to_jsonb(s)

-- fragment: snapshot_rows
-- All snapshots.
FROM wvs.snapshots s

-- fragment: snapshot_rows_of_labels
-- All labels, each with its snapshot. OFFSET 0 keeps the planner from joining whole tables: it reads one label's entries in
-- the order of the list, and fetches one snapshot after the other.
FROM wvs.snapshot_labels l
CROSS JOIN LATERAL (SELECT * FROM wvs.snapshots i WHERE i.id = l.snapshot_id OFFSET 0) s

-- fragment: snapshot_of_workspace
-- Of one workspace; always the first filter. ANY for the reason given at task_of_state.
s.workspace_id = ANY (ARRAY[:workspace::uuid]) ORDER BY s.workspace_id DESC

-- fragment: snapshot_before
-- Snapshots older than an id, newest first.
s.id < :before ORDER BY s.id DESC

-- fragment: snapshot_state_before
-- Of one state, after another filter; older than an id.
(s.state, s.id) < (:state, :before) AND s.state >= :state ORDER BY s.state DESC, s.id DESC

-- fragment: snapshot_label_before
-- With one label ('key=value') in a workspace, older than an id, newest first.
l.workspace_id = ANY (ARRAY[:workspace::uuid]) AND l.label = :label AND l.snapshot_id < :before
ORDER BY l.workspace_id DESC, l.snapshot_id DESC

-- fragment: snapshot_other_labels
-- Restricts snapshot_label_before to snapshots that also have every one of these different labels.
cardinality(:other_labels::text[]) = (
    SELECT count(*) FROM wvs.snapshot_labels m
    WHERE m.workspace_id = :workspace AND m.label = ANY (:other_labels::text[]) AND m.snapshot_id = l.snapshot_id)

-- fragment: snapshot_kept
-- Not dropped.
s.deleted_at IS NULL

-- fragment: snapshot_state
-- Of one state, checked on each snapshot.
s.state = :state
