-- Takes one answer of a session to a freeze: `p_kind` is frozen, still_frozen or refused. Returns false if that freeze is not
-- the open one, or not in the phase for this answer. Returns true again for an answer that was taken before.
CREATE OR REPLACE FUNCTION wvs.acknowledge(
    p_session uuid, p_freeze bigint, p_kind text, p_token text, p_flush text, p_reason text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_workspace uuid;
BEGIN
    SELECT s.workspace_id INTO v_workspace FROM wvs.sessions s WHERE s.id = p_session AND s.state = 'active';
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = v_workspace FOR UPDATE;
    PERFORM 1 FROM wvs.freezes f
    WHERE f.workspace_id = v_workspace AND f.number = p_freeze AND f.holds_until > clock_timestamp()
      AND f.phase = CASE p_kind WHEN 'still_frozen' THEN 'confirming' ELSE 'freezing' END;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE wvs.freeze_members m SET
        state = CASE
            WHEN p_kind = 'refused' THEN 'refused'
            WHEN p_kind = 'frozen' THEN 'frozen'
            WHEN m.token IS DISTINCT FROM p_token THEN 'broken'
            ELSE 'confirmed'
        END,
        token = CASE WHEN p_kind = 'frozen' THEN p_token ELSE m.token END,
        flush = CASE WHEN p_kind = 'frozen' THEN p_flush ELSE m.flush END,
        reason = coalesce(p_reason, m.reason),
        acked_at = clock_timestamp()
    WHERE m.workspace_id = v_workspace AND m.number = p_freeze AND m.session_id = p_session
      AND m.state = CASE p_kind WHEN 'still_frozen' THEN 'frozen' ELSE 'asked' END;
    -- The same word twice is fine: the first answer may have been lost on its way.
    RETURN FOUND OR EXISTS (
        SELECT FROM wvs.freeze_members m
        WHERE m.workspace_id = v_workspace AND m.number = p_freeze AND m.session_id = p_session
          AND ((p_kind = 'frozen' AND m.state = 'frozen' AND m.token = p_token)
            OR (p_kind = 'refused' AND m.state = 'refused')
            OR (p_kind = 'still_frozen' AND m.state = 'confirmed' AND m.token = p_token)));
END $$;
