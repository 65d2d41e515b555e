"""Verification and export: one pass over a log, and the verdict on it."""

from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from wvs.cli.wvsctl.actions.invocation import Invocation
from wvs.cli.wvsctl.api.failures import ConsoleFailure
from wvs.cli.wvsctl.audit.chain_checker import ChainChecker, Fault
from wvs.cli.wvsctl.audit.exports import ExportReader, ExportWriter
from wvs.cli.wvsctl.audit.live_log import LiveLog
from wvs.cli.wvsctl.output.layout import number


class Verdict(Struct, frozen=True):
    """What a verification found; `about` says what was looked at, `notes` what else is worth knowing."""

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
        """The verdict for people."""
        looked = f"{self.about}: {number(self.events)} events in {number(self.workspaces)} chains"
        judged = "intact" if self.intact else f"BROKEN, {number(len(self.faults))} findings"
        return [*(f"broken: {fault.what}" for fault in self.faults), f"{looked}, {judged}", *self.notes]


def told(verdict: Verdict) -> bytes:
    """The verdict as JSON."""
    return msgspec.json.encode({"intact": verdict.intact, **msgspec.structs.asdict(verdict)})


def verify_file(reader: ExportReader, path: Path) -> Verdict:
    """The verdict on an export, which needs neither a service nor a database."""
    faults = list(reader.faults())
    return Verdict(str(path), reader.checker.events, reader.checker.workspaces, faults, _notes(reader))


def verify_live(run: Invocation, workspace: str | None, kept: ExportReader | None) -> Verdict:
    """The verdict on the service's log, compared with an export that was kept.

    Raises `ConsoleFailure` if the export itself is not intact: then it proves nothing.
    """
    if kept is not None and (broken := list(kept.faults())):
        raise ConsoleFailure("the export to compare with is not intact itself", *(fault.what for fault in broken[:10]))
    checker = ChainChecker(None if kept is None else kept.hashes)
    log = LiveLog(run.client, checker)
    faults = list(log.follow_all() if workspace is None else log.follow(workspace))
    notes: list[str] = []
    if kept is not None:
        followed = {head.workspace_id for head in log.heads}
        compared = [it for it in kept.hashes if workspace is None or it in followed]
        faults += checker.missing(compared)
        notes = [*_notes(kept), f"compared with {number(sum(len(kept.hashes[it]) for it in compared))} kept events"]
    return Verdict(f"the log at {run.client.url}", checker.events, checker.workspaces, faults, notes)


def export_log(run: Invocation, workspace: str | None, target: BinaryIO, key: bytes | None) -> Verdict:
    """Writes the export and checks what it writes; a broken chain is exported as it is, and told."""
    writer, checker = ExportWriter(target, key), ChainChecker()
    log = LiveLog(run.client, checker, keep=writer.event)
    faults = list(log.follow_all(writer.begin) if workspace is None else log.follow(workspace, writer.begin))
    ending = writer.finish(log.heads)
    signed = "signed" if ending.hmac_sha256 is not None else "not signed"
    notes = [f"sha256 {ending.sha256}, {signed}"]
    return Verdict("exported", checker.events, checker.workspaces, faults, notes)


def _notes(reader: ExportReader) -> list[str]:
    summary = reader.summary
    if summary is None:
        return []
    beginning, signed = summary.beginning, "signed" if summary.signed else "not signed"
    of = "all workspaces" if beginning.workspace is None else beginning.workspace
    at = f"{beginning.exported_at:%Y-%m-%d %H:%M:%SZ}"
    return [f"exported {at}, {of}, up to position {beginning.position}, {signed}, sha256 {summary.ending.sha256}"]
