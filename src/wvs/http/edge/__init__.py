"""What holds for every connection and request before routing: bounds, hosts, access log, problems."""
