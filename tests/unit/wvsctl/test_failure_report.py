import msgspec

from wvs.cli.wvsctl.api.documents import ErrorDocument, RefusalDocument, TaskDocument
from wvs.cli.wvsctl.api.failures import CannotConnect, Refusal, TaskFailed, WaitTimedOut, interrupted_waiting
from wvs.cli.wvsctl.output.failure_report import failure_lines

TASK = msgspec.convert(
    {
        "id": "task_1",
        "workspace_id": "ws_1",
        "kind": "snapshot_create",
        "state": "failed",
        "created_at": "2026-11-23T20:05:33Z",
    },
    TaskDocument,
)


def test_a_refusal_has_its_reason_its_blockers_a_remedy_and_the_request_id() -> None:
    problem = RefusalDocument(
        code="SNAPSHOT_IN_USE",
        detail="snapshot snap_1 is in use",
        hint="Set current to another snapshot.",
        request_id="abc",
        blockers=({"kind": "current"}, {"kind": "task", "id": "task_9"}, {"kind": "lease", "until": 7}),
    )
    assert failure_lines(Refusal(409, problem, b"{}", None)) == [
        "wvsctl: snapshot snap_1 is in use [SNAPSHOT_IN_USE]",
        "  blocked: it is the current snapshot (to change that: wvsctl current set)",
        "  blocked: task task_9 uses it (to see it: wvsctl task get task_9)",
        "  blocked: kind lease, until 7",
        "  Set current to another snapshot.",
        "  request id (for the service's log): abc",
    ]


def test_a_failed_task_has_its_error_and_the_two_next_steps() -> None:
    error = ErrorDocument("TORN_CLONE", "the source changed", "Try again when it is quiet.")
    assert failure_lines(TaskFailed(msgspec.structs.replace(TASK, error=error))) == [
        "wvsctl: snapshot_create failed: the source changed [TORN_CLONE]",
        "  Try again when it is quiet.",
        "  to retry it: wvsctl task retry task_1",
        "  to give it up: wvsctl task cancel task_1",
    ]


def test_a_cancelled_task_offers_no_retry() -> None:
    assert failure_lines(TaskFailed(msgspec.structs.replace(TASK, state="cancelled"))) == [
        "wvsctl: snapshot_create cancelled"
    ]


def test_a_refused_connection_names_the_url_and_the_command_that_starts_the_service() -> None:
    lines = failure_lines(CannotConnect("http://127.0.0.1:8787", "Connection refused"))
    assert lines[0] == "wvsctl: cannot connect to the API at http://127.0.0.1:8787: Connection refused"
    assert lines[1].strip() == "start it with: wvs up"


def test_the_end_of_a_wait_reports_that_the_task_continues_and_how_to_see_it() -> None:
    running = msgspec.structs.replace(TASK, state="running")
    for failure in (WaitTimedOut(running, 2.5), interrupted_waiting(running)):
        text = "\n".join(failure_lines(failure))
        assert "continues without this console" in text
        assert "wvsctl task get task_1" in text
