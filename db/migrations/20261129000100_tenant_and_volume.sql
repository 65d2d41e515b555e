-- migrate:up

-- Room for tenants and volumes; nothing decides on them yet. There is one tenant, 'default'. `volume_id` is the identity
-- of the volume that holds the workspace's trees, null where the database knew no volume.
--
-- The release before names neither column. Its commands go through wvs.apply_changes, which fills in the tenant below;
-- plain INSERTs take the column's default. Its `wvs projections rebuild` and `verify` copy a null into every column
-- that they do not know, and end with an error that changes nothing: run those of this release.
ALTER TABLE wvs.workspaces
    ADD COLUMN tenant text NOT NULL DEFAULT 'default',
    ADD COLUMN volume_id uuid;

-- The release before translates a violation by this index's name. The name comes first: queries by name alone use it.
DROP INDEX wvs.workspaces_name_key;
CREATE UNIQUE INDEX workspaces_name_key ON wvs.workspaces (name, tenant) WHERE state <> 'disabled';

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

-- A program that does not know workspace.created.v2 cannot read the log of this release.
CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '20261129000100' $$;

-- migrate:down
CREATE OR REPLACE FUNCTION wvs.least_program_migration() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '20261128000080' $$;

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

-- Fails while two tenants share a name, which then has to be settled first.
DROP INDEX wvs.workspaces_name_key;
CREATE UNIQUE INDEX workspaces_name_key ON wvs.workspaces (name) WHERE state <> 'disabled';
ALTER TABLE wvs.workspaces DROP COLUMN volume_id, DROP COLUMN tenant;
