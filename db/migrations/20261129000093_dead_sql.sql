-- migrate:up

-- No program has called these since 20261128000080.
DROP FUNCTION wvs.acknowledge_and_direct, wvs.directive_of;

-- Without trees.snapshot_id, which nothing ever set; a later release drops the column.
-- Applies row changes of the projector. An insert is a whole row; an update names its row and the columns that it changes.
CREATE OR REPLACE FUNCTION wvs.apply_changes(p_changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_changes ? 'workspaces_insert' THEN
        INSERT INTO wvs.workspaces
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.workspaces, p_changes -> 'workspaces_insert') r;
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

-- migrate:down

-- Applies row changes of the projector. Inserts are whole rows; an update names its row and the columns it changes.
CREATE OR REPLACE FUNCTION wvs.apply_changes(p_changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_changes ? 'workspaces_insert' THEN
        INSERT INTO wvs.workspaces
        SELECT r.* FROM jsonb_populate_recordset(NULL::wvs.workspaces, p_changes -> 'workspaces_insert') r;
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
        SET (state, snapshot_id) = (
            SELECT r.state, r.snapshot_id FROM jsonb_populate_record(t, u.value) r)
        FROM jsonb_array_elements(p_changes -> 'trees_update') u
        WHERE t.workspace_id = (u.value ->> 'workspace_id')::uuid AND t.name = u.value ->> 'name';
    END IF;
END $$;

-- wvs.directive_for without the column `resume`.
CREATE OR REPLACE FUNCTION wvs.directive_of(p_session uuid)
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
