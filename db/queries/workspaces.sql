-- name: workspace_by_id
-- One workspace.
SELECT to_jsonb(w) FROM wvs.workspaces w WHERE w.id = $1

-- name: workspace_by_name
-- The workspace of the only tenant that has this name now, else the newest of the disabled ones that had it.
SELECT to_jsonb(w) FROM wvs.workspaces w WHERE w.id = coalesce(
    (SELECT n.id FROM wvs.workspaces n WHERE n.name = $1 AND n.tenant = 'default' AND n.state <> 'disabled'),
    (SELECT o.id FROM wvs.workspaces o WHERE o.name = ANY (ARRAY[$1]) AND o.tenant = 'default'
     ORDER BY o.name DESC, o.id DESC LIMIT 1))

-- name: workspaces_all
-- Up to $2 workspaces older than id $1, newest first.
SELECT to_jsonb(w) FROM wvs.workspaces w WHERE w.id < $1 ORDER BY w.id DESC LIMIT $2

-- name: workspaces_by_state
-- The same of state $3; ANY for the reason in tasks_by_state.
SELECT to_jsonb(w) FROM wvs.workspaces w
WHERE w.state = ANY (ARRAY[$3]) AND w.id < $1 ORDER BY w.state DESC, w.id DESC LIMIT $2

-- name: workspaces_by_name
-- The same of name $3, disabled ones included.
SELECT to_jsonb(w) FROM wvs.workspaces w
WHERE w.name = ANY (ARRAY[$3]) AND w.id < $1 ORDER BY w.name DESC, w.id DESC LIMIT $2

-- name: workspaces_by_name_and_state
-- The one workspace of name $3 and state $4, which is not 'disabled': such a name is unique in its tenant, and so is its
-- index, which OFFSET 0 has the planner look at for itself.
SELECT to_jsonb(w) FROM (
    SELECT * FROM wvs.workspaces n WHERE n.name = $3 AND n.tenant = 'default' AND n.state <> 'disabled' OFFSET 0) w
WHERE w.state = $4 AND w.id < $1 LIMIT $2

-- name: workspaces_by_name_disabled
-- The disabled workspaces that had name $3; all but at most one of the name's index are.
SELECT to_jsonb(w) FROM wvs.workspaces w
WHERE w.name = ANY (ARRAY[$3]) AND w.id < $1 AND w.state = 'disabled' ORDER BY w.name DESC, w.id DESC LIMIT $2
