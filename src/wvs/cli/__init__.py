"""The two programs: `wvs` for the operator, `wvsctl` for people and scripts that use workspaces."""
