-- Registers a session and returns the state of the workspace; nothing is written unless that is 'active'. A session that
-- registers during a freeze is not a member of it, and stays frozen until the freeze ends.
CREATE OR REPLACE FUNCTION wvs.register_session_v2(
    p_id uuid, p_workspace uuid, p_agent text, p_host text, p_pid integer, p_lease_s double precision,
    p_secret_hash bytea
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_workspace wvs.workspaces;
BEGIN
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    SELECT * INTO v_workspace FROM wvs.workspaces w WHERE w.id = p_workspace;
    IF v_workspace.state = 'active' THEN
        INSERT INTO wvs.sessions (id, workspace_id, agent, host, pid, epoch, lease_s, lease_until, secret_hash)
        VALUES (p_id, p_workspace, p_agent, p_host, p_pid, v_workspace.epoch, p_lease_s,
                now() + make_interval(secs => p_lease_s), p_secret_hash);
    END IF;
    RETURN v_workspace.state;
END $$;
