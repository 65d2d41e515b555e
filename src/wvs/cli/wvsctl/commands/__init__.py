"""The command groups of `wvsctl`, one module per group."""
