-- migrate:up

-- What a member of a freeze added to its acknowledgements, and among which processes the executor of a freeze looks for
-- bystanders; null from a release before.
ALTER TABLE wvs.freeze_members ADD COLUMN details jsonb;
ALTER TABLE wvs.freezes ADD COLUMN looked_from text;
-- What a person has to know about a task that succeeded; null without.
ALTER TABLE wvs.tasks ADD COLUMN notes jsonb;

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

-- Opens the next freeze for the claim that holds the lane, and ends one that was left open. Returns no row if the claim is
-- stale. The required set is exact: registering and leaving lock the lane's row too.
-- `p_looked_from` names the processes among which the executor looks for bystanders itself, or is null.
-- `directives` grows by 3, so that no session has seen the number. A crash of the server may lose the last two numbers that a
-- session has seen, because their commits were not waited for; the session waits for a number other than the last one it saw.
CREATE OR REPLACE FUNCTION wvs.open_freeze_v2(
    p_workspace uuid, p_fence bigint, p_task uuid, p_budget_s double precision, p_looked_from text
) RETURNS TABLE (number bigint, members integer) LANGUAGE plpgsql AS $$
DECLARE
    v_number bigint;
    v_members integer;
BEGIN
    UPDATE wvs.lanes l SET freezes = l.freezes + 1, directives = l.directives + 3
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
    INSERT INTO wvs.freezes (workspace_id, number, task_id, fence, phase, holds_until, budget_s, looked_from)
    VALUES (p_workspace, v_number, p_task, p_fence, 'freezing', now() + make_interval(secs => p_budget_s),
            p_budget_s, p_looked_from);
    INSERT INTO wvs.freeze_members (workspace_id, number, session_id)
    SELECT p_workspace, v_number, s.id FROM wvs.sessions s WHERE s.workspace_id = p_workspace AND s.state = 'active';
    GET DIAGNOSTICS v_members = ROW_COUNT;
    RETURN QUERY SELECT v_number, v_members;
END $$;

-- Applies row changes of the projector. An insert is a whole row; an update names its row and the columns that it changes.
CREATE OR REPLACE FUNCTION wvs.apply_changes(p_changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_changes ? 'workspaces_insert' THEN
        INSERT INTO wvs.workspaces
        SELECT r.* FROM jsonb_populate_recordset(
            jsonb_populate_record(NULL::wvs.workspaces, '{"tenant": "default"}'), p_changes -> 'workspaces_insert') r;
    END IF;
    IF p_changes ? 'workspaces_update' THEN
        UPDATE wvs.workspaces t
        SET (name, state, labels, current_snapshot_id, live_tree, epoch, error, created_at, disabled_at) = (
            SELECT r.name, r.state, r.labels, r.current_snapshot_id, r.live_tree, r.epoch, r.error, r.created_at,
                   r.disabled_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'workspaces_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'snapshots_insert' THEN
        INSERT INTO wvs.snapshots
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.snapshots, p_changes -> 'snapshots_insert') r;
    END IF;
    IF p_changes ? 'snapshots_update' THEN
        UPDATE wvs.snapshots t
        SET (state, tree, engine, files, bytes, report, certificate, error, ready_at, deleted_at) = (
            SELECT r.state, r.tree, r.engine, r.files, r.bytes, r.report, r.certificate, r.error, r.ready_at,
                   r.deleted_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'snapshots_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'snapshot_labels_insert' THEN
        INSERT INTO wvs.snapshot_labels
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.snapshot_labels, p_changes -> 'snapshot_labels_insert') r;
    END IF;
    IF p_changes ? 'tasks_insert' THEN
        INSERT INTO wvs.tasks
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.tasks, p_changes -> 'tasks_insert') r;
    END IF;
    IF p_changes ? 'tasks_update' THEN
        UPDATE wvs.tasks t
        SET (state, noop, cancel_requested, attempt, progress, error, started_at, finished_at, next_attempt_at,
             notes) = (
            SELECT r.state, r.noop, r.cancel_requested, r.attempt, r.progress, r.error, r.started_at, r.finished_at,
                   r.next_attempt_at, r.notes
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'tasks_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'trees_insert' THEN
        INSERT INTO wvs.trees
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.trees, p_changes -> 'trees_insert') r;
    END IF;
    IF p_changes ? 'trees_update' THEN
        UPDATE wvs.trees t
        SET state = (SELECT r.state FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'trees_update') u
        WHERE t.workspace_id = (u.value ->> 'workspace_id')::uuid AND t.name = u.value ->> 'name';
    END IF;
END $$;

-- migrate:down

-- As before, and a new workspace without a tenant is of the default one: jsonb_populate_recordset gives a missing field
-- the value that it has in the base row, not the column's default.
CREATE OR REPLACE FUNCTION wvs.apply_changes(p_changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_changes ? 'workspaces_insert' THEN
        INSERT INTO wvs.workspaces
        SELECT r.* FROM jsonb_populate_recordset(
            jsonb_populate_record(NULL::wvs.workspaces, '{"tenant": "default"}'), p_changes -> 'workspaces_insert') r;
    END IF;
    IF p_changes ? 'workspaces_update' THEN
        UPDATE wvs.workspaces t
        SET (name, state, labels, current_snapshot_id, live_tree, epoch, error, created_at, disabled_at) = (
            SELECT r.name, r.state, r.labels, r.current_snapshot_id, r.live_tree, r.epoch, r.error, r.created_at,
                   r.disabled_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'workspaces_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'snapshots_insert' THEN
        INSERT INTO wvs.snapshots
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.snapshots, p_changes -> 'snapshots_insert') r;
    END IF;
    IF p_changes ? 'snapshots_update' THEN
        UPDATE wvs.snapshots t
        SET (state, tree, engine, files, bytes, report, certificate, error, ready_at, deleted_at) = (
            SELECT r.state, r.tree, r.engine, r.files, r.bytes, r.report, r.certificate, r.error, r.ready_at,
                   r.deleted_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'snapshots_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'snapshot_labels_insert' THEN
        INSERT INTO wvs.snapshot_labels
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.snapshot_labels, p_changes -> 'snapshot_labels_insert') r;
    END IF;
    IF p_changes ? 'tasks_insert' THEN
        INSERT INTO wvs.tasks
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.tasks, p_changes -> 'tasks_insert') r;
    END IF;
    IF p_changes ? 'tasks_update' THEN
        UPDATE wvs.tasks t
        SET (state, noop, cancel_requested, attempt, progress, error, started_at, finished_at, next_attempt_at) = (
            SELECT r.state, r.noop, r.cancel_requested, r.attempt, r.progress, r.error, r.started_at, r.finished_at,
                   r.next_attempt_at
            FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'tasks_update') u
        WHERE t.id = (u.value ->> 'id')::uuid;
    END IF;
    IF p_changes ? 'trees_insert' THEN
        INSERT INTO wvs.trees
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.trees, p_changes -> 'trees_insert') r;
    END IF;
    IF p_changes ? 'trees_update' THEN
        UPDATE wvs.trees t
        SET state = (SELECT r.state FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'trees_update') u
        WHERE t.workspace_id = (u.value ->> 'workspace_id')::uuid AND t.name = u.value ->> 'name';
    END IF;
END $$;

DROP FUNCTION wvs.open_freeze_v2(uuid,bigint,uuid,double precision,text);

DROP FUNCTION wvs.acknowledge_together_v2(uuid[],bigint[],text[],text[],text[],text[],text[]);

ALTER TABLE wvs.tasks DROP COLUMN notes;
ALTER TABLE wvs.freezes DROP COLUMN looked_from;
ALTER TABLE wvs.freeze_members DROP COLUMN details;
