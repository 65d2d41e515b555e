"""Readers of the log: the whole log, one workspace's part, filtered, and as it is stored."""
