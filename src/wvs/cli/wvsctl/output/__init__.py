"""The console's output: text layout, tables, resources, progress, failures."""
