"""Tasks that stay queued because no executor runs: wait, do not wait, cancel, retry."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.integration.wvsctl.consoles import Wvsctl, serving, working

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.transport import Transport


def test_no_wait_returns_at_once_and_prints_the_wait_command(idle: Wvsctl, name: Callable[[], str]) -> None:
    given = name()
    result = idle.ok("workspace", "create", given, "--no-wait")
    assert "state      initializing" in result.out
    task = idle.json("task", "list", "--workspace", given)["items"][0]["id"]
    assert f"wvsctl task wait {task}" in result.err
    assert idle.json("workspace", "create", name(), "--no-wait")["task"]["state"] == "queued"


def test_answers_console_probe_and_metric_say_whether_an_executor_lives(
    idle_environment: dict[str, str], name: Callable[[], str], tmp_path: Path
) -> None:
    patience = {"WVS_LEASE_S": "2", "WVS_LEASE_RENEW_S": "1"}
    with serving("api", "--port", "0", environment={**idle_environment, **patience}, log=tmp_path / "api.log") as url:
        api = Wvsctl(url)

        def waits() -> bool:
            reason = (json.loads(api.raw("/readyz"))["waiting_for"] or {}).get("reason")
            assert reason in ("no_executor", None)
            return reason == "no_executor"

        assert waits()
        assert b"\nwvs_executors 0.0\n" in api.raw("/metrics")
        given = name()
        accepted = api.json("workspace", "create", given, "--no-wait")["task"]
        assert accepted["waiting_for"]["reason"] == "no_executor"
        assert "no executor is running" in api.ok("workspace", "create", name(), "--no-wait").err
        assert "no executor is running" in api.ok("task", "get", accepted["id"]).out
        timed_out = api("task", "wait", accepted["id"], "--wait-timeout", "0.2")
        assert timed_out.err.count("no executor is running") == 2, "a note at once, and the reason of the time-out"

        with working(idle_environment, tmp_path / "executor.log") as executor:
            assert api.json("task", "wait", accepted["id"])["waiting_for"] is None
            _until(lambda: not waits(), "an executor lives")
            assert b"\nwvs_executors 1.0\n" in api.raw("/metrics")
            assert api.json("snapshot", "create", given, "--no-wait")["task"]["waiting_for"] is None
            os.kill(executor, signal.SIGSTOP)
            _until(waits, "the executor hangs, and its connection with it")
            assert api.json("snapshot", "create", given, "--no-wait")["task"]["waiting_for"] is not None
            os.kill(executor, signal.SIGCONT)
            _until(lambda: not waits(), "the executor works again")
            os.kill(executor, signal.SIGKILL)
            _until(waits, "the executor is gone")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_an_expired_wait_exits_7_and_the_task_continues(
    idle: Wvsctl, idle_environment: dict[str, str], name: Callable[[], str], tmp_path: Path
) -> None:
    given = name()
    began = time.monotonic()
    result = idle("workspace", "create", given, "--wait-timeout", "1.5", "--json")
    assert result.code == 7
    assert 1.4 < time.monotonic() - began < 6
    assert "continues without this console" in result.err
    assert result.out == ""
    task = idle.json("task", "list", "--workspace", given, "--state", "queued")["items"][0]["id"]
    assert f"wvsctl task get {task}" in result.err
    assert idle("task", "wait", task, "--wait-timeout", "0.2").code == 7
    with working(idle_environment, tmp_path / "executor.log"):
        waited = idle.ok("task", "wait", task, "--wait-timeout", "60")
    assert "state      succeeded" in waited.out


def test_a_wait_survives_a_restart_of_the_api(
    idle: Wvsctl, idle_environment: dict[str, str], queued: tuple[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    _, task = queued
    with serving("api", "--port", port, environment=idle_environment, log=tmp_path / "first.log") as url:
        console = Wvsctl(url).start("task", "wait", task)
        _read_until(console, task)
    _read_until(console, "the task continues; retrying")
    with (
        serving("api", "--port", port, environment=idle_environment, log=tmp_path / "second.log"),
        working(idle_environment, tmp_path / "executor.log"),
    ):
        out, err = console.communicate(timeout=60)
    assert console.returncode == 0, err
    assert "state      succeeded" in out


def test_ctrl_c_during_a_wait_exits_130_and_names_the_task_that_continues(
    idle: Wvsctl, queued: tuple[str, str]
) -> None:
    _, task = queued
    console = idle.start("task", "wait", task)
    _read_until(console, task)
    console.send_signal(signal.SIGINT)
    out, err = console.communicate(timeout=20)
    assert console.returncode == 130
    assert out == ""
    assert "continues without this console" in err
    assert f"wvsctl task get {task}" in err
    assert idle.json("task", "get", task)["state"] == "queued"


def test_ctrl_c_before_the_answer_names_the_key_for_a_repetition(idle: Wvsctl, name: Callable[[], str]) -> None:
    given = name()
    with _silent_server() as url:
        console = Wvsctl(url).start("workspace", "create", given)
        key = _read_until(console, "idempotency key: ").split()[-1]
        time.sleep(0.2)
        console.send_signal(signal.SIGINT)
        _, err = console.communicate(timeout=20)
    assert console.returncode == 130
    assert f"--idempotency-key {key}" in err


@contextlib.contextmanager
def _silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _read_until(console: subprocess.Popen[str], text: str) -> str:
    assert console.stderr is not None
    for line in console.stderr:
        if text in line:
            return line
    raise AssertionError(f"the console ended and printed no line with {text}")


def test_cancel_of_a_queued_task_exits_0_and_a_wait_for_it_exits_6(idle: Wvsctl, queued: tuple[str, str]) -> None:
    given, task = queued
    waiting = idle.start("task", "wait", task)
    _read_until(waiting, task)
    result = idle.ok("task", "cancel", task)
    assert "state      cancelled" in result.out
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 6, err
    assert "workspace_init cancelled" in err
    again = idle("task", "cancel", task)
    assert again.code == 5
    assert "TASK_NOT_CANCELLABLE" in again.err
    retried = idle("task", "retry", task)
    assert retried.code == 5
    assert "TASK_NOT_RETRYABLE" in retried.err
    restarted = idle.json("workspace", "retry-init", given, "--no-wait")
    assert restarted["workspace"]["state"] == "initializing"


def test_a_full_queue_is_a_failure(
    idle: Wvsctl, idle_environment: dict[str, str], queued: tuple[str, str], tmp_path: Path
) -> None:
    given, task = queued
    with working(idle_environment, tmp_path / "executor.log"):
        idle.ok("task", "wait", task)
    client = Client(Transport(idle.url), actor=None, notify=print)
    for number in range(100):
        client.write("POST", path_of("workspaces", given, "snapshots"), {}, key=f"{given}-{number}")
    result = idle("snapshot", "create", given, "--no-wait")
    assert result.code == 1
    assert "WORKSPACE_QUEUE_FULL" in result.err
    idle.ok("workspace", "disable", given, "--yes")


def test_a_workspace_without_a_live_tree_has_no_path(idle: Wvsctl, queued: tuple[str, str]) -> None:
    result = idle("workspace", "path", queued[0])
    assert (result.code, result.out) == (1, "")
    assert "it is initializing" in result.err


def test_an_unknown_task_is_not_found(idle: Wvsctl) -> None:
    for action in ("get", "wait", "retry", "cancel"):
        assert idle("task", action, "task_00000000000000000000000000").code == 3
