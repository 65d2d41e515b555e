"""Failures as RFC 9457 problems: which one an exception is, what each code means, which may be repeated."""
