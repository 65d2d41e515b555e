"""What applies to every connection and request before routing: limits, hosts, access log, problems."""
