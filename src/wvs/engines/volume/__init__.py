"""The volume: where trees lie, its identity, and what is moved aside."""
