"""Executors: processes that claim tasks and touch the volume."""
