"""Reading a request: headers, query parameters, JSON bodies, filters."""
