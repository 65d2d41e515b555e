"""Quiesce: sessions, their directives, and freezes with their required sets (design §7)."""
