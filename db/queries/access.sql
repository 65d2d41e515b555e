-- name: server_process
-- The server process behind this connection.
SELECT pg_backend_pid()

-- name: database_encoding
-- Name and encoding of this database.
SELECT current_database() AS name, current_setting('server_encoding') AS encoding

-- name: writability
-- Whether the server is a standby, and whether a transaction may write.
SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS read_only
