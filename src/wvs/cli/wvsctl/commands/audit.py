"""`wvsctl audit …`."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from wvs.cli.wvsctl.actions.arguments import Workspace
from wvs.cli.wvsctl.actions.completing import task_ids, workspace_names
from wvs.cli.wvsctl.actions.invocation import Run
from wvs.cli.wvsctl.actions.listing import Paging, show_list
from wvs.cli.wvsctl.api.client import path_of
from wvs.cli.wvsctl.api.exits import Exit
from wvs.cli.wvsctl.api.failures import UsageFailure
from wvs.cli.wvsctl.audit.documents import EventDocument
from wvs.cli.wvsctl.audit.event_sentences import EVENTS
from wvs.cli.wvsctl.audit.exports import ExportReader, read_key
from wvs.cli.wvsctl.audit.history import parse_time, show_event, show_history
from wvs.cli.wvsctl.audit.verification import Verdict, export_log, verdict_json, verify_file, verify_live

app = App(name="audit", help="Show who did what and why, show earlier states, and verify the log.")

OneOrAll = Annotated[
    str | None, Parameter(help="Name or id (ws_…) of a workspace. Default: all workspaces.", completer=workspace_names)
]


@app.command
def log(
    workspace: OneOrAll = None,
    /,
    *,
    type: str | None = None,  # noqa: A002  # the API's name
    actor: Annotated[str | None, Parameter(name="--by")] = None,
    task: Annotated[str | None, Parameter(completer=task_ids)] = None,
    since: str | None = None,
    until: str | None = None,
    paging: Paging = None,
    run: Run,
) -> None:
    """List events, oldest first.

    Parameters
    ----------
    type
        Only events of this type, e.g. snapshot.created.v1.
    actor
        Only events of this actor. WVS does not verify actors.
    task
        Only events of this task.
    since
        Only from this time on: 2026-01-31T09:00:00Z, or an age: 90s, 5m, 2h, 7d.
    until
        Only before this time, in the same formats.
    """
    filters = (
        ("type", type),
        ("actor", actor),
        ("task", task),
        ("since", parse_time(since)),
        ("until", parse_time(until)),
    )
    path = path_of("events") if workspace is None else path_of("workspaces", workspace, "events")
    show_list(run, path, filters, EVENTS, EventDocument, paging, cursor_name="after")


@app.command
def show(
    workspace: Workspace,
    version: Annotated[int, Parameter(help="Version of the event; `audit log` shows it.")],
    /,
    *,
    run: Run,
) -> None:
    """Show one event: who did what and why, the request, and the result."""
    show_event(run, workspace, version)


@app.command
def at(workspace: Workspace, /, *, version: int | None = None, time: str | None = None, run: Run) -> None:
    """Show a workspace at an earlier time, with its snapshots and tasks.

    Parameters
    ----------
    version
        The state after this event of the workspace.
    time
        The state at this time: 2026-01-31T09:00:00Z, or an age: 90s, 5m, 2h, 7d.
    """
    if (version is None) == (time is None):
        raise UsageFailure("give either --version or --time", "to see the versions: wvsctl audit log")
    show_history(run, workspace, version, parse_time(time))


@app.command
def verify(
    workspace: OneOrAll = None,
    /,
    *,
    file: Path | None = None,
    against: Path | None = None,
    sign_key: Path | None = None,
    run: Run,
) -> int:
    """Recompute the hash chains on this machine. Exits with 0 if they are intact, or names the faults and exits with 1.

    Parameters
    ----------
    file
        Verify this export instead; needs no service.
    against
        Also compare with this export, which detects a chain that was cut or rewritten since.
    sign_key
        File with the key that signed the export.
    """
    if file is not None and (workspace is not None or against is not None):
        raise UsageFailure("--file cannot be combined with a workspace or --against")
    if sign_key is not None and file is None and against is None:
        raise UsageFailure("--sign-key needs an export: --file or --against")
    key = read_key(sign_key)
    if file is not None:
        verdict = verify_file(ExportReader(file, key), file)
    else:
        earlier = None if against is None else ExportReader(against, key)
        verdict = verify_live(run, workspace, earlier)
    return _print_verdict(run, verdict)


@app.command
def export(
    workspace: OneOrAll = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    sign_key: Path | None = None,
    run: Run,
) -> int:
    """Write the stored log with the heads of its chains and a digest, to keep outside the service.

    Anybody can verify the file: wvsctl audit verify --file FILE

    Parameters
    ----------
    output
        File to write, which must not exist. Default: stdout.
    sign_key
        Sign the digest (HMAC-SHA256) with the key in this file (at least 16 bytes).
    """
    key = read_key(sign_key)
    with ExitStack() as stack:
        try:
            target = sys.stdout.buffer if output is None else stack.enter_context(output.open("xb"))
        except OSError as error:
            raise UsageFailure(
                f"cannot write {output}: {error.strerror}", "name a file that does not exist yet"
            ) from error
        verdict = export_log(run, workspace, target, key)
    for line in verdict.lines:
        run.screen.notify(line)
    return Exit.OK if verdict.intact else Exit.FAILURE


def _print_verdict(run: Run, verdict: Verdict) -> int:
    if run.screen.as_json:
        run.screen.show_json(verdict_json(verdict))
    else:
        for line in verdict.lines:
            run.screen.show(line)
    return Exit.OK if verdict.intact else Exit.FAILURE
