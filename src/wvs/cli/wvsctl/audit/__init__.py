"""The audit in the console: events in words, hash chains recomputed, exports that prove themselves."""
