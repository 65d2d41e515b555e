-- migrate:up
ALTER TABLE wvs.lanes ADD COLUMN overdue boolean DEFAULT false NOT NULL;

-- Claims the lane that has been ready longest, and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (wvs.holder_lock(), lane_no) shows that the holder is alive: it is taken before the claim is
-- visible, and ends with the connection. If the lock of a lane is held, the function postpones the lane a little and tries the
-- next one. If the holder keeps the lock beyond its lease, the function terminates that connection, and a later call can claim
-- the lane. `p_after` bounds the index scan from below, to skip the dead entries of claimed lanes. `took_over`: the task was
-- running under an older fence. `overdue`: its holder was alive at its deadline and did not end. `link_pending`: the link has
-- yet to follow an earlier task.
CREATE OR REPLACE FUNCTION wvs.claim_task(
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
        IF NOT pg_try_advisory_lock(wvs.holder_lock(), v_lane.lane_no) THEN
            UPDATE wvs.lanes l SET ready_at = now() + interval '100 ms' WHERE l.workspace_id = v_lane.workspace_id;
            IF v_lane.lease_until < now() THEN
                PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
                WHERE k.locktype = 'advisory'
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND k.classid = wvs.holder_lock() AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
            END IF;
            CONTINUE;
        END IF;
        -- Nobody changes the queue of this lane now: whoever removes from it holds the lane's row, and so do we.
        SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
        EXIT WHEN FOUND;
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(wvs.holder_lock(), v_lane.lane_no);
    END LOOP;
    UPDATE wvs.queue q SET state = 'running', progress = NULL WHERE q.task_id = v_head.task_id;
    UPDATE wvs.lanes l SET
        task_id = v_head.task_id, fence = l.fence + 1, ready_at = NULL, executor = p_executor, overdue = false,
        lease_until = now() + make_interval(secs => p_lease_s),
        deadline_at = now() + make_interval(secs => (p_deadlines_s ->> v_head.kind)::float8)
    WHERE l.workspace_id = v_lane.workspace_id;
    RETURN QUERY SELECT
        v_lane.workspace_id, v_lane.lane_no, v_lane.fence + 1, v_head.task_id, v_head.kind,
        v_lane.task_id IS NOT NULL, v_lane.task_id IS NOT NULL AND v_lane.overdue,
        v_lane.link_pending IS NOT NULL, v_head.request_id, v_head.traceparent, v_head.idempotency_key,
        extract(epoch FROM now() - v_head.queued_at)::float8, v_lane.ready_at;
END $$;

-- Renews the lease and stores progress, both only if the fence holds. Returns what the holder has to do: 'go_on', 'cancel'
-- (end at the next safe point), 'deadline' (its time is over; no lease is renewed beyond it), 'ended' (its task has ended, and
-- nobody has claimed the lane since) or 'stale' (stop at once). A holder that gets 'deadline' is marked overdue: if the task
-- is taken over later, its holder was alive at the deadline and hung; it did not vanish in an outage before it.
CREATE OR REPLACE FUNCTION wvs.renew_lease(
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
        UPDATE wvs.lanes l SET overdue = true WHERE l.workspace_id = p_workspace AND NOT l.overdue;
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

-- Makes lanes claimable again whose holder is gone (its advisory lock is released) or hangs (its lease has expired).
-- A holder that still has its connection at its deadline hangs: its task is overdue.
--
-- The claims are read first, and the locks in a later statement: a claim takes its lock before it is visible, and ends before
-- it releases the lock. Therefore a claim has no holder if the first statement saw it, the later one found no lock, and the
-- claim still exists. A single statement could combine the next task's claim with the state of the previous task's lock.
CREATE OR REPLACE FUNCTION wvs.reap_lanes() RETURNS TABLE (workspace_id uuid, task_id uuid, fence bigint, executor text, reason text)
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
         AND k.classid = wvs.holder_lock() AND k.objid = c.lane_no::oid AND k.objsubid = 2 AND k.granted
        WHERE l.ready_at IS NULL AND (k.pid IS NULL OR l.lease_until < now())
        FOR UPDATE OF l SKIP LOCKED
    )
    UPDATE wvs.lanes l SET ready_at = now(), overdue = l.overdue OR (g.reason = 'lease_over' AND l.deadline_at < now())
    FROM gone g WHERE l.workspace_id = g.workspace_id
    RETURNING l.workspace_id, l.task_id, l.fence, l.executor, g.reason;
END $$;

-- migrate:down

-- Makes lanes claimable whose holder is gone (its advisory lock is released) or hangs (its lease is over).
--
-- The claims are read first, and the locks in a later statement: a claim takes its lock before it is visible, and ends before
-- it releases the lock. A claim that was seen first, is not locked then, and is still there now, has no holder. In one
-- statement the lock of the last task and the claim of the next one could be taken for one another.
CREATE OR REPLACE FUNCTION wvs.reap_lanes() RETURNS TABLE (workspace_id uuid, task_id uuid, fence bigint, executor text, reason text)
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
         AND k.classid = wvs.holder_lock() AND k.objid = c.lane_no::oid AND k.objsubid = 2 AND k.granted
        WHERE l.ready_at IS NULL AND (k.pid IS NULL OR l.lease_until < now())
        FOR UPDATE OF l SKIP LOCKED
    )
    UPDATE wvs.lanes l SET ready_at = now() FROM gone g WHERE l.workspace_id = g.workspace_id
    RETURNING l.workspace_id, l.task_id, l.fence, l.executor, g.reason;
END $$;

-- Renews the lease and stores progress, both only for the fence that holds. Answers what the holder has to do:
-- 'go_on', 'cancel' (asked to end at the next safe point), 'deadline' (its time is over: no lease is renewed beyond it),
-- 'ended' (its task ended, and nobody claimed the lane since) or 'stale' (stop at once).
CREATE OR REPLACE FUNCTION wvs.renew_lease(
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

-- Claims the lane that has been ready longest, and its head task: one round trip, on the executor's own connection.
--
-- The session-level advisory lock (wvs.holder_lock(), lane_no) shows that the holder is alive: it is taken before the claim is
-- visible, and ends with the connection. A lane whose lock is held is put off a little, and the next one is tried. If its
-- holder keeps the lock beyond its lease, that connection is ended, and a later call can claim the lane.
-- `p_after` bounds the index scan from below, where dead entries of claimed lanes lie. `took_over`: the task was running
-- under an older fence. `overdue`: it was past its deadline. `link_pending`: the link has yet to follow an earlier task.
CREATE OR REPLACE FUNCTION wvs.claim_task(
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
        IF NOT pg_try_advisory_lock(wvs.holder_lock(), v_lane.lane_no) THEN
            UPDATE wvs.lanes l SET ready_at = now() + interval '100 ms' WHERE l.workspace_id = v_lane.workspace_id;
            IF v_lane.lease_until < now() THEN
                PERFORM pg_terminate_backend(k.pid) FROM pg_locks k
                WHERE k.locktype = 'advisory'
                  AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                  AND k.classid = wvs.holder_lock() AND k.objid = v_lane.lane_no::oid AND k.objsubid = 2 AND k.granted;
            END IF;
            CONTINUE;
        END IF;
        -- Nobody changes the queue of this lane now: whoever removes from it holds the lane's row, and so do we.
        SELECT * INTO v_head FROM wvs.queue q WHERE q.workspace_id = v_lane.workspace_id ORDER BY q.seq LIMIT 1;
        EXIT WHEN FOUND;
        UPDATE wvs.lanes l SET ready_at = NULL WHERE l.workspace_id = v_lane.workspace_id;
        PERFORM pg_advisory_unlock(wvs.holder_lock(), v_lane.lane_no);
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

ALTER TABLE wvs.lanes DROP COLUMN overdue;
