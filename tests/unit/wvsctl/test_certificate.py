from datetime import UTC, datetime

import msgspec

from wvs.cli.wvsctl.api.documents import CertificateDocument, MemberDocument
from wvs.cli.wvsctl.output.certificate import in_words

ALONE = CertificateDocument(
    freeze=12,
    stamp_before="sha256:aa",
    stamp_after="sha256:aa",
    engine="copy",
    frozen_at=datetime(2026, 11, 23, 20, 5, 33, tzinfo=UTC),
    resumed_at=datetime(2026, 11, 23, 20, 5, 33, 22000, tzinfo=UTC),
)


def test_a_freeze_without_agents_is_said_to_rest_on_the_stamps_alone() -> None:
    assert in_words(ALONE) == [
        "frozen by freeze 12; no agents were registered: proven by the stamps alone",
        "nothing wrote while it was cloned: the stamps before and after are equal (sha256:aa)",
        "engine copy; frozen at 2026-11-23 20:05:33Z for 22 ms",
    ]


def test_every_agent_is_named_with_its_token_and_flush() -> None:
    members = tuple(MemberDocument(f"sess_{name}", f"t{name}", "ok") for name in "ab")
    lines = in_words(msgspec.structs.replace(ALONE, members=members))
    assert lines[0] == "frozen by freeze 12; all 2 registered agents were still frozen after the clone:"
    assert lines[1:3] == [
        "  sess_a froze under token ta, flush: ok",
        "  sess_b froze under token tb, flush: ok",
    ]
    assert in_words(msgspec.structs.replace(ALONE, members=members[:1]))[0].startswith(
        "frozen by freeze 12; the one registered agent"
    )


def test_different_stamps_are_never_called_a_proof() -> None:
    lines = in_words(msgspec.structs.replace(ALONE, stamp_after="sha256:bb"))
    assert lines[1] == "NOT PROVEN: the stamps before and after differ (sha256:aa and sha256:bb)"
