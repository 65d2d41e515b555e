-- name: claim_task
-- Claims the lane that has been ready longest and its head task; no row if nothing can be claimed now.
SELECT workspace_id, lane_no, fence, task_id, kind, took_over, overdue, link_pending, request_id, traceparent,
       idempotency_key, waited_s, ready_at
FROM wvs.claim_task($1, $2, $3, $4)

-- name: renew_lease
-- Renews lease $4 (seconds, or null to leave it) and stores progress, for the fence that holds; tells what to do.
SELECT wvs.renew_lease($1, $2, $3, $4, $5)

-- name: reap_lanes
-- Makes lanes claimable whose holder is gone or hangs.
SELECT workspace_id, task_id, fence, executor, reason FROM wvs.reap_lanes()

-- name: release_lane
-- Gives up the session-level lock that shows a holder to be alive; true if the lane's next task can be claimed now.
SELECT wvs.release_lane($1, $2)

-- name: park_lane
-- Lets the claim with fence $2 be taken over in $3 seconds, not at once: whoever takes it over may crash like its holder.
UPDATE wvs.lanes SET ready_at = now() + make_interval(secs => $3)
WHERE workspace_id = $1 AND fence = $2 AND task_id IS NOT NULL AND ready_at IS NULL

-- name: queue_gauges
-- Open tasks by kind and state, and the age in seconds of the oldest queued one of each kind.
SELECT kind, state, count(*) AS tasks,
       coalesce(extract(epoch FROM now() - min(queued_at) FILTER (WHERE state = 'queued')), 0)::float8 AS oldest_s
FROM wvs.queue GROUP BY kind, state

-- name: failed_tasks
-- Failed tasks by kind: those wait for a person.
SELECT kind, count(*) AS tasks FROM wvs.tasks WHERE state = 'failed' GROUP BY kind

-- name: hint
-- Wakes the executors; sent on its own connection, never within a command's transaction.
SELECT pg_notify($1, '')

-- name: try_session_lock
-- Takes the session-level advisory lock ($1, $2) if it is free.
SELECT pg_try_advisory_lock($1, $2)

-- name: end_hanging_sweeper
-- Ends the connection that holds the session lock ($1, $2) if it has shown no sign of life for $3 seconds.
SELECT count(pg_terminate_backend(k.pid)) FROM pg_locks k JOIN pg_stat_activity a ON a.pid = k.pid
WHERE k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND k.classid::bigint = $1 AND k.objid::bigint = $2 AND k.objsubid = 2 AND k.granted
  AND a.state_change < clock_timestamp() - make_interval(secs => $3)

-- name: system_identifier
-- The identity of the database cluster, which a volume is bound to.
SELECT system_identifier::text FROM pg_control_system()

-- name: link_follows
-- The link follows the live tree of epoch $2, or a later one.
UPDATE wvs.lanes SET link_pending = NULL WHERE workspace_id = $1 AND link_pending <= $2

-- name: links_forgotten
-- Workspaces whose link is pending although nobody holds the lane any more, or somebody who hangs: its mover is gone.
SELECT l.workspace_id FROM wvs.lanes l
WHERE l.link_pending IS NOT NULL AND (l.lease_until < now() OR NOT EXISTS (
    SELECT FROM pg_locks k
    WHERE k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND k.classid = wvs.holder_lock() AND k.objid = l.lane_no::oid AND k.objsubid = 2 AND k.granted))
