-- Releases the lock that shows that the holder of a lane is alive. Returns whether a task of the lane can be claimed now. A
-- lane that other executors postponed meanwhile can be claimed at once. The row is locked after the advisory lock is released:
-- an executor that tried in between has postponed the lane by then, and one that tries later succeeds.
CREATE OR REPLACE FUNCTION wvs.release_lane(p_workspace uuid, p_lane_no integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_ready_at timestamptz;
BEGIN
    PERFORM pg_advisory_unlock(wvs.holder_lock(), p_lane_no);
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    UPDATE wvs.lanes l SET ready_at = (
        SELECT greatest(q.run_at, now()) FROM wvs.queue q WHERE q.workspace_id = p_workspace ORDER BY q.seq LIMIT 1)
    WHERE l.workspace_id = p_workspace AND l.task_id IS NULL AND l.ready_at > now();
    SELECT l.ready_at INTO v_ready_at FROM wvs.lanes l WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
    RETURN coalesce(v_ready_at <= now(), false);
END $$;
