"""The pure core: commands in, events or one error code out. No I/O, clock, randomness or framework in here."""
