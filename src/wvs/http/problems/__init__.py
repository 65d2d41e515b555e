"""Failures as RFC 9457 problems: the problem of each exception, the meaning of each code, and when to repeat."""
