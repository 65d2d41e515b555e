"""The console `wvsctl`, a client of the HTTP API: it uses neither the database nor the volume."""
