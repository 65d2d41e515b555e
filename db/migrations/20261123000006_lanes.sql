-- migrate:up

-- Claims the lane that has been ready longest and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (0x77767303, lane_no) shows that the holder is alive: it is taken before the claim is visible
-- and vanishes with the connection. Where a holder hangs on to it past its lease, its connection is ended; the lane is
-- then free at a later call. `p_after` bounds the index scan from below (dead entries of claimed lanes lie there).
-- `took_over` tells that the task was running under an older fence, `overdue` that it was past its deadline.
CREATE FUNCTION wvs.claim_task(
    p_executor text, p_lease_s double precision, p_deadlines_s jsonb, p_after timestamptz
) RETURNS TABLE (
    workspace_id uuid, lane_no integer, fence bigint, task_id uuid, kind text, took_over boolean, overdue boolean,
    request_id text, traceparent text, idempotency_key text, waited_s double precision, ready_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_lane wvs.lanes;
    v_head wvs.queue;
BEGIN
    SELECT * INTO v_lane FROM wvs.lanes l
    WHERE l.ready_at <= now() AND l.ready_at >= p_after
    ORDER BY l.ready_at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF NOT pg_try_advisory_lock(2004251395, v_lane.lane_no) THEN
        UPDATE wvs.lanes l SET ready_at = now() + interval '100 ms' WHERE l.workspace_id = v_lane.workspace_id;
        IF v_lane.lease_until < now() THEN
            PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
            WHERE k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND k.classid = 2004251395 AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
        END IF;
        RETURN;
    END IF;
    SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
    IF NOT FOUND THEN
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(2004251395, v_lane.lane_no);
        RETURN;
    END IF;
    UPDATE wvs.queue q SET state = 'running', progress = NULL WHERE q.task_id = v_head.task_id;
    UPDATE wvs.lanes l SET
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, coalesce(v_lane.task_id IS NOT NULL AND v_lane.deadline_at < now(), false),
        v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        extract(epoch FROM now() - v_head.queued_at)::float8, v_lane.ready_at;
END $$;

-- Renews the lease and stores progress, both only for the fence that holds. Answers what the holder has to do:
-- 'go_on', 'cancel' (asked to end at the next safe point), 'deadline' (its time is over) or 'stale' (stop at once).
CREATE FUNCTION wvs.renew_lease(
    p_workspace uuid, p_fence bigint, p_task uuid, p_lease_s double precision, p_progress jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_deadline timestamptz;
    v_cancel boolean;
BEGIN
    SELECT l.deadline_at INTO v_deadline FROM wvs.lanes l
    WHERE l.workspace_id = p_workspace AND l.fence = p_fence AND l.task_id = p_task FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'stale';
    END IF;
    IF v_deadline < now() THEN
        RETURN 'deadline';
    END IF;
    IF p_lease_s IS NOT NULL THEN
        UPDATE wvs.lanes l SET lease_until = now() + make_interval(secs => p_lease_s)
        WHERE l.workspace_id = p_workspace;
    END IF;
    IF p_progress IS NOT NULL THEN
        UPDATE wvs.queue q SET progress = p_progress WHERE q.task_id = p_task;
    END IF;
    SELECT q.cancel_requested INTO v_cancel FROM wvs.queue q WHERE q.task_id = p_task;
    RETURN CASE WHEN v_cancel THEN 'cancel' ELSE 'go_on' END;
END $$;

-- Makes lanes claimable whose holder is gone (its advisory lock vanished) or hangs (its lease or deadline is over).
CREATE FUNCTION wvs.reap_lanes() RETURNS TABLE (workspace_id uuid, task_id uuid, fence bigint, executor text, reason text)
LANGUAGE sql AS $$
    UPDATE wvs.lanes l SET ready_at = now()
    FROM (
        SELECT r.workspace_id,
               CASE WHEN k.pid IS NULL THEN 'holder_gone' WHEN r.lease_until < now() THEN 'lease_over' END AS reason
        FROM wvs.lanes r
        LEFT JOIN pg_locks k
          ON k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND k.classid = 2004251395 AND k.objid = r.lane_no::oid AND k.objsubid = 2 AND k.granted
        WHERE r.task_id IS NOT NULL AND r.ready_at IS NULL AND (k.pid IS NULL OR r.lease_until < now())
        FOR UPDATE OF r SKIP LOCKED
    ) gone
    WHERE l.workspace_id = gone.workspace_id AND l.task_id IS NOT NULL AND l.ready_at IS NULL
    RETURNING l.workspace_id, l.task_id, l.fence, l.executor, gone.reason
$$;

-- migrate:down
DROP FUNCTION wvs.reap_lanes, wvs.renew_lease, wvs.claim_task;
