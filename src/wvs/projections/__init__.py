"""Read models: what the log says, as rows that can be listed and filtered."""
