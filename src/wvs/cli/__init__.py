"""The programs: `wvs` for the operator, `wvsctl` for whoever works with workspaces."""
