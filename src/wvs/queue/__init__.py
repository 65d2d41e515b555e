"""The queue: lanes that executors claim, and the leases they hold them by."""
