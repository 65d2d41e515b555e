-- Takes answers of sessions of one workspace to freezes, in the given order, each as wvs.acknowledge does, and returns what
-- each session has to do next. `word` is the number of the answer, from 1; an unknown session has no row. All sessions must
-- belong to one workspace, so that only one lane is locked. `settled`, after all answers: every member has answered, or the
-- freeze has failed; until then nobody need wake the executor. The leases of the sessions are renewed.
-- `p_details` are JSON objects, or nulls, whose fields are added to what the member said before in this freeze.
-- The commit does not wait for its flush: if a crash of the server loses an answer, the freeze lacks it and fails closed.
-- Whatever depends on an answer is committed later, and therefore flushed after it.
CREATE OR REPLACE FUNCTION wvs.acknowledge_together_v2(
    p_sessions uuid[], p_freezes bigint[], p_kinds text[], p_tokens text[], p_flushes text[], p_reasons text[],
    p_details text[]
) RETURNS TABLE (
    word bigint, taken boolean, settled boolean, workspace_id uuid, number bigint, kind text, "freeze" bigint,
    member boolean, resume boolean, budget_s double precision, epoch bigint, live_tree text, reason text,
    looked_from text
) LANGUAGE plpgsql AS $$
DECLARE
    v_taken boolean[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR i IN 1 .. cardinality(p_sessions) LOOP
        v_taken[i] := wvs.acknowledge(p_sessions[i], p_freezes[i], p_kinds[i], p_tokens[i], p_flushes[i], p_reasons[i]);
        IF v_taken[i] AND p_details[i] IS NOT NULL THEN
            UPDATE wvs.freeze_members m SET details = coalesce(m.details, '{}') || p_details[i]::jsonb
            FROM wvs.sessions s
            WHERE s.id = p_sessions[i] AND m.workspace_id = s.workspace_id AND m.number = p_freezes[i]
              AND m.session_id = s.id;
        END IF;
    END LOOP;
    UPDATE wvs.sessions s SET lease_until = clock_timestamp() + make_interval(secs => s.lease_s)
    WHERE s.id = ANY (p_sessions) AND s.state = 'active'
      AND s.lease_until < clock_timestamp() + make_interval(secs => 0.9 * s.lease_s);
    -- Who has confirmed a freeze that resumes is told to run, which is a new number for it.
    WITH told AS (
        UPDATE wvs.freeze_members m SET told = true
        FROM wvs.freezes f, wvs.sessions s, wvs.workspaces w
        WHERE f.workspace_id = m.workspace_id AND f.number = m.number AND f.phase = 'confirming' AND f.resumes
          AND m.session_id = ANY (p_sessions) AND m.state = 'confirmed' AND NOT m.told
          AND s.id = m.session_id AND w.id = m.workspace_id AND s.epoch = w.epoch
        RETURNING m.session_id)
    UPDATE wvs.sessions s SET directives = s.directives + 1 FROM told WHERE s.id = told.session_id;
    RETURN QUERY
    WITH counted AS (
        SELECT m.workspace_id, m.number, bool_or(m.state IN ('refused', 'broken')) AS failed,
               bool_or(m.state = 'asked') AS asked, bool_or(m.state = 'frozen') AS frozen
        FROM wvs.freeze_members m
        WHERE m.workspace_id = (SELECT s.workspace_id FROM wvs.sessions s WHERE s.id = p_sessions[1])
          AND m.number = ANY (p_freezes)
        GROUP BY m.workspace_id, m.number
    )
    SELECT w.n, v_taken[w.n],
           coalesce(c.failed OR NOT CASE p_kinds[w.n] WHEN 'still_frozen' THEN c.frozen ELSE c.asked END, true), d.*,
           (SELECT f.looked_from FROM wvs.freezes f WHERE f.workspace_id = d.workspace_id AND f.number = d."freeze")
    FROM unnest(p_sessions) WITH ORDINALITY AS w (session_id, n)
    CROSS JOIN LATERAL wvs.directive_for(w.session_id) d
    LEFT JOIN counted c ON c.workspace_id = d.workspace_id AND c.number = p_freezes[w.n];
END $$;
