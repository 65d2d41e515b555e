"""Verifies or exports a log in one pass, and states the verdict."""

from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.api.failures import ConsoleFailure
from wvs.cli.wvsctl.audit.chain_checker import ChainChecker, Fault
from wvs.cli.wvsctl.audit.exports import ExportReader, ExportWriter
from wvs.cli.wvsctl.audit.live_log import LiveLog
from wvs.cli.wvsctl.output.layout import counted


class Verdict(Struct, frozen=True):
    """The result of a verification; `about` names the log or the file, `notes` adds details."""

    about: str
    events: int
    workspaces: int
    faults: list[Fault]
    notes: list[str]

    @property
    def intact(self) -> bool:
        return not self.faults

    @property
    def lines(self) -> list[str]:
        """The verdict as lines of text."""
        checked = f"{self.about}: {counted(self.events, 'event')} in {counted(self.workspaces, 'chain')}"
        result = "intact" if self.intact else f"BROKEN, {counted(len(self.faults), 'finding')}"
        return [*(f"broken: {fault.what}" for fault in self.faults), f"{checked}, {result}", *self.notes]


def verdict_json(verdict: Verdict) -> bytes:
    """The verdict as JSON."""
    return msgspec.json.encode({"intact": verdict.intact, **msgspec.structs.asdict(verdict)})


def verify_file(reader: ExportReader, path: Path) -> Verdict:
    """Verifies an export, without a service or a database."""
    faults = list(reader.faults())
    return Verdict(str(path), reader.checker.events, reader.checker.workspaces, faults, _notes(reader))


def verify_live(run: Invocation, workspace: str | None, export: ExportReader | None) -> Verdict:
    """Verifies the service's log, and compares it with an export if one is given.

    Raises `ConsoleFailure` if the export is not intact: then it proves nothing.
    """
    if export is not None and (broken := list(export.faults())):
        raise ConsoleFailure("the export to compare with is itself not intact", *(fault.what for fault in broken[:10]))
    checker = ChainChecker(None if export is None else export.hashes)
    log = LiveLog(run.client, checker)
    faults = list(log.check_all() if workspace is None else log.check_workspace(workspace))
    notes: list[str] = []
    if export is not None:
        checked = {head.workspace_id for head in log.heads}
        compared = [it for it in export.hashes if workspace is None or it in checked]
        faults += checker.find_missing(compared)
        notes = [
            *_notes(export),
            f"compared with {counted(sum(len(export.hashes[it]) for it in compared), 'event')} of the export",
        ]
    return Verdict(f"the log at {run.client.url}", checker.events, checker.workspaces, faults, notes)


def export_log(run: Invocation, workspace: str | None, target: BinaryIO, key: bytes | None) -> Verdict:
    """Writes the export and verifies the log meanwhile. It exports a broken chain unchanged and reports it."""
    writer, checker = ExportWriter(target, key), ChainChecker()
    log = LiveLog(run.client, checker, on_event=writer.event)
    faults = list(log.check_all(writer.begin) if workspace is None else log.check_workspace(workspace, writer.begin))
    trailer = writer.finish(log.heads)
    signed = "signed" if trailer.hmac_sha256 is not None else "not signed"
    notes = [f"sha256 {trailer.sha256}, {signed}"]
    return Verdict("exported", checker.events, checker.workspaces, faults, notes)


def _notes(reader: ExportReader) -> list[str]:
    summary = reader.summary
    if summary is None:
        return []
    header, signed = summary.header, "signed" if summary.signed else "not signed"
    of = "all workspaces" if header.workspace is None else header.workspace
    at = f"{header.exported_at:%Y-%m-%d %H:%M:%SZ}"
    return [f"exported {at}, {of}, up to position {header.position}, {signed}, sha256 {summary.trailer.sha256}"]
