"""The read models as a pure function of the log: an event in, changed rows out."""
