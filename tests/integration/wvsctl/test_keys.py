"""Safe repetition: an operation runs once per idempotency key."""

from collections.abc import Callable

from tests.integration.wvsctl.consoles import Wvsctl


def test_a_repetition_with_the_printed_key_runs_nothing_a_second_time(
    wvsctl: Wvsctl, workspace: str, snapshot: str
) -> None:
    first = wvsctl("snapshot", "create", workspace, "--json")
    key = first.err.splitlines()[0].removeprefix("idempotency key: ")
    again = wvsctl("snapshot", "create", workspace, "--json", "--idempotency-key", key)
    assert again.document["snapshot"]["id"] == first.document["snapshot"]["id"]
    assert "it ran once" in again.err
    assert "idempotency key:" not in again.err
    assert len(wvsctl.json("snapshot", "list", workspace)["items"]) == 2


def test_a_key_of_another_request_is_a_conflict(wvsctl: Wvsctl, workspace: str, name: Callable[[], str]) -> None:
    key = f"key-{workspace}"
    wvsctl.ok("workspace", "create", name(), "--idempotency-key", key)
    result = wvsctl("workspace", "create", name(), "--idempotency-key", key)
    assert result.code == 5
    assert "IDEMPOTENCY_KEY_REUSED" in result.err


def test_an_invalid_key_is_a_usage_error(wvsctl: Wvsctl, name: Callable[[], str]) -> None:
    assert wvsctl("workspace", "create", name(), "--idempotency-key", "k" * 256).code == 2
    assert wvsctl("workspace", "create", name(), "--idempotency-key", "").code == 2
