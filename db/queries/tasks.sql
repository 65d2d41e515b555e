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

-- name: tasks_all
-- Up to $2 tasks older than id $1, newest first.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t WHERE t.id < $1 ORDER BY t.id DESC LIMIT $2

-- name: tasks_by_state
-- The same of state $3. With `= $3` the planner knows the state to be constant, so that the primary key has the wanted
-- order too, and where the newest rows are all of another state it walks most of the table (seen: 24,999 rows of 25,000
-- for a page of 51). In all lists the filters are written so that only the index on all of them has the order: the
-- first column by ANY (its statistics count), the others and the id as one row.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t
WHERE t.state = ANY (ARRAY[$3]) AND t.id < $1 ORDER BY t.state DESC, t.id DESC LIMIT $2

-- name: tasks_by_kind
-- The same of kind $3.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t
WHERE t.kind = ANY (ARRAY[$3]) AND t.id < $1 ORDER BY t.kind DESC, t.id DESC LIMIT $2

-- name: tasks_by_state_and_kind
-- The same of state $3 and kind $4.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t
WHERE t.kind = ANY (ARRAY[$4]) AND (t.state, t.id) < ($3, $1) AND t.state >= $3
ORDER BY t.kind DESC, t.state DESC, t.id DESC LIMIT $2

-- name: tasks_of_workspace
-- The same of workspace $3.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t
WHERE t.workspace_id = ANY (ARRAY[$3::uuid]) AND t.id < $1 ORDER BY t.workspace_id DESC, t.id DESC LIMIT $2

-- name: tasks_of_workspace_by_state
-- The same of workspace $3 and state $4.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t
WHERE t.workspace_id = ANY (ARRAY[$3::uuid]) AND (t.state, t.id) < ($4, $1) AND t.state >= $4
ORDER BY t.workspace_id DESC, t.state DESC, t.id DESC LIMIT $2

-- name: tasks_of_workspace_by_kind
-- The same of workspace $3 and kind $4. The index has the state between kind and id: a few from each state, merged.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM (VALUES ('queued'), ('running'), ('succeeded'), ('failed'), ('cancelled')) AS s (state)
CROSS JOIN LATERAL (
    SELECT * FROM wvs.tasks i
    WHERE i.workspace_id = ANY (ARRAY[$3::uuid])
      AND (i.kind, i.state, i.id) < ($4, s.state, $1) AND (i.kind, i.state) >= ($4, s.state)
    ORDER BY i.workspace_id DESC, i.kind DESC, i.state DESC, i.id DESC LIMIT $2) t
ORDER BY t.id DESC LIMIT $2

-- name: tasks_of_workspace_by_state_and_kind
-- The same of workspace $3, state $4 and kind $5.
SELECT to_jsonb(t) AS task,
       CASE WHEN t.state = 'running' THEN (SELECT q.progress FROM wvs.queue q WHERE q.task_id = t.id) END AS progress
FROM wvs.tasks t
WHERE t.workspace_id = ANY (ARRAY[$3::uuid])
  AND (t.kind, t.state, t.id) < ($5, $4, $1) AND (t.kind, t.state) >= ($5, $4)
ORDER BY t.workspace_id DESC, t.kind DESC, t.state DESC, t.id DESC LIMIT $2
