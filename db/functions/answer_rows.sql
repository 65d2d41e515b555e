-- The rows that an answer shows, as they are after the command: `p_show` holds the ids of workspace, snapshot and task.
CREATE OR REPLACE FUNCTION wvs.answer_rows(p_show jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'workspace', (SELECT to_jsonb(w) FROM wvs.workspaces w WHERE w.id = (p_show ->> 'workspace')::uuid),
        'snapshot', (SELECT to_jsonb(s) FROM wvs.snapshots s WHERE s.id = (p_show ->> 'snapshot')::uuid),
        'task', (SELECT to_jsonb(t) FROM wvs.tasks t WHERE t.id = (p_show ->> 'task')::uuid)))
$$;
