"""The exit codes of `wvs` (design §10)."""

from typing import Final

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
"""Wrong arguments or a bad setting: the same command fails again until a person changes something."""

EXIT_INTERRUPTED: Final = 130
