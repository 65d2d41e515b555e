"""What stands on the wire for every request: ids, positions, cursors, the request's context, ASGI types."""
