"""Pre-rendered help pages."""
