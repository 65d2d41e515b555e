-- Applies the queue steps of one command, in order. The caller has locked the stream's row.
CREATE OR REPLACE FUNCTION wvs.apply_queue_steps(
    p_workspace uuid, p_steps jsonb, p_request_id text, p_key text, p_traceparent text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_step jsonb;
    v_task uuid;
    v_head_moved boolean := false;
BEGIN
    -- The lane before the queue's rows, as in claim_task: the other way round a cancel and a claim wait for each other.
    IF p_steps @? '$[*] ? (@.type == "reschedule" || @.type == "remove" || @.type == "ask_to_cancel")' THEN
        PERFORM 1 FROM wvs.lanes l WHERE l.workspace_id = p_workspace FOR UPDATE;
    END IF;
    FOR v_step IN SELECT value FROM jsonb_array_elements(p_steps) LOOP
        v_task := (v_step ->> 'task_id')::uuid;
        CASE v_step ->> 'type'
            WHEN 'enqueue' THEN
                INSERT INTO wvs.queue (task_id, workspace_id, seq, kind, request_id, idempotency_key, traceparent)
                VALUES (v_task, p_workspace, (v_step ->> 'seq')::bigint, v_step ->> 'kind', p_request_id, p_key,
                        p_traceparent);
                UPDATE wvs.lanes l SET ready_at = coalesce(l.ready_at, now())
                WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
                -- Not ON CONFLICT: that would use up a lane_no with every task.
                INSERT INTO wvs.lanes (workspace_id, ready_at) SELECT p_workspace, now()
                WHERE NOT EXISTS (SELECT FROM wvs.lanes l WHERE l.workspace_id = p_workspace);
            WHEN 'reschedule' THEN
                v_head_moved := true;
                UPDATE wvs.queue
                SET state = 'queued', run_at = now() + make_interval(secs => (v_step ->> 'delay_s')::float8),
                    progress = NULL
                WHERE task_id = v_task;
                UPDATE wvs.lanes SET task_id = NULL WHERE workspace_id = p_workspace AND task_id = v_task;
            WHEN 'ask_to_cancel' THEN
                UPDATE wvs.queue SET cancel_requested = true WHERE task_id = v_task;
            WHEN 'remove' THEN
                v_head_moved := true;
                DELETE FROM wvs.queue WHERE task_id = v_task;
                UPDATE wvs.lanes SET task_id = NULL WHERE workspace_id = p_workspace AND task_id = v_task;
            WHEN 'relink' THEN
                UPDATE wvs.lanes SET link_pending = (v_step ->> 'epoch')::bigint WHERE workspace_id = p_workspace;
        END CASE;
    END LOOP;
    IF v_head_moved THEN
        -- A head that was put off keeps its time; one that has come of age goes behind the lanes that waited longer.
        UPDATE wvs.lanes l SET ready_at = (
            SELECT greatest(q.run_at, now()) FROM wvs.queue q
            WHERE q.workspace_id = p_workspace ORDER BY q.seq LIMIT 1)
        WHERE l.workspace_id = p_workspace AND l.task_id IS NULL;
    END IF;
END $$;
