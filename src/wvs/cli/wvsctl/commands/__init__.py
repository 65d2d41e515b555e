"""The command groups of `wvsctl`, one module each."""
