-- name: workspace_by_id
-- One workspace, with what stands at its path instead of the link.
SELECT to_jsonb(w) || jsonb_build_object('path_replaced_by', l.path_replaced_by)
FROM wvs.workspaces w LEFT JOIN wvs.lanes l ON l.workspace_id = w.id WHERE w.id = $1

-- name: workspace_by_name
-- The workspace that has this name now, else the newest disabled one that had it; as above. There is one tenant.
SELECT to_jsonb(w) || jsonb_build_object('path_replaced_by', l.path_replaced_by)
FROM wvs.workspaces w LEFT JOIN wvs.lanes l ON l.workspace_id = w.id WHERE w.id = coalesce(
    (SELECT n.id FROM wvs.workspaces n WHERE n.name = $1 AND n.tenant = 'default' AND n.state <> 'disabled'),
    (SELECT o.id FROM wvs.workspaces o WHERE o.name = ANY (ARRAY[$1]) AND o.tenant = 'default'
     ORDER BY o.name DESC, o.id DESC LIMIT 1))

-- fragment: workspace_shown
-- A workspace in a list.
SELECT to_jsonb(w)

-- fragment: workspace_rows
-- All workspaces.
FROM wvs.workspaces w

-- fragment: workspace_row_named
-- The one workspace that has this name now: a name is unique within its tenant, and there is one tenant. OFFSET 0 makes the
-- planner use the unique index for the inner query.
FROM (SELECT * FROM wvs.workspaces n
      WHERE n.name = :name AND n.tenant = 'default' AND n.state <> 'disabled' OFFSET 0) w

-- fragment: workspace_of_name
-- Of one name, including disabled ones; always the first filter. ANY for the reason given at task_of_state.
w.name = ANY (ARRAY[:name]) ORDER BY w.name DESC

-- fragment: workspace_of_state
-- Of one state; always the first filter.
w.state = ANY (ARRAY[:state]) ORDER BY w.state DESC

-- fragment: workspace_before
-- Workspaces older than an id, newest first.
w.id < :before ORDER BY w.id DESC

-- fragment: workspace_in_state
-- Of one state, checked on each workspace.
w.state = :state

-- fragment: workspace_disabled
-- Disabled, checked on each workspace: of all workspaces of one name, at most one is not.
w.state = 'disabled'
