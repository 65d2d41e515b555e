-- name: claim_task
-- Claims the lane that has been ready longest and its head task; no row if nothing can be claimed now.
SELECT workspace_id, lane_no, fence, task_id, kind, took_over, overdue, link_pending, request_id, traceparent,
       idempotency_key, waited_s, ready_at
FROM wvs.claim_task($1, $2, $3, $4)

-- name: renew_lease
-- Renews the lease to $4 seconds (null leaves it as it is) and stores progress, if the fence holds. Returns what to do next.
SELECT wvs.renew_lease($1, $2, $3, $4, $5)

-- name: reap_lanes
-- Makes lanes claimable again whose holder is gone or hangs.
SELECT workspace_id, task_id, fence, executor, reason FROM wvs.reap_lanes()

-- name: release_lane
-- Releases the session-level lock that shows that the holder is alive. True if the lane's next task can be claimed now.
SELECT wvs.release_lane($1, $2)

-- name: park_lane
-- Delays the takeover of the claim with fence $2 by $3 seconds: the executor that takes it over may crash like its holder.
UPDATE wvs.lanes SET ready_at = now() + make_interval(secs => $3)
WHERE workspace_id = $1 AND fence = $2 AND task_id IS NOT NULL AND ready_at IS NULL

-- name: queue_gauges
-- Open tasks by kind and state, and the age in seconds of the oldest queued one of each kind.
SELECT kind, state, count(*) AS tasks,
       greatest(extract(epoch FROM now() - min(queued_at) FILTER (WHERE state = 'queued')), 0)::float8 AS oldest_s
FROM wvs.queue GROUP BY kind, state

-- name: failed_tasks
-- Failed tasks by kind: each waits for a person.
SELECT kind, count(*) AS tasks FROM wvs.tasks WHERE state = 'failed' GROUP BY kind

-- name: hint
-- Wakes the executors. It is sent on a connection of its own, never in a command's transaction.
SELECT pg_notify($1, '')

-- name: try_session_lock
-- Takes the session-level advisory lock ($1, $2) if it is free.
SELECT pg_try_advisory_lock($1, $2)

-- name: end_hanging_sweeper
-- Terminates the connection that holds the session lock ($1, $2) if its state has not changed for $3 seconds.
SELECT count(pg_terminate_backend(k.pid)) FROM pg_locks k JOIN pg_stat_activity a ON a.pid = k.pid
WHERE k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND k.classid::bigint = $1 AND k.objid::bigint = $2 AND k.objsubid = 2 AND k.granted
  AND a.state_change < clock_timestamp() - make_interval(secs => $3)

-- name: living_executors
-- How many executors can run tasks: connections $1 to this database that have done something in the last $2 seconds. A role
-- that may not see when another role's connection did something counts every such connection.
SELECT count(*) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name = $1
  AND (a.state_change IS NULL OR a.state_change > clock_timestamp() - make_interval(secs => $2))

-- name: system_identifier
-- The identifier of the database cluster, to which a volume is bound.
SELECT system_identifier::text FROM pg_control_system()

-- name: link_moved
-- Notes that the path shows the live tree of epoch $2, or a later one. Sessions that waited for it get a new directive.
UPDATE wvs.lanes
SET link_pending = CASE WHEN link_pending <= $2 THEN NULL ELSE link_pending END, path_replaced_by = NULL,
    directives = directives + CASE WHEN link_pending <= $2 THEN 1 ELSE 0 END
WHERE workspace_id = $1 AND (link_pending <= $2 OR path_replaced_by IS NOT NULL) RETURNING workspace_id

-- name: paths_noted
-- The workspaces at whose paths an executor saw something else than the link.
SELECT workspace_id FROM wvs.lanes WHERE path_replaced_by IS NOT NULL

-- name: path_noted
-- What an executor last saw at the path of workspace $1 instead of the link.
SELECT path_replaced_by FROM wvs.lanes WHERE workspace_id = $1

-- name: paths_restored
-- A sweep found the links of these workspaces in their places again.
UPDATE wvs.lanes SET path_replaced_by = NULL WHERE workspace_id = ANY ($1::uuid[])

-- name: path_replaced
-- Notes what stands at the workspace's path instead of the link.
UPDATE wvs.lanes SET path_replaced_by = $2 WHERE workspace_id = $1 AND path_replaced_by IS DISTINCT FROM $2

-- name: orphaned_links
-- Workspaces whose switch is pending although the executor that had to end it is gone: nobody holds the lane, or its holder
-- hangs.
SELECT l.workspace_id FROM wvs.lanes l
WHERE l.link_pending IS NOT NULL AND (l.lease_until < now() OR NOT EXISTS (
    SELECT FROM pg_locks k
    WHERE k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND k.classid = wvs.holder_lock() AND k.objid = l.lane_no::oid AND k.objsubid = 2 AND k.granted))
