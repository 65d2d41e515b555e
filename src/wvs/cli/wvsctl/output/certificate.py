"""Describes a consistency certificate in sentences."""

from wvs.cli.wvsctl.api.documents import BystandersDocument, CertificateDocument, MemberDocument
from wvs.cli.wvsctl.output.layout import duration, moment, number


def describe_certificate(certificate: CertificateDocument) -> list[str]:
    """What a certificate proves, and the evidence; one sentence per line (design §7)."""
    # Executors of development versions took both times from the wall clock, which may have been set back in between.
    held_s = max(0.0, (certificate.resumed_at - certificate.frozen_at).total_seconds())
    return [
        f"freeze {certificate.freeze}: {_agents(len(certificate.members))}",
        *map(_member, certificate.members),
        *_bystanders(certificate.bystanders),
        _stamps(certificate),
        f"engine {certificate.engine}; frozen at {moment(certificate.frozen_at)} for {duration(held_s)}",
    ]


def _agents(members: int) -> str:
    match members:
        case 0:
            return "no agent was registered, so the stamps alone are the proof"
        case 1:
            return "the one registered agent was still frozen after the clone:"
        case _:
            return f"all {members} registered agents were still frozen after the clone:"


def _member(member: MemberDocument) -> str:
    frozen = member.frozen
    what = "" if frozen is None else f" {frozen.kind} {frozen.name} (processes: {number(frozen.processes)})"
    return f"  {member.session_id} froze{what} with token {member.token}, flush: {member.flush}"


def _bystanders(bystanders: BystandersDocument | None) -> list[str]:
    if bystanders is None:
        return ["nobody looked for processes outside the sessions that hold the live tree"]
    named = [f"  {one.pid} on {one.host}: {one.command} ({', '.join(one.how)})" for one in bystanders.named]
    more = bystanders.found - len(named)
    return [
        f"bystanders, not stopped: {bystanders.found}" + (":" if named else ""),
        *named,
        *([f"  and {more} more"] if more > 0 else []),
        *(f"bystanders not looked for: {place}" for place in bystanders.unseen),
    ]


def _stamps(certificate: CertificateDocument) -> str:
    before, after = certificate.stamp_before, certificate.stamp_after
    if before == after:
        return f"no process wrote during the clone: the stamps before and after are equal ({after})"
    return f"NOT PROVEN: the stamps before and after the clone differ ({before} and {after})"
