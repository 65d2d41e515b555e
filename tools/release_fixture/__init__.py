"""Makes `tests/releases/VERSION/`: what a release wrote, for the tests of later releases."""
