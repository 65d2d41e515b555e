"""Everything that waits: event streams, long polls for directives, waits for tasks, draining."""
