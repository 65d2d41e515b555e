"""`wvs`, the operator's program."""

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from wvs.cli.wvs.app import run  # noqa: PLC0415 - what a command needs is imported by that command

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
