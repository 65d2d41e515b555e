-- migrate:up

-- The lane of a workspace: what the executors compete for. `task_id` is the running task, `ready_at` says when the
-- lane's head may be claimed and is null while a task runs or none is queued. `lane_no` is the lane's key in the
-- two-integer advisory lock space, so that no two workspaces share a lock. `executor`, `lease_until` and `deadline_at`
-- are of the last claim and outlive its task: the holder still has the lock and things to do (move the link, clean up),
-- and must not keep the lane for ever if it stops there. `link_pending` is the epoch whose live tree the link `current`
-- does not point to yet: set with the event that moves the live tree, cleared by who moved the link.
CREATE TABLE wvs.lanes (
    workspace_id uuid PRIMARY KEY,
    lane_no integer GENERATED ALWAYS AS IDENTITY,
    ready_at timestamptz,
    task_id uuid,
    fence bigint NOT NULL DEFAULT 0,
    executor text,
    lease_until timestamptz,
    deadline_at timestamptz,
    freezes bigint NOT NULL DEFAULT 0,
    link_pending bigint
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX lanes_ready_idx ON wvs.lanes (ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX lanes_link_pending_idx ON wvs.lanes (workspace_id) WHERE link_pending IS NOT NULL;
CREATE INDEX lanes_running_idx ON wvs.lanes (lease_until) WHERE task_id IS NOT NULL;

-- Tasks that wait or run; an ended one leaves at once. `seq` is the version of the event that queued it.
CREATE TABLE wvs.queue (
    task_id uuid PRIMARY KEY,
    workspace_id uuid NOT NULL,
    seq bigint NOT NULL,
    kind text NOT NULL,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running')),
    run_at timestamptz NOT NULL DEFAULT now(),
    queued_at timestamptz NOT NULL DEFAULT now(),
    cancel_requested boolean NOT NULL DEFAULT false,
    traceparent text,
    request_id text,
    idempotency_key text,
    progress jsonb
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX queue_order_idx ON wvs.queue (workspace_id, seq);
CREATE UNIQUE INDEX queue_one_running_idx ON wvs.queue (workspace_id) WHERE state = 'running';
CREATE INDEX queue_kind_idx ON wvs.queue (kind, queued_at);

-- migrate:down
DROP TABLE wvs.queue, wvs.lanes;
