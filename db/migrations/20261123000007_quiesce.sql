-- migrate:up

-- `directives` numbers what the sessions of a workspace are told: it grows with every change of a freeze.
ALTER TABLE wvs.lanes ADD COLUMN directives bigint NOT NULL DEFAULT 0;

-- A session is one registered agent. An expired lease does not end it: only its own word, or a person's, does.
CREATE TABLE wvs.sessions (
    id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'ended', 'evicted')),
    agent text NOT NULL,
    host text NOT NULL,
    pid integer,
    epoch bigint NOT NULL,
    lease_s double precision NOT NULL,
    lease_until timestamptz NOT NULL,
    directives bigint NOT NULL DEFAULT 0,
    reason text,
    registered_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX sessions_active_idx ON wvs.sessions (workspace_id, id) WHERE state = 'active';
CREATE INDEX sessions_workspace_idx ON wvs.sessions (workspace_id, id);

-- A freeze that is not over holds until `holds_until`; its executor moves that on while it lives. Past it the sessions
-- are told to run, whoever died.
CREATE TABLE wvs.freezes (
    workspace_id uuid NOT NULL,
    number bigint NOT NULL,
    task_id uuid NOT NULL,
    fence bigint NOT NULL,
    phase text NOT NULL CHECK (phase IN ('freezing', 'confirming', 'over')),
    outcome text,
    opened_at timestamptz NOT NULL DEFAULT now(),
    holds_until timestamptz NOT NULL,
    over_at timestamptz,
    PRIMARY KEY (workspace_id, number)
);
CREATE UNIQUE INDEX freezes_open_idx ON wvs.freezes (workspace_id) WHERE phase <> 'over';

-- The required set of a freeze, fixed when it is opened.
CREATE TABLE wvs.freeze_members (
    workspace_id uuid NOT NULL,
    number bigint NOT NULL,
    session_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'asked'
        CHECK (state IN ('asked', 'frozen', 'confirmed', 'refused', 'broken', 'left', 'evicted')),
    token text,
    flush text,
    reason text,
    acked_at timestamptz,
    PRIMARY KEY (workspace_id, number, session_id)
);

-- Opens the next freeze for the claim that holds the lane; an earlier one that was left open is over. The lane's row is
-- the lock that registration and leaving take too, so that the required set is exact. No row: the claim is stale.
CREATE FUNCTION wvs.open_freeze(p_workspace uuid, p_fence bigint, p_task uuid, p_budget_s double precision)
RETURNS TABLE (number bigint, members integer) LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_members integer;
BEGIN
    UPDATE wvs.lanes l SET freezes = l.freezes + 1, directives = l.directives + 1
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
    INSERT INTO wvs.freezes (workspace_id, number, task_id, fence, phase, holds_until)
    VALUES (p_workspace, v_number, p_task, p_fence, 'freezing', now() + make_interval(secs => p_budget_s));
    INSERT INTO wvs.freeze_members (workspace_id, number, session_id)
    SELECT p_workspace, v_number, s.id FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active';
    GET DIAGNOSTICS v_members = ROW_COUNT;
    RETURN QUERY SELECT v_number, v_members;
END $$;

-- Registers a session and answers the workspace's state: nothing was written unless that is 'active'. Whoever registers
-- during a freeze is no member of it and is told to stay frozen until it is over.
CREATE FUNCTION wvs.register_session(
    p_id uuid, p_workspace uuid, p_agent text, p_host text, p_pid integer, p_lease_s double precision
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_workspace wvs.workspaces;
BEGIN
    PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    SELECT * INTO v_workspace FROM wvs.workspaces w WHERE w.id = p_workspace;
    IF v_workspace.state = 'active' THEN
        INSERT INTO wvs.sessions (id, workspace_id, agent, host, pid, epoch, lease_s, lease_until)
        VALUES (p_id, p_workspace, p_agent, p_host, p_pid, v_workspace.epoch, p_lease_s,
                now() + make_interval(secs => p_lease_s));
    END IF;
    RETURN v_workspace.state;
END $$;

-- What a session is to do now. `number` changes whenever the answer may have changed.
CREATE FUNCTION wvs.directive_of(p_session uuid)
RETURNS TABLE (
    workspace_id uuid, number bigint, kind text, "freeze" bigint, member boolean, budget_s double precision,
    epoch bigint, live_tree text, reason text
) LANGUAGE sql STABLE AS $$
    SELECT s.workspace_id,
           -- A freeze whose hold ran out changes the answer without a write; the last term lets the number say so.
           l.directives + s.directives + w.epoch + (CASE WHEN f.number IS NOT NULL AND NOT f.holds THEN 1000000000000 ELSE 0 END),
           CASE
               WHEN s.state <> 'active' OR w.state = 'disabled' THEN 'end'
               WHEN f.holds AND f.phase = 'confirming' AND m.state = 'frozen' THEN 'confirm'
               WHEN f.holds THEN 'freeze'
               WHEN s.epoch < w.epoch THEN 'switch'
               ELSE 'run'
           END,
           CASE WHEN f.holds THEN f.number END,
           m.session_id IS NOT NULL,
           CASE WHEN f.holds THEN extract(epoch FROM f.holds_until - clock_timestamp())::float8 END,
           w.epoch, w.live_tree,
           CASE WHEN w.state = 'disabled' THEN 'the workspace is disabled' ELSE s.reason END
    FROM wvs.sessions s
    JOIN wvs.lanes l ON l.workspace_id = s.workspace_id
    JOIN wvs.workspaces w ON w.id = s.workspace_id
    LEFT JOIN LATERAL (
        SELECT o.number, o.phase, o.holds_until, o.holds_until > clock_timestamp() AS holds FROM wvs.freezes o
        WHERE o.workspace_id = s.workspace_id AND o.phase <> 'over'
    ) f ON true
    LEFT JOIN wvs.freeze_members m
        ON m.workspace_id = s.workspace_id AND m.number = f.number AND m.session_id = s.id
    WHERE s.id = p_session
$$;

-- Takes a session's word on a freeze. False: that freeze is not the one that holds, or not in the phase for this word.
CREATE FUNCTION wvs.acknowledge(
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

-- Takes a session out: by its own word ('ended') or by a person's ('evicted'). False: there is no such active session.
CREATE FUNCTION wvs.leave_session(p_session uuid, p_state text, p_reason text) RETURNS boolean LANGUAGE plpgsql AS $$
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
      AND m.workspace_id = v_workspace AND m.number = f.number AND m.session_id = p_session;
    RETURN true;
END $$;

-- migrate:down
DROP FUNCTION wvs.leave_session, wvs.acknowledge, wvs.directive_of, wvs.register_session, wvs.open_freeze;
DROP TABLE wvs.freeze_members, wvs.freezes, wvs.sessions;
ALTER TABLE wvs.lanes DROP COLUMN directives;
