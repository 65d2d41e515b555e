"""The console's client of the API: connection, documents, and every failure with its exit code."""
