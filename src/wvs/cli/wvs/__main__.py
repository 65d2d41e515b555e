"""`wvs`, the operator's program."""

import sys


def main() -> None:
    """Runs the command line and exits with its exit code."""
    from wvs.cli.wvs.app import run  # noqa: PLC0415 - each command imports only the modules that it needs

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
