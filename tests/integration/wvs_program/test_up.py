"""`wvs up` as an operator uses it: one tree of real processes, with children killed, that ends as a whole."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_TIMEOUT_S = 60.0


class Up:
    """A running `wvs up`."""

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("ready http://127.0.0.1:"), line + (data_dir / "err").read_text()
        self.url = line.split()[1]

    def children(self) -> dict[str, int]:
        """The newest process of each command, from the log."""
        found: dict[str, int] = {}
        # The last line may be incomplete, and messages of Python itself on stderr are no log entries.
        lines = (self.data_dir / "err").read_text().splitlines(keepends=True)
        for entry in (json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")):
            if entry["event"] == "child_started":
                found[entry["command"]] = entry["pid"]
        return found

    def ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
            return answer.status == 200
        return False


def start(data_dir: Path, *options: str, **settings: str) -> subprocess.Popen[str]:
    own = {"WVS_PORT": "0", "WVS_EXECUTOR_METRICS_PORT": "0", "WVS_DRAIN_GRACE_S": "2", "WVS_LOG_FORMAT": "json"}
    environment = {**os.environ, **own, **settings}
    with (data_dir / "err").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", "up", "--data-dir", str(data_dir), *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )


@contextlib.contextmanager
def running(data_dir: Path) -> Iterator[Up]:
    process = start(data_dir)
    try:
        yield Up(process, data_dir)
    finally:
        process.terminate()
        process.wait(_TIMEOUT_S)


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.timeout(180)
def test_killed_children_and_a_killed_database_are_restarted_and_all_end_together(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        first = up.children()
        for command in ("executor", "api"):
            os.kill(first[command], signal.SIGKILL)
        eventually(lambda: up.children()["executor"] != first["executor"], "no new executor")
        eventually(lambda: up.children()["api"] != first["api"] and up.ready(), "no new api, or not on the same port")

        postmaster = int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        eventually(lambda: "database_restarted" in (tmp_path / "err").read_text(), "no new database")
        eventually(up.ready, "not ready again")
        last = up.children()
    assert up.process.returncode == 0
    assert gone(last["api"])
    assert gone(last["executor"])
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


@pytest.mark.timeout(180)
def test_a_second_wvs_up_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as up:
        second = subprocess.run(
            [sys.executable, "-m", "wvs.cli.wvs", "up", "--data-dir", str(tmp_path), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert second.returncode == 1
        assert f"is in use by process {up.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert up.ready()


@pytest.mark.timeout(180)
def test_the_operators_commands_find_the_database_of_a_running_wvs_up(tmp_path: Path) -> None:
    def verify() -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WVS_")}
        return subprocess.run(
            [sys.executable, "-m", "wvs.cli.wvs", "projections", "verify"],
            env={**clean, "WVS_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    with running(tmp_path):
        found = verify()
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("equal:")
    refused = verify()
    assert refused.returncode == 2
    assert f"no `wvs up` runs on WVS_DATA_DIR={tmp_path}" in refused.stderr


@pytest.mark.timeout(180)
def test_children_of_a_killed_parent_end_and_the_next_start_takes_over(tmp_path: Path) -> None:
    process = start(tmp_path)
    up = Up(process, tmp_path)
    children = up.children()
    process.kill()
    process.wait(_TIMEOUT_S)
    eventually(lambda: all(gone(pid) for pid in children.values()), "children outlived their parent")
    with running(tmp_path) as again:
        assert again.ready()


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "message"),
    [
        (["api"], {}, 2, "WVS_DATABASE_URL is not set"),
        (["api"], {"WVS_PORT": "abc"}, 2, "WVS_PORT='abc' is not allowed"),
        (["api"], {"WVS_HOST": "0.0.0.0", "WVS_DATABASE_URL": "postgresql://u@127.0.0.1:1/d"}, 2, "other machines"),
        (["migrate"], {"WVS_DATABASE_URL": "postgresql://u@127.0.0.1:1/d"}, 1, "WVS_DATABASE_URL"),
        (["executor"], {"WVS_DATABASE_URL": "nonsense"}, 2, "must be a URL"),
        (
            ["executor"],
            {"WVS_DATABASE_URL": "postgresql://u@/d", "WVS_FAILPOINTS": "no.such=kill"},
            2,
            "WVS_FAILPOINTS",
        ),
        (["volume", "init"], {}, 2, "requires an argument"),
    ],
)
def test_a_command_that_cannot_work_prints_one_sentence(
    arguments: list[str], environment: dict[str, str], code: int, message: str, tmp_path: Path
) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WVS_")}
    ended = subprocess.run(
        [sys.executable, "-m", "wvs.cli.wvs", *arguments],
        env={**clean, "WVS_EXECUTOR_METRICS_PORT": "0", **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert (ended.returncode, message in ended.stderr) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr
