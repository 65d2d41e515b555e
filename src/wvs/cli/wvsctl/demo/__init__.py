"""`wvsctl demo`: the life of a workspace on real files; every step checks its result."""
