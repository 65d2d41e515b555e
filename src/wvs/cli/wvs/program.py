"""Settings, logging and failures of every command of `wvs`, and the commands that start without the library of the
command line.
"""

import os
import sys
from collections.abc import Callable

from msgspec.structs import replace

from wvs.cli.extras import MissingExtra, needs
from wvs.cli.wvs.child_process import PARENT_PID
from wvs.cli.wvs.exits import EXIT_INTERRUPTED, EXIT_USAGE
from wvs.settings import InvalidSetting, Settings, load_settings, unknown_variables


def run_reporting(work: Callable[[], object]) -> int:
    """Runs `work` and returns its exit code. A known failure becomes one sentence on stderr."""
    try:
        code = work()
    except MissingExtra as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - an unknown failure is raised again
        # Imported late: it knows the errors of packages that only the server extra installs.
        from wvs.cli.wvs.failures import report  # noqa: PLC0415

        return report(error)
    return code if isinstance(code, int) else 0


def settings_of_environment() -> Settings:
    """Loads the settings, configures logging with them, and warns about unknown `WVS_*` variables."""
    from wvs.telemetry.logs import configure_logging  # noqa: PLC0415 - structlog comes with the server extra

    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    # A child of `wvs up` has the environment that `wvs up` has already complained about.
    for name, similar in () if PARENT_PID in os.environ else unknown_variables():
        sys.stderr.write(f"wvs: {name} is not a setting" + (f"; did you mean {similar}?\n" if similar else "\n"))
    if settings.failpoints:
        from wvs import failpoints  # noqa: PLC0415

        try:
            failpoints.arm(settings.failpoints)
        except ValueError as error:
            raise InvalidSetting(f"WVS_FAILPOINTS: {error}") from error
    return settings


def start_api(port: int | None = None, *, allow_remote: bool = False) -> int:
    """`wvs api`."""
    with needs("wvs api", "server"):
        _import_structlog()
        from wvs.cli.wvs.serving import run_api  # noqa: PLC0415

    settings = settings_of_environment()
    return run_api(replace(settings, port=settings.port if port is None else port), allow_remote=allow_remote)


def start_executor() -> int:
    """`wvs executor`."""
    with needs("wvs executor", "server"):
        _import_structlog()
        from wvs.cli.wvs.executing import run_executor  # noqa: PLC0415

    return run_executor(settings_of_environment())


def _import_structlog() -> None:
    """Imports structlog without rich, which it loads for tracebacks that WVS prints plainly: a quarter of the start."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # pyright: ignore[reportArgumentType] - makes `import rich` an ImportError
    try:
        import structlog  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]
    finally:
        del sys.modules["rich"]
