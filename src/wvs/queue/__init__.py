"""The queue: lanes that executors claim, the leases they hold them by, and the hints that wake them."""
