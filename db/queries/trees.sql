-- name: trees_named
-- The rows of the directories $2 of a workspace. No task ever intended a name without a row.
SELECT name, state FROM wvs.trees WHERE workspace_id = $1 AND name = ANY($2::text[])

-- name: trees_expected
-- The directories that must exist, which are the live tree and the trees of ready snapshots, and those of lost snapshots.
SELECT t.name, t.state, s.id AS snapshot_id, w.state = 'disabled' AS disabled FROM wvs.trees t
JOIN wvs.workspaces w ON w.id = t.workspace_id
LEFT JOIN wvs.snapshots s ON s.workspace_id = t.workspace_id AND s.tree = t.name AND s.state IN ('ready', 'lost')
WHERE t.workspace_id = $1 AND (t.state = 'live' OR (t.state IN ('snapshot', 'lost') AND s.id IS NOT NULL))

-- name: snapshot_made
-- What the event of its creation says about the directory of a snapshot.
SELECT report, certificate FROM wvs.snapshots WHERE id = $1

-- name: swept_workspaces
-- Up to $2 workspaces after id $1 that have a live tree, in order.
SELECT id FROM wvs.workspaces WHERE id > $1 AND live_tree IS NOT NULL ORDER BY id LIMIT $2
