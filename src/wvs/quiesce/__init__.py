"""Quiesce: sessions, what they are told, and freezes with their required sets (design §7)."""
