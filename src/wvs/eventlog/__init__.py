"""The event log: stored events, the recorder, idempotency, aggregates by version, followers."""
