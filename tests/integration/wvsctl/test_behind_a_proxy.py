"""The console through a proxy."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.http.api_process import ApiProcess
from tests.integration.wvsctl.consoles import Wvsctl, working
from tests.integration.wvsctl.reverse_proxy import ReverseProxy


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[ApiProcess]:
    volume = tmp_path / "volume"
    subprocess.run([sys.executable, "-m", "wvs.cli.wvs", "volume", "init", str(volume), "--engine", "copy"], check=True)
    process = ApiProcess(database_url, tmp_path / "api.log", volume=str(volume))
    process.start()
    yield process
    process.close()


def executor_settings(api: ApiProcess) -> dict[str, str]:
    return {**api._environment, "WVS_EXECUTOR_METRICS_PORT": "0"}


def read(api: ApiProcess, path: str) -> Any:
    with urllib.request.urlopen(api.url + path, timeout=30) as answer:
        return json.load(answer)


def test_a_write_whose_answer_is_lost_behind_a_proxy_is_repeated_and_runs_once(
    api: ApiProcess, tmp_path: Path
) -> None:
    with ReverseProxy(api.url).running() as proxy:
        # The console asks the API to hold its answer for a second; without an executor it does.
        console = Wvsctl(proxy.url).start("--json", "workspace", "create", "w")
        while not read(api, "/v1/workspaces")["items"]:
            time.sleep(0.02)
        api.stop(signal.SIGKILL)
        while 502 not in proxy.statuses:
            time.sleep(0.02)
        api.start()
        with working(executor_settings(api), tmp_path / "executor.log"):
            out, err = console.communicate(timeout=60)
    assert console.returncode == 0, err
    assert json.loads(out)["workspace"]["state"] == "active"
    assert f"the proxy at {proxy.url} answers 502" in err
    assert "with the same idempotency key" in err
    assert [event["type"] for event in read(api, "/v1/events")["items"]].count("workspace.created.v2") == 1


def test_a_wait_behind_a_proxy_outlasts_a_restart_of_the_api(api: ApiProcess, tmp_path: Path) -> None:
    with ReverseProxy(api.url).running() as proxy:
        console = Wvsctl(proxy.url)
        task = console.json("workspace", "create", "w", "--no-wait")["task"]["id"]
        waiting = console.start("--json", "task", "wait", task)
        while len(proxy.received) < 3:  # the second one of this console is a wait
            time.sleep(0.02)
        api.stop(signal.SIGKILL)
        while 502 not in proxy.statuses:
            time.sleep(0.02)
        api.start()
        with working(executor_settings(api), tmp_path / "executor.log"):
            out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert json.loads(out)["state"] == "succeeded"
