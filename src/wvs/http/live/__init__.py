"""Everything that waits: event streams, long polls, tasks that finish, draining."""
