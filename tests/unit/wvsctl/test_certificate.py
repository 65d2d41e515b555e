from datetime import UTC, datetime

import msgspec

from wvs.cli.wvsctl.api.documents import (
    BystanderDocument,
    BystandersDocument,
    CertificateDocument,
    FrozenDocument,
    MemberDocument,
)
from wvs.cli.wvsctl.output.certificate import describe_certificate

ALONE = CertificateDocument(
    freeze=12,
    stamp_before="sha256:aa",
    stamp_after="sha256:aa",
    engine="copy",
    frozen_at=datetime(2026, 11, 23, 20, 5, 33, tzinfo=UTC),
    resumed_at=datetime(2026, 11, 23, 20, 5, 33, 22000, tzinfo=UTC),
)


def test_without_agents_the_stamps_alone_are_the_proof() -> None:
    assert describe_certificate(ALONE) == [
        "freeze 12: no agent was registered, so the stamps alone are the proof",
        "nobody looked for processes outside the sessions that hold the live tree",
        "no process wrote during the clone: the stamps before and after are equal (sha256:aa)",
        "engine copy; frozen at 2026-11-23 20:05:33Z for 22 ms",
    ]


def test_every_agent_is_named_with_its_token_and_flush() -> None:
    members = tuple(MemberDocument(f"sess_{name}", f"t{name}", "ok") for name in "ab")
    lines = describe_certificate(msgspec.structs.replace(ALONE, members=members))
    assert lines[0] == "freeze 12: all 2 registered agents were still frozen after the clone:"
    assert lines[1:3] == [
        "  sess_a froze with token ta, flush: ok",
        "  sess_b froze with token tb, flush: ok",
    ]
    assert describe_certificate(msgspec.structs.replace(ALONE, members=members[:1]))[0].startswith(
        "freeze 12: the one registered agent"
    )


def test_different_stamps_are_not_a_proof() -> None:
    lines = describe_certificate(msgspec.structs.replace(ALONE, stamp_after="sha256:bb"))
    assert lines[2] == "NOT PROVEN: the stamps before and after the clone differ (sha256:aa and sha256:bb)"


def test_a_member_shows_what_it_froze() -> None:
    member = MemberDocument("sess_a", "ta", "ok", FrozenDocument("cgroup", "wvs-sess_a", 3))
    lines = describe_certificate(msgspec.structs.replace(ALONE, members=(member,)))
    assert lines[1] == "  sess_a froze cgroup wvs-sess_a (processes: 3) with token ta, flush: ok"


def test_bystanders_are_named_counted_and_said_where_nobody_looked() -> None:
    vim = BystanderDocument(4711, "vim main.c", "build-3", ("working directory", "writes main.c"))
    seen = BystandersDocument(3, (vim,), ("build-4: its agent reported no look",))
    lines = describe_certificate(msgspec.structs.replace(ALONE, bystanders=seen))
    assert lines[1:5] == [
        "bystanders, not stopped: 3:",
        "  4711 on build-3: vim main.c (working directory, writes main.c)",
        "  and 2 more",
        "bystanders not looked for: build-4: its agent reported no look",
    ]


def test_no_bystander_is_said_in_one_line() -> None:
    lines = describe_certificate(msgspec.structs.replace(ALONE, bystanders=BystandersDocument(0)))
    assert lines[1] == "bystanders, not stopped: 0"
