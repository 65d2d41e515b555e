-- migrate:up

-- Read models: changed in the same transaction as the log, by rows that a pure function makes of each event. They have
-- no foreign keys: the log is the truth, and a rebuild fills fresh tables beside these in any order.
CREATE TABLE wvs.workspaces (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL,
    labels jsonb NOT NULL,
    current_snapshot_id uuid,
    live_tree text,
    epoch bigint NOT NULL,
    error jsonb,
    created_at timestamptz NOT NULL,
    disabled_at timestamptz
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX workspaces_name_key ON wvs.workspaces (name) WHERE state <> 'disabled';
CREATE INDEX workspaces_state_idx ON wvs.workspaces (state, id);
CREATE INDEX workspaces_any_name_idx ON wvs.workspaces (name, id);

-- The sweeper's walk over everything that has a directory.
CREATE INDEX workspaces_with_trees_idx ON wvs.workspaces (id) WHERE live_tree IS NOT NULL;

CREATE TABLE wvs.snapshots (
    id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL,
    state text NOT NULL,
    message text,
    labels jsonb NOT NULL,
    tree text,
    engine text,
    files bigint,
    bytes bigint,
    report jsonb,
    certificate jsonb,
    error jsonb,
    created_at timestamptz NOT NULL,
    ready_at timestamptz,
    deleted_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX snapshots_kept_idx ON wvs.snapshots (workspace_id, id) WHERE deleted_at IS NULL;
CREATE INDEX snapshots_all_idx ON wvs.snapshots (workspace_id, id);
CREATE INDEX snapshots_state_idx ON wvs.snapshots (workspace_id, state, id);

-- A label filter walks this index in the order of the list, however many snapshots carry the label.
CREATE TABLE wvs.snapshot_labels (
    workspace_id uuid NOT NULL,
    label text NOT NULL,
    snapshot_id uuid NOT NULL,
    PRIMARY KEY (workspace_id, label, snapshot_id)
);

CREATE TABLE wvs.tasks (
    id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL,
    snapshot_id uuid,
    kind text NOT NULL,
    state text NOT NULL,
    noop boolean NOT NULL,
    cancel_requested boolean NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    progress jsonb,
    error jsonb,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    next_attempt_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX tasks_workspace_idx ON wvs.tasks (workspace_id, id);
CREATE INDEX tasks_workspace_state_idx ON wvs.tasks (workspace_id, state, id);
CREATE INDEX tasks_workspace_kind_idx ON wvs.tasks (workspace_id, kind, state, id);
CREATE INDEX tasks_state_idx ON wvs.tasks (state, id);
CREATE INDEX tasks_kind_idx ON wvs.tasks (kind, id);
CREATE INDEX tasks_kind_state_idx ON wvs.tasks (kind, state, id);

-- Every directory that was ever intended, by its name, which is never used twice.
CREATE TABLE wvs.trees (
    workspace_id uuid NOT NULL,
    name text NOT NULL,
    state text NOT NULL,
    task_id uuid NOT NULL,
    snapshot_id uuid,
    fence bigint NOT NULL,
    intended_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, name)
) WITH (fillfactor = 80);

-- migrate:down
DROP TABLE wvs.trees, wvs.tasks, wvs.snapshot_labels, wvs.snapshots, wvs.workspaces;
