"""`wvs`, the operator's program."""

import sys


def main() -> None:
    """Runs the command line and exits with its exit code.

    The parts of a service, started without options, skip the library of the command line: it takes as long to import as
    an executor takes to start.
    """
    match sys.argv[1:]:
        case ["executor"]:
            from wvs.cli.wvs.program import run_reporting, start_executor  # noqa: PLC0415

            sys.exit(run_reporting(start_executor))
        case ["api"]:
            from wvs.cli.wvs.program import run_reporting, start_api  # noqa: PLC0415

            sys.exit(run_reporting(start_api))
        case arguments:
            from wvs.cli.wvs.app import run  # noqa: PLC0415

            sys.exit(run(arguments))


if __name__ == "__main__":
    main()
