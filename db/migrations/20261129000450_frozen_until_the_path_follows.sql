-- migrate:up

-- What a session has to do now: run, freeze, confirm, switch or end. `number` changes whenever the answer may have changed.
-- `resume`: the member may resume as soon as it has checked that it was frozen throughout. A session that has not switched
-- to the present live tree stays frozen until its directive is `switch`. Nobody starts or switches before the path shows that
-- tree: until then the directive is `freeze`, with the number of the last freeze, and each answer prolongs it by its budget:
-- else an agent would resume in a tree that was replaced when the executor died before the path followed.
CREATE OR REPLACE FUNCTION wvs.directive_for(p_session uuid)
RETURNS TABLE (
    workspace_id uuid, number bigint, kind text, "freeze" bigint, member boolean, resume boolean,
    budget_s double precision, epoch bigint, live_tree text, reason text
) LANGUAGE sql STABLE AS $$
    SELECT s.workspace_id,
           -- A freeze whose hold ran out changes the answer without a write; the last term lets the number say so.
           l.directives + s.directives + w.epoch + (w.state = 'disabled')::integer
               + (CASE WHEN f.number IS NOT NULL AND NOT f.holds THEN 1000000000000 ELSE 0 END),
           CASE
               WHEN s.state <> 'active' OR w.state = 'disabled' THEN 'end'
               WHEN f.holds AND f.phase = 'confirming' AND m.state = 'frozen' THEN 'confirm'
               WHEN f.holds AND NOT coalesce(m.told, false) THEN 'freeze'
               WHEN l.link_pending IS NOT NULL THEN 'freeze'
               WHEN s.epoch < w.epoch THEN 'switch'
               ELSE 'run'
           END,
           CASE WHEN f.holds THEN f.number WHEN l.link_pending IS NOT NULL THEN nullif(l.freezes, 0) END,
           m.session_id IS NOT NULL,
           coalesce(f.holds AND f.resumes AND f.phase = 'confirming' AND m.state = 'frozen' AND s.epoch = w.epoch, false),
           CASE
               WHEN f.holds THEN greatest(extract(epoch FROM f.holds_until - clock_timestamp()), 0)::float8
               WHEN l.link_pending IS NOT NULL THEN (
                   SELECT coalesce(o.budget_s, 30) FROM wvs.freezes o
                   WHERE o.workspace_id = s.workspace_id AND o.number = l.freezes)
           END,
           w.epoch, w.live_tree,
           CASE WHEN w.state = 'disabled' THEN 'the workspace is disabled' ELSE s.reason END
    FROM wvs.sessions s
    JOIN wvs.lanes l ON l.workspace_id = s.workspace_id
    JOIN wvs.workspaces w ON w.id = s.workspace_id
    LEFT JOIN LATERAL (
        -- A hold ends at most a budget from now, unless the clock was set back: then the freeze is over, or agents would
        -- stay frozen for that time if the executor dies.
        SELECT o.number, o.phase, o.resumes, o.holds_until,
               o.holds_until > clock_timestamp()
                   AND o.holds_until <= clock_timestamp() + make_interval(secs => coalesce(o.budget_s, 1e6) + 1) AS holds
        FROM wvs.freezes o
        WHERE o.workspace_id = s.workspace_id AND o.phase <> 'over'
    ) f ON true
    LEFT JOIN wvs.freeze_members m
        ON m.workspace_id = s.workspace_id AND m.number = f.number AND m.session_id = s.id
    WHERE s.id = p_session
$$;

-- migrate:down

-- What a session has to do now: run, freeze, confirm, switch or end. `number` changes whenever the answer may have changed.
-- `resume`: the member may resume as soon as it has checked that it was frozen throughout. A session that has not switched
-- to the present live tree stays frozen until its directive is `switch`. Nobody starts or switches before the path shows that
-- tree: until then the directive is `freeze`, with the number of the last freeze.
CREATE OR REPLACE FUNCTION wvs.directive_for(p_session uuid)
RETURNS TABLE (
    workspace_id uuid, number bigint, kind text, "freeze" bigint, member boolean, resume boolean,
    budget_s double precision, epoch bigint, live_tree text, reason text
) LANGUAGE sql STABLE AS $$
    SELECT s.workspace_id,
           -- A freeze whose hold ran out changes the answer without a write; the last term lets the number say so.
           l.directives + s.directives + w.epoch + (w.state = 'disabled')::integer
               + (CASE WHEN f.number IS NOT NULL AND NOT f.holds THEN 1000000000000 ELSE 0 END),
           CASE
               WHEN s.state <> 'active' OR w.state = 'disabled' THEN 'end'
               WHEN f.holds AND f.phase = 'confirming' AND m.state = 'frozen' THEN 'confirm'
               WHEN f.holds AND NOT coalesce(m.told, false) THEN 'freeze'
               WHEN l.link_pending IS NOT NULL THEN 'freeze'
               WHEN s.epoch < w.epoch THEN 'switch'
               ELSE 'run'
           END,
           CASE WHEN f.holds THEN f.number WHEN l.link_pending IS NOT NULL THEN nullif(l.freezes, 0) END,
           m.session_id IS NOT NULL,
           coalesce(f.holds AND f.resumes AND f.phase = 'confirming' AND m.state = 'frozen' AND s.epoch = w.epoch, false),
           CASE WHEN f.holds THEN greatest(extract(epoch FROM f.holds_until - clock_timestamp()), 0)::float8 END,
           w.epoch, w.live_tree,
           CASE WHEN w.state = 'disabled' THEN 'the workspace is disabled' ELSE s.reason END
    FROM wvs.sessions s
    JOIN wvs.lanes l ON l.workspace_id = s.workspace_id
    JOIN wvs.workspaces w ON w.id = s.workspace_id
    LEFT JOIN LATERAL (
        -- A hold ends at most a budget from now, unless the clock was set back: then the freeze is over, or agents would
        -- stay frozen for that time if the executor dies.
        SELECT o.number, o.phase, o.resumes, o.holds_until,
               o.holds_until > clock_timestamp()
                   AND o.holds_until <= clock_timestamp() + make_interval(secs => coalesce(o.budget_s, 1e6) + 1) AS holds
        FROM wvs.freezes o
        WHERE o.workspace_id = s.workspace_id AND o.phase <> 'over'
    ) f ON true
    LEFT JOIN wvs.freeze_members m
        ON m.workspace_id = s.workspace_id AND m.number = f.number AND m.session_id = s.id
    WHERE s.id = p_session
$$;
