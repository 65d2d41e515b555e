-- name: workspace_version_at
-- The last version of workspace $1 at or before position $2; 0 if it has no event there. Positions grow with versions, so a
-- binary search on the primary key finds it in a few steps, without another index on the log.
WITH RECURSIVE halving (low, high) AS (
    SELECT 0::bigint, s.version FROM wvs.streams s WHERE s.workspace_id = $1
    UNION ALL
    SELECT CASE WHEN m.position <= $2 THEN m.middle ELSE m.low END,
           CASE WHEN m.position <= $2 THEN m.high ELSE m.middle - 1 END
    FROM (
        SELECT h.low, h.high, (h.low + h.high + 1) / 2 AS middle, e.notification_id AS position
        FROM halving h
        JOIN wvs.events e ON e.originator_id = $1 AND e.originator_version = (h.low + h.high + 1) / 2
        WHERE h.low < h.high) m)
SELECT coalesce(max(low), 0)::bigint FROM halving

-- name: workspace_events_between
-- Up to $4 events of workspace $1 after version $2 and up to position $3, in order.
SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events
WHERE originator_id = $1 AND originator_version > $2 AND notification_id <= $3 ORDER BY originator_version LIMIT $4

-- fragment: event_walked
-- An event of the scanned range; its bytes are left out if it does not pass the filters.
SELECT e.notification_id, e.originator_id, e.originator_version, e.topic,
       CASE WHEN wvs.event_matches(e, :workspace_id, :topic, :actor, :task_id, :since, :until) THEN e.state END AS state,
       e.hash
FROM wvs.events e

-- fragment: event_positions
-- All events after position :after and up to :upto.
e.notification_id > :after AND e.notification_id <= :upto ORDER BY e.notification_id

-- fragment: event_positions_of_topic
-- The same range of the events of one type. Comparing pairs, inclusively, keeps the planner from choosing another index for the
-- order, and from sorting rows that it believes to be few.
(e.topic, e.notification_id) >= (:topic, :after::bigint + 1) AND (e.topic, e.notification_id) <= (:topic, :upto)
ORDER BY e.topic, e.notification_id

-- fragment: event_positions_of_actor
-- The same range of the events of one actor.
(e.actor, e.notification_id) >= (:actor, :after::bigint + 1) AND (e.actor, e.notification_id) <= (:actor, :upto)
ORDER BY e.actor, e.notification_id

-- fragment: event_positions_of_task
-- The same range of the events of one task.
(e.task_id, e.notification_id) >= (:task_id, :after::bigint + 1) AND (e.task_id, e.notification_id) <= (:task_id, :upto)
  AND e.task_id IS NOT NULL
ORDER BY e.task_id, e.notification_id

-- fragment: event_versions
-- The events of one workspace after version :after and up to position :upto.
e.originator_id = :workspace_id AND e.originator_version > :after AND e.notification_id + 0 <= :upto
ORDER BY e.originator_version

-- fragment: event_versions_of_topic
-- The same range of the events of one type in one workspace.
(e.topic, e.originator_id, e.originator_version) >= (:topic, :workspace_id, :after::bigint + 1)
  AND (e.topic, e.originator_id, e.originator_version) <= (:topic, :workspace_id, 9223372036854775807)
  AND e.notification_id + 0 <= :upto
ORDER BY e.topic, e.originator_id, e.originator_version

-- name: position_before
-- A position before every event since time $1, if the clocks of all hosts agree to within an hour.
SELECT wvs.position_before($1::timestamptz - interval '1 hour')

-- name: position_until
-- A position at or after every event before time $1, if the clocks of all hosts agree to within an hour.
SELECT wvs.position_before($1::timestamptz + interval '1 hour')

-- name: workspace_version_when
-- The version of workspace $1 at time $2: its event had occurred, and the next one had not. 0 before the first event.
SELECT wvs.version_at($1, $2)

-- name: history_place
-- The event that created version $2 of workspace $1, and the workspace's last version.
SELECT s.version AS latest, e.notification_id AS position, e.occurred_at, e.hash
FROM wvs.streams s LEFT JOIN wvs.events e ON e.originator_id = s.workspace_id AND e.originator_version = $2
WHERE s.workspace_id = $1

-- name: history_of_workspace
-- The events up to version $2 that determine the row of workspace $1: those of topics $3, the last one of topic $4, and all
-- events of the tasks that the events of topics $3 name.
WITH own AS (
    SELECT e.originator_version, e.topic, e.state, e.task_id FROM wvs.events e
    WHERE e.originator_id = $1 AND e.topic = ANY ($3::text[]) AND e.originator_version <= $2),
moved AS (
    SELECT e.originator_version, e.topic, e.state FROM wvs.events e
    WHERE e.originator_id = $1 AND e.originator_version = (
        SELECT max(l.version) FROM unnest($4::text[]) AS move (topic)
        CROSS JOIN LATERAL wvs.last_of_topic($1, move.topic, $2::bigint + 1, 1) l)),
ended AS (
    SELECT e.originator_version, e.topic, e.state FROM wvs.events e
    WHERE e.task_id IN (SELECT o.task_id FROM own o) AND e.originator_id = $1 AND e.originator_version <= $2)
SELECT originator_version, topic, state FROM own
UNION SELECT * FROM moved
UNION SELECT * FROM ended
ORDER BY originator_version

-- name: history_snapshot_ids
-- Up to $4 snapshots of workspace $1 that were requested (topics $3) before version $2, newest first.
SELECT l.version, l.snapshot_id AS id FROM unnest($3::text[]) AS asked (topic)
CROSS JOIN LATERAL wvs.last_of_topic($1, asked.topic, $2, $4) l
ORDER BY l.version DESC LIMIT $4

-- name: history_task_ids
-- Up to $4 tasks of workspace $1 that were created before version $2, newest first. An event of topics $3 always creates a
-- task; one of topics $5 does if the task has no earlier event.
SELECT l.version, l.task_id AS id FROM (
    SELECT l.* FROM unnest($3::text[]) AS begun (topic) CROSS JOIN LATERAL wvs.last_of_topic($1, begun.topic, $2, $4) l
    UNION ALL
    SELECT l.* FROM unnest($5::text[]) AS begun (topic)
    CROSS JOIN LATERAL wvs.last_of_topic($1, begun.topic, $2, $4, true) l) l
ORDER BY l.version DESC LIMIT $4

-- name: history_of_snapshots
-- The events up to version $1 that determine the rows of the snapshots $2 of one workspace, in order.
SELECT e.* FROM unnest($2::uuid[]) AS shown (id) CROSS JOIN LATERAL (
    SELECT s.originator_version, s.topic, s.state FROM wvs.events s
    WHERE s.snapshot_id = shown.id AND s.topic NOT LIKE 'current.%' AND s.originator_version <= $1 OFFSET 0) e
ORDER BY e.originator_version

-- name: history_of_tasks
-- The events up to version $1 that determine the rows of the tasks $2 of one workspace, in order.
SELECT e.* FROM unnest($2::uuid[]) AS shown (id) CROSS JOIN LATERAL (
    SELECT s.originator_version, s.topic, s.state FROM wvs.events s
    WHERE s.task_id = shown.id AND s.originator_version <= $1 OFFSET 0) e
ORDER BY e.originator_version

-- name: workspace_event
-- Event $2 of workspace $1.
SELECT notification_id, originator_id, originator_version, topic, state, hash FROM wvs.events
WHERE originator_id = $1 AND originator_version = $2

-- name: chain_page
-- The head of workspace $1 according to its row in wvs.streams (null without that row), and up to $3 of its events after
-- version $2 with all their columns. Without such events: one row with a null version.
SELECT s.version AS head_version, s.hash AS head_hash, e.*
FROM (SELECT $1::uuid AS id) w LEFT JOIN wvs.streams s ON s.workspace_id = w.id
LEFT JOIN LATERAL (
    SELECT v.notification_id, v.originator_id, v.originator_version, v.topic, v.state, v.hash, v.occurred_at, v.actor,
           v.request_id, v.task_id, v.snapshot_id
    FROM wvs.events v WHERE v.originator_id = w.id AND v.originator_version > $2
    ORDER BY v.originator_version LIMIT $3) e ON true

-- name: stored_events_between
-- Up to $3 events after position $1 and up to $2, in order, with all their columns.
SELECT notification_id, originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id, task_id,
       snapshot_id
FROM wvs.events WHERE notification_id > $1 AND notification_id <= $2 ORDER BY notification_id LIMIT $3

-- name: chain_heads
-- Up to $2 workspaces after id $1, of the read model and of wvs.streams, each with its head.
SELECT i.id, s.version, s.hash FROM (
    (SELECT w.id FROM wvs.workspaces w WHERE w.id > $1 ORDER BY w.id LIMIT $2)
    UNION
    (SELECT s.workspace_id FROM wvs.streams s WHERE s.workspace_id > $1 AND s.version > 0
     ORDER BY s.workspace_id LIMIT $2)
    ORDER BY 1 LIMIT $2) i
LEFT JOIN wvs.streams s ON s.workspace_id = i.id ORDER BY i.id
