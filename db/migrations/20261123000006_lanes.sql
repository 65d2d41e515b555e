-- migrate:up

-- Claims the lane that has been ready longest and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (0x77767303, lane_no) shows that the holder is alive: it is taken before the claim is
-- visible and vanishes with the connection. A lane whose lock is held is put off a little, and the next one is tried;
-- where its holder hangs on to it past its lease, that connection is ended, and the lane is free at a later call.
-- `p_after` bounds the index scan from below (dead entries of claimed lanes lie there). `took_over` tells that the task
-- was running under an older fence, `overdue` that it was past its deadline, `link_pending` that the link has yet to
-- follow an earlier task.
CREATE FUNCTION wvs.claim_task(
    p_executor text, p_lease_s double precision, p_deadlines_s jsonb, p_after timestamptz
) RETURNS TABLE (
    workspace_id uuid, lane_no integer, fence bigint, task_id uuid, kind text, took_over boolean, overdue boolean,
    link_pending boolean, request_id text, traceparent text, idempotency_key text, waited_s double precision,
    ready_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    v_lane wvs.lanes;
    v_head wvs.queue;
BEGIN
    LOOP
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
                WHERE k.locktype = 'advisory'
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND k.classid = 2004251395 AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
            END IF;
            CONTINUE;
        END IF;
        -- Nobody changes the queue of this lane now: whoever removes from it holds the lane's row, and so do we.
        SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
        EXIT WHEN FOUND;
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(2004251395, v_lane.lane_no);
    END LOOP;
    UPDATE wvs.queue q SET state = 'running', progress = NULL WHERE q.task_id = v_head.task_id;
    UPDATE wvs.lanes l SET
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, coalesce(v_lane.task_id IS NOT NULL AND v_lane.deadline_at < now(), false),
        v_lane.link_pending IS NOT NULL, v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        extract(epoch FROM now() - v_head.queued_at)::float8, v_lane.ready_at;
END $$;

-- Renews the lease and stores progress, both only for the fence that holds. Answers what the holder has to do:
-- 'go_on', 'cancel' (asked to end at the next safe point), 'deadline' (its time is over: no lease is renewed beyond it),
-- 'ended' (its task ended, and nobody claimed the lane since) or 'stale' (stop at once).
CREATE FUNCTION wvs.renew_lease(
    p_workspace uuid, p_fence bigint, p_task uuid, p_lease_s double precision, p_progress jsonb
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_lane wvs.lanes;
    v_cancel boolean;
BEGIN
    SELECT * INTO v_lane FROM wvs.lanes l
    WHERE l.workspace_id = p_workspace AND l.fence = p_fence AND coalesce(l.task_id, p_task) = p_task FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'stale';
    END IF;
    IF v_lane.deadline_at < now() THEN
        RETURN 'deadline';
    END IF;
    IF p_lease_s IS NOT NULL THEN
        UPDATE wvs.lanes l SET lease_until = now() + make_interval(secs => p_lease_s)
        WHERE l.workspace_id = p_workspace;
    END IF;
    IF v_lane.task_id IS NULL THEN
        RETURN 'ended';
    END IF;
    IF p_progress IS NOT NULL THEN
        UPDATE wvs.queue q SET progress = p_progress WHERE q.task_id = p_task;
    END IF;
    SELECT q.cancel_requested INTO v_cancel FROM wvs.queue q WHERE q.task_id = p_task;
    RETURN CASE WHEN v_cancel THEN 'cancel' ELSE 'go_on' END;
END $$;

-- Gives up the lock that shows the holder to be alive. A lane that others put off meanwhile gets its time back; true if
-- a task of it can be claimed now. The row's lock comes after the other one: who tried in between has put the lane off
-- by then, and who tries later succeeds.
CREATE FUNCTION wvs.release_lane(p_workspace uuid, p_lane_no integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_ready_at timestamptz;
BEGIN
    PERFORM pg_advisory_unlock(2004251395, p_lane_no);
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    UPDATE wvs.lanes l SET ready_at = (
        SELECT greatest(q.run_at, now()) FROM wvs.queue q WHERE q.workspace_id = p_workspace ORDER BY q.seq LIMIT 1)
    WHERE l.workspace_id = p_workspace AND l.task_id IS NULL AND l.ready_at > now();
    SELECT l.ready_at INTO v_ready_at FROM wvs.lanes l WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
    RETURN coalesce(v_ready_at <= now(), false);
END $$;

-- Makes lanes claimable whose holder is gone (its advisory lock vanished) or hangs (its lease is over).
--
-- The claims are read first and the locks in a later statement: a claim takes its lock before it is visible and ends
-- before it lets go, so that a claim seen first, not seen locked then, and still there now, has no holder. In one
-- statement the lock of the last task and the claim of the next one could be taken for one another.
CREATE FUNCTION wvs.reap_lanes() RETURNS TABLE (workspace_id uuid, task_id uuid, fence bigint, executor text, reason text)
LANGUAGE plpgsql AS $$
DECLARE
    v_claims wvs.lanes[];
BEGIN
    SELECT array_agg(l) INTO v_claims FROM wvs.lanes l WHERE l.task_id IS NOT NULL AND l.ready_at IS NULL;
    RETURN QUERY
    WITH gone AS (
        SELECT l.workspace_id, CASE WHEN k.pid IS NULL THEN 'holder_gone' ELSE 'lease_over' END AS reason
        FROM unnest(v_claims) c
        JOIN wvs.lanes l ON l.workspace_id = c.workspace_id AND l.fence = c.fence AND l.task_id = c.task_id
        LEFT JOIN pg_locks k
          ON k.locktype = 'advisory' AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
         AND k.classid = 2004251395 AND k.objid = c.lane_no::oid AND k.objsubid = 2 AND k.granted
        WHERE l.ready_at IS NULL AND (k.pid IS NULL OR l.lease_until < now())
        FOR UPDATE OF l SKIP LOCKED
    )
    UPDATE wvs.lanes l SET ready_at = now() FROM gone g WHERE l.workspace_id = g.workspace_id
    RETURNING l.workspace_id, l.task_id, l.fence, l.executor, g.reason;
END $$;

-- migrate:down
DROP FUNCTION wvs.reap_lanes, wvs.release_lane, wvs.renew_lease, wvs.claim_task;
