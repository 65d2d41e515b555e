-- Writes one command in one round trip and one transaction: key, workspace lock, version, fence, events, read models, queue,
-- answer. Nothing is written unless the outcome is 'committed'.
--
-- `p_write` is a JSON object. Bytes are base64. It may have fields that this function does not know: a newer release adds
-- them before a migration makes use of them. An absent field is null.
--   workspace_id, expected (the version on which the command was decided), previous_hash (of that version)
--   events: [{topic, state, hash, task_id, snapshot_id}], occurred_at, actor, request_id, traceparent
--   changes: for wvs.apply_changes; steps: for wvs.apply_queue_steps
--   key: {scope, key, fingerprint}; status and show: the answer that is stored under the key; show is for wvs.answer_rows
--   hold: {fence, task_id}, the claim under which the write is made
--
-- Outcomes: committed; replayed (the same request used the key before); reused (another request did); in_flight (the key's
-- first request has not ended); conflict (the stream is at another version); stale_fence (the lane is not held by that claim).
CREATE OR REPLACE FUNCTION wvs.commit_command_v2(p_write jsonb)
RETURNS TABLE (outcome text, version bigint, status smallint, answer jsonb) LANGUAGE plpgsql AS $$
DECLARE
    v_workspace uuid := p_write ->> 'workspace_id';
    v_expected bigint := p_write ->> 'expected';
    v_previous_hash bytea := decode(p_write ->> 'previous_hash', 'base64');
    v_events jsonb := p_write -> 'events';
    v_scope text := p_write #>> '{key,scope}';
    v_key text := p_write #>> '{key,key}';
    v_fingerprint bytea := decode(p_write #>> '{key,fingerprint}', 'base64');
    v_status smallint := p_write ->> 'status';
    v_show jsonb := nullif(p_write -> 'show', 'null');
    v_fence bigint := p_write #>> '{hold,fence}';
    v_version bigint;
    v_hash bytea;
    v_known wvs.idempotency_keys;
    v_answer jsonb;
BEGIN
    IF v_key IS NOT NULL
       AND NOT pg_try_advisory_xact_lock(wvs.command_lock(), hashtext(v_scope || chr(31) || v_key)) THEN
        RETURN QUERY SELECT 'in_flight', NULL::bigint, NULL::smallint, NULL::jsonb;
        RETURN;
    END IF;
    IF v_expected = 0 THEN
        INSERT INTO wvs.streams VALUES (v_workspace, 0, v_previous_hash) ON CONFLICT DO NOTHING;
    END IF;
    SELECT s.version, s.hash INTO v_version, v_hash FROM wvs.streams s WHERE s.workspace_id = v_workspace FOR UPDATE;
    IF v_key IS NOT NULL THEN
        SELECT * INTO v_known FROM wvs.idempotency_keys k WHERE k.scope = v_scope AND k.key = v_key;
        IF FOUND THEN
            -- Only the row of a stream that this call itself put there is taken back.
            DELETE FROM wvs.streams s WHERE s.workspace_id = v_workspace AND s.version = 0;
            RETURN QUERY SELECT CASE WHEN v_known.fingerprint = v_fingerprint THEN 'replayed' ELSE 'reused' END,
                                v_version, v_known.status, v_known.answer;
            RETURN;
        END IF;
    END IF;
    IF v_version IS DISTINCT FROM v_expected OR v_hash IS DISTINCT FROM v_previous_hash THEN
        RETURN QUERY SELECT 'conflict', v_version, NULL::smallint, NULL::jsonb;
        RETURN;
    END IF;
    IF v_fence IS NOT NULL THEN
        PERFORM 1 FROM wvs.lanes l
        WHERE l.workspace_id = v_workspace AND l.fence = v_fence AND l.task_id = (p_write #>> '{hold,task_id}')::uuid
        FOR UPDATE;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'stale_fence', v_version, NULL::smallint, NULL::jsonb;
            RETURN;
        END IF;
    END IF;
    v_version := v_expected + jsonb_array_length(v_events);
    IF v_version > v_expected THEN
        PERFORM wvs.apply_changes(p_write -> 'changes');
        IF p_write -> 'steps' <> '[]' THEN
            PERFORM wvs.apply_queue_steps(v_workspace, p_write -> 'steps', p_write ->> 'request_id', v_key,
                                          p_write ->> 'traceparent');
        END IF;
    END IF;
    v_answer := CASE WHEN v_show IS NOT NULL THEN wvs.answer_rows(v_show) END;
    IF v_key IS NOT NULL THEN
        INSERT INTO wvs.idempotency_keys (scope, key, fingerprint, status, answer, workspace_id, task_id)
        VALUES (v_scope, v_key, v_fingerprint, v_status, v_answer, v_workspace, (v_show ->> 'task')::uuid);
    END IF;
    IF v_version > v_expected THEN
        -- Last: everything that can be refused, such as a taken name, and everything that waits for another transaction is
        -- above. A refused write takes no position, and the watermark holds followers back for the shortest time.
        PERFORM wvs.hold_watermark();
        INSERT INTO wvs.events
            (originator_id, originator_version, topic, state, hash, occurred_at, actor, request_id, task_id, snapshot_id)
        SELECT v_workspace, v_expected + e.n, e.value ->> 'topic', decode(e.value ->> 'state', 'base64'),
               decode(e.value ->> 'hash', 'base64'), (p_write ->> 'occurred_at')::timestamptz, p_write ->> 'actor',
               p_write ->> 'request_id', (e.value ->> 'task_id')::uuid, (e.value ->> 'snapshot_id')::uuid
        FROM jsonb_array_elements(v_events) WITH ORDINALITY AS e (value, n) ORDER BY e.n;
        UPDATE wvs.streams s SET version = v_version, hash = decode(v_events -> -1 ->> 'hash', 'base64')
        WHERE s.workspace_id = v_workspace;
    END IF;
    RETURN QUERY SELECT 'committed', v_version, v_status, v_answer;
END $$;
