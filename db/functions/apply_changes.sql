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
