"""A consistency certificate in words."""

from wvs.cli.wvsctl.api.documents import CertificateDocument, MemberDocument
from wvs.cli.wvsctl.output.layout import duration, moment


def in_words(certificate: CertificateDocument) -> list[str]:
    """What a certificate proves and by what, one sentence per line (design §7)."""
    held_s = (certificate.resumed_at - certificate.frozen_at).total_seconds()
    return [
        f"frozen by freeze {certificate.freeze}; {_who(len(certificate.members))}",
        *map(_member, certificate.members),
        _stamps(certificate),
        f"engine {certificate.engine}; frozen at {moment(certificate.frozen_at)} for {duration(held_s)}",
    ]


def _who(members: int) -> str:
    match members:
        case 0:
            return "no agents were registered: proven by the stamps alone"
        case 1:
            return "the one registered agent was still frozen after the clone:"
        case _:
            return f"all {members} registered agents were still frozen after the clone:"


def _member(member: MemberDocument) -> str:
    return f"  {member.session_id} froze under token {member.token}, flush: {member.flush}"


def _stamps(certificate: CertificateDocument) -> str:
    before, after = certificate.stamp_before, certificate.stamp_after
    if before == after:
        return f"nothing wrote while it was cloned: the stamps before and after are equal ({after})"
    return f"NOT PROVEN: the stamps before and after differ ({before} and {after})"
