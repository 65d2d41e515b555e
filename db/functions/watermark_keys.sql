-- The keys of the log's watermark that transactions of this database hold, and the processes of those (null: a prepared
-- transaction). No position above the least key is complete: its event may be committed later.
CREATE OR REPLACE FUNCTION wvs.watermark_keys() RETURNS TABLE (key bigint, pid integer) LANGUAGE sql AS $$
    WITH held AS MATERIALIZED (
        SELECT l.pid, l.virtualtransaction, l.relation, l.mode, l.objsubid, l.classid::bigint AS high, l.objid::bigint AS low
        FROM pg_locks l
        WHERE l.granted AND l.locktype IN ('advisory', 'relation')
          AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
    SELECT ((h.high & 65535) << 32) | h.low, h.pid FROM held h
    WHERE h.objsubid = 1 AND h.mode = 'ShareLock' AND h.high >> 16 = wvs.watermark_lock()
    UNION ALL
    -- Shim for peers before 0.1.0; remove after 0.2.0. Their appends hold the bare position, which may be any application's
    -- key. Theirs alone have locked rows of wvs.streams before. An append that does so while pg_locks is read may be missed:
    -- it gets its positions later, and they are above the last position that the reader has asked for before.
    SELECT (h.high << 32) | h.low, h.pid FROM held h
    WHERE h.objsubid = 1 AND h.mode = 'ShareLock' AND h.high >> 16 <> wvs.watermark_lock() AND EXISTS (
        SELECT FROM held s
        WHERE s.virtualtransaction = h.virtualtransaction AND s.relation = 'wvs.streams'::regclass
          AND s.mode IN ('RowShareLock', 'RowExclusiveLock'))
$$;
