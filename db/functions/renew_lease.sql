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
