"""Help pages, rendered ahead of time."""
