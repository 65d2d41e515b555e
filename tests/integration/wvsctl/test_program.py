"""The program as a shell runs it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.wvsctl.consoles import Wvsctl
from tests.skips import need_program


def test_the_exit_code_reaches_the_shell(wvsctl: Wvsctl, workspace: str) -> None:
    for arguments, code in (
        (("workspace", "get", workspace), 0),
        (("workspace", "get", "nobody"), 3),
        (("workspace", "create", workspace), 5),
        (("workspace", "crate"), 2),
        (("--version",), 0),
    ):
        process = wvsctl.start(*arguments)
        process.communicate(timeout=30)
        assert process.returncode == code, arguments


def test_without_a_service_the_failure_names_the_url_and_wvs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for arguments in (("workspace", "list"), ("workspace", "create", "w")):
        result = Wvsctl(url)(*arguments)
        assert result.code == 1
        assert url in result.err
        assert "wvs up" in result.err


def test_a_url_below_the_root_of_the_api_is_a_failure(wvsctl: Wvsctl) -> None:
    result = Wvsctl(wvsctl.url + "/wrong")("workspace", "list")
    assert result.code == 1
    assert "ROUTE_NOT_FOUND" in result.err


def test_a_host_that_the_service_does_not_accept_is_reported(wvsctl: Wvsctl) -> None:
    port = wvsctl.url.rsplit(":", 1)[1]
    result = Wvsctl(f"http://127.1:{port}")("workspace", "list")
    assert result.code == 2
    assert "Host" in result.err


def test_a_closed_pipe_ends_the_program_quietly(wvsctl: Wvsctl, workspace: str) -> None:
    process = wvsctl.start("task", "list", "--all", "--limit", "1", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(30) in (0, 1)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_accepts_its_completion_script(wvsctl: Wvsctl, shell: str) -> None:
    script = wvsctl.ok("completion", shell).out
    assert "workspace" in script
    assert "retry-init" in script
    checked = subprocess.run([need_program(shell), "-n"], input=script, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_bash_completes_commands_options_names_and_ids(
    wvsctl: Wvsctl, workspace: str, snapshot: str, tmp_path: Path
) -> None:
    script = wvsctl.ok("completion", "bash").out
    task = wvsctl.json("task", "list", "--limit", "1")["items"][0]["id"]
    program = tmp_path / "wvsctl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wvs.cli.wvsctl "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "WVS_URL": wvsctl.url}
    for line, expected in (
        (["wvsctl", ""], {"workspace", "snapshot", "current", "task", "completion"}),
        (["wvsctl", "snapshot", ""], {"create", "list", "get", "drop"}),
        (["wvsctl", "task", "list", "--st"], {"--state"}),
        (["wvsctl", "snapshot", "create", "w"], {workspace}),
        (["wvsctl", "snapshot", "get", workspace, ""], {snapshot}),
        (["wvsctl", "task", "get", "task_"], {task}),
    ):
        code = f"{script}\nCOMP_WORDS=({' '.join(word or chr(39) * 2 for word in line)})\n"
        code += f"COMP_CWORD={len(line) - 1}\n_wvsctl\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
        result = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert expected <= set(result.stdout.split()), (line, result)


def test_a_misspelled_variable_is_told_with_the_one_that_was_meant(idle: Wvsctl) -> None:
    def warnings(**variables: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            result = idle.ok("--json", "task", "list")
        return [line for line in result.err.splitlines() if "is not a setting" in line]

    assert warnings(WVS_URLL="http://elsewhere") == ["wvsctl: WVS_URLL is not a setting; did you mean WVS_URL?"]
    assert warnings(WVS_ACTOR="a", WVS_SESSION="s", WVS_LIVE="l", WVS_WORKSPACE="w", WVS_DATA_DIR="d") == []
