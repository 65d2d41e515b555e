-- Ends a freeze: its sessions resume. They get a new directive unless all of them run already. Returns false if the freeze had
-- ended before. The sessions are read after the lane is locked, because a session may register while this function waits.
CREATE OR REPLACE FUNCTION wvs.close_freeze(p_workspace uuid, p_number bigint, p_outcome text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    UPDATE wvs.freezes f SET phase = 'over', outcome = p_outcome, over_at = clock_timestamp()
    WHERE f.workspace_id = p_workspace AND f.number = p_number AND f.phase <> 'over';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wvs.lanes l SET directives = l.directives + 1
    WHERE l.workspace_id = p_workspace AND EXISTS (
        SELECT FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active' AND NOT EXISTS (
            SELECT FROM wvs.freeze_members m
            WHERE m.workspace_id = p_workspace AND m.number = p_number AND m.session_id = s.id AND m.told));
    RETURN true;
END $$;
