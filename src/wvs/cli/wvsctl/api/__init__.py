"""The API as the console calls it: connection, documents, and every failure with its exit code."""
