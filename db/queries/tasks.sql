-- name: task_by_id
-- One task; while it runs its progress is the queue's, which changes without events.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t WHERE t.id = $1

-- name: task_workspace
-- The workspace that a task belongs to.
SELECT t.workspace_id FROM wvs.tasks t WHERE t.id = $1

-- name: tasks_final_among
-- Those of the tasks $1 that are final: nothing happens to them until a person acts. One that moved the live tree is
-- waited for until the link `current` has followed, so that whoever waited finds the right tree there.
SELECT t.id FROM wvs.tasks t
WHERE t.id = ANY ($1::uuid[]) AND t.state IN ('succeeded', 'failed', 'cancelled')
  AND NOT (t.state = 'succeeded' AND t.kind IN ('workspace_init', 'current_set') AND EXISTS (
      SELECT FROM wvs.lanes l WHERE l.workspace_id = t.workspace_id AND l.link_pending IS NOT NULL))

-- name: rows_now
-- The rows of an answer as they are now, with the progress of a running task.
SELECT wvs.answer_rows($1) AS answer,
       (SELECT q.progress FROM wvs.queue q
        WHERE q.task_id = ($1::jsonb ->> 'task')::uuid AND q.state = 'running') AS progress

-- fragment: task_shown
-- A task in a list; while it runs its progress is the queue's, which changes without events.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress

-- fragment: task_rows
-- All tasks.
FROM wvs.tasks t

-- fragment: task_rows_of_workspace_and_kind
-- The tasks of one kind in a workspace. Their index has the state between kind and id: a page of each state is merged.
FROM (VALUES ('queued'), ('running'), ('succeeded'), ('failed'), ('cancelled')) AS s (state)
CROSS JOIN LATERAL (
    SELECT * FROM wvs.tasks i
    WHERE i.workspace_id = ANY (ARRAY[:workspace::uuid])
      AND (i.kind, i.state, i.id) < (:kind, s.state, :before) AND (i.kind, i.state) >= (:kind, s.state)
    ORDER BY i.workspace_id DESC, i.kind DESC, i.state DESC, i.id DESC LIMIT :limit) t

-- fragment: task_before
-- Tasks older than an id, newest first.
t.id < :before ORDER BY t.id DESC

-- fragment: task_of_workspace
-- Of one workspace: the first of the filters.
t.workspace_id = ANY (ARRAY[:workspace::uuid]) ORDER BY t.workspace_id DESC

-- fragment: task_of_kind
-- Of one kind: the first of the filters.
t.kind = ANY (ARRAY[:kind]) ORDER BY t.kind DESC

-- fragment: task_of_state
-- Of one state: the first of the filters. With `= :state` the planner knows the state to be constant, so that the primary
-- key has the wanted order too, and where the newest rows are all of another state it walks most of the table (seen: 24,999
-- rows of 25,000 for a page of 51). In all lists the filters are written so that only the index on all of them has the
-- order: the first column by ANY (its statistics count), the others and the id as one row.
t.state = ANY (ARRAY[:state]) ORDER BY t.state DESC

-- fragment: task_state_before
-- Of one state behind another filter, older than an id.
(t.state, t.id) < (:state, :before) AND t.state >= :state ORDER BY t.state DESC, t.id DESC

-- fragment: task_kind_and_state_before
-- Of one kind and state behind another filter, older than an id.
(t.kind, t.state, t.id) < (:kind, :state, :before) AND (t.kind, t.state) >= (:kind, :state)
ORDER BY t.kind DESC, t.state DESC, t.id DESC
