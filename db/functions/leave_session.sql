-- Takes a session out of its workspace: 'ended' by its own request, 'evicted' by an operator's. Returns false if there is no
-- such active session. A member that has confirmed a freeze which resumes may leave: its proof is complete.
CREATE OR REPLACE FUNCTION wvs.leave_session(p_session uuid, p_state text, p_reason text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_workspace uuid;
BEGIN
    SELECT s.workspace_id INTO v_workspace FROM wvs.sessions s WHERE s.id = p_session;
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = v_workspace FOR UPDATE;
    UPDATE wvs.sessions s
    SET state = p_state, reason = p_reason, ended_at = now(), directives = s.directives + 1
    WHERE s.id = p_session AND s.state = 'active';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wvs.freeze_members m SET state = CASE p_state WHEN 'ended' THEN 'left' ELSE 'evicted' END
    FROM wvs.freezes f
    WHERE f.workspace_id = v_workspace AND f.phase <> 'over'
      AND m.workspace_id = v_workspace AND m.number = f.number AND m.session_id = p_session
      AND NOT (f.resumes AND m.state = 'confirmed');
    RETURN true;
END $$;
