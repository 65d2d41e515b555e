-- name: task_by_id
-- One task. While it runs, its progress comes from the queue, where it changes without events.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t WHERE t.id = $1

-- name: task_workspace
-- The workspace that a task belongs to.
SELECT t.workspace_id FROM wvs.tasks t WHERE t.id = $1

-- name: tasks_final_among
-- Those of the tasks $1 that are final: they stay as they are until a person acts. A task that replaced the live tree counts
-- as final only when the link `current` points to the new tree, so that a waiting client finds the right tree there.
SELECT t.id FROM wvs.tasks t
WHERE t.id = ANY ($1::uuid[]) AND t.state IN ('succeeded', 'failed', 'cancelled')
  AND NOT (t.state = 'succeeded' AND t.kind IN ('workspace_init', 'current_set') AND EXISTS (
      SELECT FROM wvs.lanes l WHERE l.workspace_id = t.workspace_id AND l.link_pending IS NOT NULL))

-- name: rows_now
-- The present rows of an answer, with the progress of a running task.
SELECT wvs.answer_rows($1) AS answer,
       (SELECT q.progress FROM wvs.queue q
        WHERE q.task_id = ($1::jsonb ->> 'task')::uuid AND q.state = 'running') AS progress

-- fragment: task_shown
-- A task in a list. While it runs, its progress comes from the queue, where it changes without events.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress

-- fragment: task_rows
-- All tasks.
FROM wvs.tasks t

-- fragment: task_rows_of_workspace_and_kind
-- The tasks of one kind in a workspace. Their index has the state between kind and id; therefore one page of each state is
-- read, and the pages are merged.
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
-- Of one workspace; always the first filter.
t.workspace_id = ANY (ARRAY[:workspace::uuid]) ORDER BY t.workspace_id DESC

-- fragment: task_of_kind
-- Of one kind; always the first filter.
t.kind = ANY (ARRAY[:kind]) ORDER BY t.kind DESC

-- fragment: task_of_state
-- Of one state; always the first filter. With `= :state` the planner knows that the state is constant. Then the primary key
-- has the wanted order too, and if the newest rows all have another state, the planner's scan reads most of the table
-- (measured: 24,999 of 25,000 rows for a page of 51). Therefore all lists write their filters so that only the index on all
-- filtered columns has the order: the first column by ANY (its statistics still count), the others and the id as one row.
t.state = ANY (ARRAY[:state]) ORDER BY t.state DESC

-- fragment: task_state_before
-- Of one state, after another filter; older than an id.
(t.state, t.id) < (:state, :before) AND t.state >= :state ORDER BY t.state DESC, t.id DESC

-- fragment: task_kind_and_state_before
-- Of one kind and state, after another filter; older than an id.
(t.kind, t.state, t.id) < (:kind, :state, :before) AND (t.kind, t.state) >= (:kind, :state)
ORDER BY t.kind DESC, t.state DESC, t.id DESC
