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
        -- Not below 0: the clock of the database may have been set back since.
        greatest(extract(epoch FROM now() - v_head.queued_at), 0)::float8, v_lane.ready_at;
END $$;
