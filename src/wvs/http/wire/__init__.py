"""Parts of every request and answer: ids, positions, cursors, tree paths, the request context, ASGI types."""
