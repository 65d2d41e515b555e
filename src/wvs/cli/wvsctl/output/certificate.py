"""Describes a consistency certificate in sentences."""

from wvs.cli.wvsctl.api.documents import CertificateDocument, MemberDocument
from wvs.cli.wvsctl.output.layout import duration, moment


def describe_certificate(certificate: CertificateDocument) -> list[str]:
    """What a certificate proves, and the evidence; one sentence per line (design §7)."""
    # Executors of development versions took both times from the wall clock, which may have been set back in between.
    held_s = max(0.0, (certificate.resumed_at - certificate.frozen_at).total_seconds())
    return [
        f"freeze {certificate.freeze}: {_agents(len(certificate.members))}",
        *map(_member, certificate.members),
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
    return f"  {member.session_id} froze with token {member.token}, flush: {member.flush}"


def _stamps(certificate: CertificateDocument) -> str:
    before, after = certificate.stamp_before, certificate.stamp_after
    if before == after:
        return f"no process wrote during the clone: the stamps before and after are equal ({after})"
    return f"NOT PROVEN: the stamps before and after the clone differ ({before} and {after})"
