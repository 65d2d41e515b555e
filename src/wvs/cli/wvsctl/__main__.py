"""The entry point of `wvsctl`. It answers `--help` from a pre-rendered page, without importing the program."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run `wvsctl` with the process's arguments and exit with one of the codes in `wvs.cli.wvsctl.api.exits`."""
    from wvs.cli.wvsctl.help.pages import page_for  # noqa: PLC0415

    arguments = sys.argv[1:]
    page = page_for(arguments)
    if page is not None:
        sys.stdout.write(page)
        sys.exit(0)
    try:
        from wvs.cli.wvsctl.app import run  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
