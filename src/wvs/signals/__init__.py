"""Signals between processes: hints over NOTIFY, published and listened to."""
