"""The commands of `wvs`. Settings come from `WVS_*` variables; options of a command go before them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import App, Parameter
from msgspec.structs import replace

from wvs import __version__
from wvs.engines.choice import ENGINES
from wvs.settings import InvalidSetting, Settings, describe_settings, load_settings, unknown_variables
from wvs.telemetry.logs import configure_logging

EXIT_FAILURE = 1
EXIT_USAGE = 2

if TYPE_CHECKING:
    EngineOption: TypeAlias = str
else:
    EngineOption = Literal[tuple(ENGINES)]  # the choices that help lists, read from the one table of engines


def _settings_text() -> str:
    lines = [f"`{doc.variable}`: {doc.description} (default: {doc.default or 'none'})\n" for doc in describe_settings()]
    return "Settings come from the environment:\n\n" + "\n".join(f"- {line}" for line in lines)


app = App(
    name="wvs",
    help="Runs the Workspace Versioning Service: versions of the working directories of AI agents.",
    help_epilogue=_settings_text(),
    version=__version__,
)
volume = App(name="volume", help="Makes and checks volumes.")
projections = App(name="projections", help="Makes the read models anew from the log, and compares them with it.")
app.command(volume)
app.command(projections)
epoch = App(name="epoch", help="Begins a new epoch of the log, after its database was restored.")
app.command(epoch)


def run(arguments: list[str]) -> int:
    """The exit code: 0 ok, 1 failure, 2 usage, 130 interrupted. Failures are told in a sentence on stderr."""
    from wvs.cli.wvs.failures import told  # noqa: PLC0415

    return told(lambda: app(arguments, exit_on_error=False, print_error=True))


def settings_of_environment() -> Settings:
    """The settings, with logging set up by them; what looks like a typing error in a variable's name is warned of."""
    settings = load_settings()
    configure_logging(settings.log_format, settings.log_level)
    for name, meant in unknown_variables():
        sys.stderr.write(f"wvs: {name} is no setting" + (f"; did you mean {meant}?\n" if meant else "\n"))
    if settings.failpoints:
        from wvs import failpoints  # noqa: PLC0415

        try:
            failpoints.arm(settings.failpoints)
        except ValueError as error:
            raise InvalidSetting(f"WVS_FAILPOINTS: {error}") from error
    return settings


@app.command
def up(
    *,
    data_dir: Path | None = None,
    volume: Path | None = None,
    port: int | None = None,
    engine: EngineOption | None = None,
) -> int:
    """Runs everything in one process tree: database, migrations, API and an executor.

    Prints `ready http://127.0.0.1:N` on stdout when it serves. SIGTERM and Ctrl-C drain.

    Parameters
    ----------
    data_dir
        Where the embedded database and, unless named, the volume are kept.
    volume
        The volume's directory; made a volume if it is empty.
    port
        The API's port; 0 takes a free one.
    engine
        The clone engine of a volume that has yet to be made; chosen by probing if not named.

    """
    from wvs.cli.wvs.up import run_up  # noqa: PLC0415

    settings = settings_of_environment()
    settings = replace(
        settings,
        data_dir=data_dir or settings.data_dir,
        volume=volume or settings.volume,
        port=settings.port if port is None else port,
    )
    return run_up(settings, engine)


@app.command
def api(
    *,
    port: int | None = None,
    insecure_allow_remote: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Serves the HTTP API.

    Parameters
    ----------
    port
        The port; 0 takes a free one.
    insecure_allow_remote
        Lets WVS_HOST be an address that other machines can reach, although nobody is asked who they are.

    """
    from wvs.cli.wvs.serving import run_api  # noqa: PLC0415

    settings = settings_of_environment()
    return run_api(replace(settings, port=settings.port if port is None else port), allow_remote=insecure_allow_remote)


@app.command
def executor() -> int:
    """Runs an executor on the volume; any number, on any number of hosts."""
    from wvs.cli.wvs.serving import run_executor  # noqa: PLC0415

    return run_executor(settings_of_environment())


@app.command
def migrate() -> int:
    """Brings the database's schema up to date; running it twice, or twice at once, is fine."""
    from wvs.cli.wvs.database import run_migrate  # noqa: PLC0415

    return run_migrate(settings_of_environment())


@app.command
def openapi() -> int:
    """Prints the OpenAPI 3.1 document of the API; needs no database."""
    from wvs.cli.wvs.serving import print_openapi  # noqa: PLC0415

    return print_openapi()


@volume.command
def init(path: Path, *, engine: EngineOption | None = None) -> int:
    """Makes an empty directory a volume, and says which clone engine it chose and why.

    Parameters
    ----------
    path
        The directory; WVS owns everything in it from then on.
    engine
        The engine; without it the best one that works there is chosen, once and for all.

    """
    from wvs.cli.wvs.volumes import run_init  # noqa: PLC0415

    return run_init(path, engine)


@volume.command
def check(*, repair: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Compares the volume with the log and reports what differs; exits 1 if anything does.

    Parameters
    ----------
    repair
        Also does what the sweeper would do: removes what is obsolete, moves strangers into quarantine, marks snapshots
        lost whose directory is missing, and puts links right.

    """
    from wvs.cli.wvs.volumes import run_check  # noqa: PLC0415

    return run_check(settings_of_environment(), repair=repair)


@projections.command
def rebuild() -> int:
    """Replays the log into fresh tables and puts them in the place of the read models.

    Commands and readers go on meanwhile. If it is interrupted, the next call goes on where it was; until the end the
    live tables stay as they are.
    """
    from wvs.cli.wvs.projections import run_rebuild  # noqa: PLC0415

    return run_rebuild(settings_of_environment())


@projections.command
def verify(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Replays the log and names every row of the read models that differs from it; exits 1 if there is one.

    Parameters
    ----------
    json
        Prints one JSON document.

    """
    from wvs.cli.wvs.projections import run_verify  # noqa: PLC0415

    return run_verify(settings_of_environment(), json=json)


@epoch.command(name="raise")
def raise_() -> int:
    """Begins a new epoch: for a database that was restored from an older copy, while nothing else runs on it.

    Whoever holds a position of the log that was lost is refused and reads anew, the volume follows this log from now
    on, and no fence or tree name of the lost part is given out a second time. See runbooks/restored-database.md.
    """
    from wvs.cli.wvs.epochs import run_raise  # noqa: PLC0415

    return run_raise(settings_of_environment())
