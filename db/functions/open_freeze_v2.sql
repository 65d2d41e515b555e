-- Opens the next freeze for the claim that holds the lane, and ends one that was left open. Returns no row if the claim is
-- stale. The required set is exact: registering and leaving lock the lane's row too.
-- `p_looked_from` names the processes among which the executor looks for bystanders itself, or is null.
-- `directives` grows by 3, so that no session has seen the number. A crash of the server may lose the last two numbers that a
-- session has seen, because their commits were not waited for; the session waits for a number other than the last one it saw.
CREATE OR REPLACE FUNCTION wvs.open_freeze_v2(
    p_workspace uuid, p_fence bigint, p_task uuid, p_budget_s double precision, p_looked_from text
) RETURNS TABLE (number bigint, members integer) LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_members integer;
BEGIN
    UPDATE wvs.lanes l SET freezes = l.freezes + 1, directives = l.directives + 3
    WHERE l.workspace_id = p_workspace AND l.fence = p_fence AND l.task_id = p_task
    RETURNING l.freezes INTO v_number;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE wvs.freezes f SET phase = 'over', outcome = 'abandoned', over_at = now()
    WHERE f.workspace_id = p_workspace AND f.phase <> 'over';
    -- Kept only to look at; the proof of each freeze is with its event.
    DELETE FROM wvs.freezes f WHERE f.workspace_id = p_workspace AND f.number < v_number - 10;
    DELETE FROM wvs.freeze_members m WHERE m.workspace_id = p_workspace AND m.number < v_number - 10;
    INSERT INTO wvs.freezes (workspace_id, number, task_id, fence, phase, holds_until, budget_s, looked_from)
    VALUES (p_workspace, v_number, p_task, p_fence, 'freezing', now() + make_interval(secs => p_budget_s),
            p_budget_s, p_looked_from);
    INSERT INTO wvs.freeze_members (workspace_id, number, session_id)
    SELECT p_workspace, v_number, s.id FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active';
    GET DIAGNOSTICS v_members = ROW_COUNT;
    RETURN QUERY SELECT v_number, v_members;
END $$;
