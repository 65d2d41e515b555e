"""Ids, error codes and limits: the constants that others depend on."""

import re
from pathlib import Path
from uuid import UUID

import pytest

from wvs.domain.errors import STATUS, ErrorCode, Refused
from wvs.domain.ids import SNAPSHOT, WORKSPACE, InvalidId, format_id, parse_id, suffix_of
from wvs.domain.policy import QUEUE_LIMIT, RETRY, RetryPolicy
from wvs.domain.states import TaskKind

SAMPLE = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def test_an_id_is_written_as_the_typeid_specification_says() -> None:
    assert format_id(WORKSPACE, SAMPLE) == "ws_01h455vb4pex5vsknk084sn02q"
    assert suffix_of(SAMPLE) == "01h455vb4pex5vsknk084sn02q"


@pytest.mark.parametrize("value", [UUID(int=0), SAMPLE, UUID(int=2**128 - 1)])
def test_an_id_survives_writing_and_reading(value: UUID) -> None:
    assert parse_id(SNAPSHOT, format_id(SNAPSHOT, value)) == value


def test_ids_sort_as_their_values_do() -> None:
    values = [UUID(int=n * 2**100 + n) for n in range(50)]
    assert sorted(values, key=lambda value: format_id(SNAPSHOT, value)) == values


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ws_",
        "ws",
        "snap_01h455vb4pex5vsknk084sn02q",
        "ws01h455vb4pex5vsknk084sn02q",
        "WS_01h455vb4pex5vsknk084sn02q",
        "ws_01H455VB4PEX5VSKNK084SN02Q",
        "ws_01h455vb4pex5vsknk084sn02",
        "ws_01h455vb4pex5vsknk084sn02qq",
        "ws_8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "ws_01h455vb4pex5vsknk084sn02u",
        "ws_01h455vb4pex5vsknk084sn02\n",
        "ws_01h455vb4pex5vsknk084sn0\0q",
        "ws_../../../../../../etc/pass",
        "ws_" + "é" * 26,
        "ws_" + "\ud800" * 26,
        "x" * 10_000,
    ],
)
def test_an_invalid_id_is_refused_and_echoed_only_in_part(text: str) -> None:
    with pytest.raises(InvalidId) as refused:
        parse_id(WORKSPACE, text)
    assert len(str(refused.value)) < 1000


def test_every_code_has_the_status_of_the_design() -> None:
    by_status: dict[int, set[str]] = {}
    for code, status in STATUS.items():
        by_status.setdefault(status, set()).add(code)
    assert by_status == {
        400: {"INVALID_REQUEST", "IDEMPOTENCY_KEY_REQUIRED", "INVALID_CURSOR"},
        403: {"SESSION_SECRET_INVALID"},
        404: {
            "WORKSPACE_NOT_FOUND",
            "SNAPSHOT_NOT_FOUND",
            "TASK_NOT_FOUND",
            "SESSION_NOT_FOUND",
            "VERSION_NOT_FOUND",
            "ROUTE_NOT_FOUND",
        },
        405: {"METHOD_NOT_ALLOWED"},
        409: {
            "WORKSPACE_NAME_TAKEN",
            "WORKSPACE_NOT_ACTIVE",
            "WORKSPACE_DISABLED",
            "WORKSPACE_NOT_INIT_FAILED",
            "SNAPSHOT_NOT_READY",
            "SNAPSHOT_IN_USE",
            "SNAPSHOT_DROPPED",
            "TASK_NOT_RETRYABLE",
            "TASK_NOT_CANCELLABLE",
            "IDEMPOTENCY_IN_FLIGHT",
            "FREEZE_STALE",
            "PATH_REPLACED",
        },
        412: {"CURRENT_CHANGED"},
        413: {"BODY_TOO_LARGE"},
        415: {"UNSUPPORTED_MEDIA_TYPE"},
        422: {"IDEMPOTENCY_KEY_REUSED"},
        429: {"WORKSPACE_QUEUE_FULL"},
        500: {"INTERNAL"},
        503: {"UNAVAILABLE"},
        507: {"DISK_FULL"},
    }
    assert set(ErrorCode) - set(STATUS) == {
        "QUIESCE_TIMEOUT",
        "QUIESCE_REFUSED",
        "QUIESCE_BROKEN",
        "TORN_CLONE",
        "CLONE_FAILED",
        "VOLUME_FULL",
        "VOLUME_UNAVAILABLE",
        "TREE_MISSING",
        "REMOVE_FAILED",
        "LEASE_LOST",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
    }


def test_a_refusal_shows_its_code_and_reason() -> None:
    refused = Refused(ErrorCode.SNAPSHOT_IN_USE, "It is current.", "Set another.", blockers=[])
    assert str(refused) == "SNAPSHOT_IN_USE: It is current."
    assert (refused.hint, refused.fields) == ("Set another.", {"blockers": []})


def test_every_kind_has_a_policy_and_its_attempts_are_bounded() -> None:
    assert {kind: policy.max_attempts for kind, policy in RETRY.items()} == {
        TaskKind.WORKSPACE_INIT: 3,
        TaskKind.SNAPSHOT_CREATE: 4,
        TaskKind.CURRENT_SET: 4,
        TaskKind.SNAPSHOT_DROP: 6,
    }
    assert QUEUE_LIMIT == 100


def test_delays_double_up_to_the_cap_and_jitter_by_a_quarter_at_most() -> None:
    policy = RetryPolicy(max_attempts=9, base_s=0.5, cap_s=3, deadline_s=1)
    assert [policy.delay_s(attempt, 0.0) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert (policy.delay_s(2, -1.0), policy.delay_s(2, 1.0)) == (0.75, 1.25)
    assert (policy.delay_s(2, -9.0), policy.delay_s(2, 9.0)) == (0.75, 1.25), "jitter is clamped"


def test_the_domain_imports_no_clock_no_randomness_and_no_io() -> None:
    domain = Path(__file__).resolve().parents[3] / "src" / "wvs" / "domain"
    imports = {
        match
        for module in domain.glob("*.py")
        for match in re.findall(r"^(?:from|import) ([a-z_]+)", module.read_text(), re.MULTILINE)
    }
    assert imports == {
        "collections",
        "datetime",
        "enum",
        "msgspec",
        "re",
        "rpds",
        "typeid",
        "typing",
        "uuid",
        "wvs",
    }
    calls = "".join(module.read_text() for module in domain.glob("*.py"))
    assert not re.search(r"\b(now|today|utcnow|uuid[1-8])\(", calls)
