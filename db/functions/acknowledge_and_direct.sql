-- wvs.acknowledge, and what the session has to do after it. Returns no row for an unknown session. `settled`: every member
-- has answered, or the freeze has failed; until then the executor need not be woken.
-- The commit is not waited for: if a crash of the server loses an answer, the freeze lacks it and fails closed.
CREATE OR REPLACE FUNCTION wvs.acknowledge_and_direct(
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
