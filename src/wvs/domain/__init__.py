"""The pure core: commands in, events or one error code out. No I/O, no clock, no randomness, no framework."""
