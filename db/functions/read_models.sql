-- The read models in the order in which a command writes them.
CREATE OR REPLACE FUNCTION wvs.read_models() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['workspaces', 'snapshots', 'snapshot_labels', 'tasks', 'trees']
$$;
