"""The operator's program: it starts, migrates, checks and repairs a WVS installation."""
