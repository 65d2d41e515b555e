-- migrate:up

-- wvs.acknowledge, and what the session is to do after it. No row: there is no such session. `settled`: nobody is waited
-- for any more, or the freeze has failed; the executor need not be woken before.
-- The commit is not waited for: a word that a crash of the server loses is missing, and a freeze that misses a word fails
-- closed. What is published on the strength of it is committed later, and therefore flushed after it.
CREATE FUNCTION wvs.acknowledge_and_direct(
    p_session uuid, p_freeze bigint, p_kind text, p_token text, p_flush text, p_reason text
) RETURNS TABLE (
    taken boolean, settled boolean, workspace_id uuid, number bigint, kind text, "freeze" bigint, member boolean,
    budget_s double precision, epoch bigint, live_tree text, reason text
) LANGUAGE plpgsql AS $$
DECLARE
    v_taken boolean;
    v_settled boolean;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    v_taken := wvs.acknowledge(p_session, p_freeze, p_kind, p_token, p_flush, p_reason);
    SELECT bool_or(m.state IN ('refused', 'broken'))
        OR NOT bool_or(m.state = CASE p_kind WHEN 'still_frozen' THEN 'frozen' ELSE 'asked' END) INTO v_settled
    FROM wvs.sessions s JOIN wvs.freeze_members m ON m.workspace_id = s.workspace_id AND m.number = p_freeze
    WHERE s.id = p_session;
    RETURN QUERY SELECT v_taken, coalesce(v_settled, true), d.* FROM wvs.directive_of(p_session) d;
END $$;

-- migrate:down
DROP FUNCTION wvs.acknowledge_and_direct;
