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
from wvs.cli.wvsctl.audit.history import instant, show_event, show_history
from wvs.cli.wvsctl.audit.verification import Verdict, export_log, told, verify_file, verify_live

app = App(name="audit", help="Look back: who did what and why; what was; and whether the record is intact.")

OneOrAll = Annotated[
    str | None, Parameter(help="Name or id (ws_…) of a workspace; all without.", completer=workspace_names)
]


@app.command
def log(
    workspace: OneOrAll = None,
    /,
    *,
    type: str | None = None,  # noqa: A002  # the API's word
    actor: Annotated[str | None, Parameter(name="--by")] = None,
    task: Annotated[str | None, Parameter(completer=task_ids)] = None,
    since: str | None = None,
    until: str | None = None,
    paging: Paging = None,
    run: Run,
) -> None:
    """List what happened, oldest first.

    Parameters
    ----------
    type
        Only events of this type, e.g. snapshot.created.v1.
    actor
        Only what this actor did. Nobody has verified who it was.
    task
        Only what belongs to this task.
    since
        Only from this time on: 2026-01-31T09:00:00Z, or how long ago: 90s, 5m, 2h, 7d.
    until
        Only before this time.
    """
    filters = (
        ("type", type),
        ("actor", actor),
        ("task", task),
        ("since", instant(since)),
        ("until", instant(until)),
    )
    path = path_of("events") if workspace is None else path_of("workspaces", workspace, "events")
    show_list(run, path, filters, EVENTS, EventDocument, paging, cursor_name="after")


@app.command
def show(
    workspace: Workspace,
    version: Annotated[int, Parameter(help="Which of its events: VERSION in the log.")],
    /,
    *,
    run: Run,
) -> None:
    """Show one event: who, what, why, from which request, and what came of it."""
    show_event(run, workspace, version)


@app.command
def at(workspace: Workspace, /, *, version: int | None = None, time: str | None = None, run: Run) -> None:
    """Show a workspace as it was, with its snapshots and tasks then.

    Parameters
    ----------
    version
        After this event of the workspace.
    time
        At this time: 2026-01-31T09:00:00Z, or how long ago: 90s, 5m, 2h, 7d.
    """
    if (version is None) == (time is None):
        raise UsageFailure("say either --version or --time", "the versions are in: wvsctl audit log")
    show_history(run, workspace, version, instant(time))


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
    """Recompute the hash chains here, not in the service: 0 if they are intact, 1 if not, and which event is not.

    Parameters
    ----------
    file
        Check this export instead, without any service.
    against
        Compare with this export too, kept elsewhere: a chain that was cut or rewritten since is found.
    sign_key
        The file with the key that the export was signed with.
    """
    if file is not None and (workspace is not None or against is not None):
        raise UsageFailure("--file checks a file by itself: leave the workspace and --against out")
    if sign_key is not None and file is None and against is None:
        raise UsageFailure("--sign-key is for an export: say which with --file or --against")
    key = read_key(sign_key)
    if file is not None:
        verdict = verify_file(ExportReader(file, key), file)
    else:
        kept = None if against is None else ExportReader(against, key)
        verdict = verify_live(run, workspace, kept)
    return _judged(run, verdict)


@app.command
def export(
    workspace: OneOrAll = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    sign_key: Path | None = None,
    run: Run,
) -> int:
    """Write the log as it is stored, with the heads of its chains and a digest over all of it, to keep elsewhere.

    Whoever has the file checks it with: wvsctl audit verify --file FILE

    Parameters
    ----------
    output
        The file to write; stdout without.
    sign_key
        Sign the digest (HMAC-SHA256) with the key in this file, at least 16 bytes.
    """
    key = read_key(sign_key)
    with ExitStack() as stack:
        try:
            target = sys.stdout.buffer if output is None else stack.enter_context(output.open("xb"))
        except OSError as error:
            raise UsageFailure(
                f"cannot write {output}: {error.strerror}", "name a file that is not there yet"
            ) from error
        verdict = export_log(run, workspace, target, key)
    for line in verdict.lines:
        run.screen.say(line)
    return Exit.OK if verdict.intact else Exit.FAILURE


def _judged(run: Run, verdict: Verdict) -> int:
    if run.screen.as_json:
        run.screen.show_json(told(verdict))
    else:
        for line in verdict.lines:
            run.screen.show(line)
    return Exit.OK if verdict.intact else Exit.FAILURE
