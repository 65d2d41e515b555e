"""What the console prints: text layout, tables, descriptions, progress, failures."""
