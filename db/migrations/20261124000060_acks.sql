-- migrate:up

-- wvs.acknowledge, and what the session is to do after it. No row: there is no such session.
-- The commit is not waited for: a word that a crash of the server loses is missing, and a freeze that misses a word fails
-- closed. What is published on the strength of it is committed later, and therefore flushed after it.
CREATE FUNCTION wvs.acknowledge_and_direct(
    p_session uuid, p_freeze bigint, p_kind text, p_token text, p_flush text, p_reason text
) RETURNS TABLE (
    taken boolean, workspace_id uuid, number bigint, kind text, "freeze" bigint, member boolean,
    budget_s double precision, epoch bigint, live_tree text, reason text
) LANGUAGE plpgsql AS $$
DECLARE
    v_taken boolean;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    v_taken := wvs.acknowledge(p_session, p_freeze, p_kind, p_token, p_flush, p_reason);
    RETURN QUERY SELECT v_taken, d.* FROM wvs.directive_of(p_session) d;
END $$;

-- migrate:down
DROP FUNCTION wvs.acknowledge_and_direct;
