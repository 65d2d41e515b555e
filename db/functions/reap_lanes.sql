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
