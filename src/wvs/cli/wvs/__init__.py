"""The operator's program: what starts, migrates, checks and mends a WVS."""
