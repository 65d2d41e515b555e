"""The event log: stored events, the write path, idempotency, aggregates by version, followers."""
