"""The write path: decide on a workspace's state, commit, catch up."""
