"""The console through a proxy."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from tests.integration.http.api_process import ApiProcess
from tests.integration.wvsctl.consoles import Wvsctl, working
from tests.integration.wvsctl.reverse_proxy import ReverseProxy

from wvs.cli.wvsctl.api.client import Client
from wvs.cli.wvsctl.api.transport import Transport


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


def test_a_write_whose_answer_is_lost_behind_a_proxy_is_repeated_and_runs_once(api: ApiProcess, tmp_path: Path) -> None:
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


def test_the_console_works_under_a_path_and_links_lead_there(api: ApiProcess) -> None:
    with ReverseProxy(api.url, prefix="/team/wvs", added={"X-Forwarded-Prefix": "/team/wvs"}).running() as proxy:
        task = Wvsctl(proxy.url).json("workspace", "create", "w", "--no-wait")["task"]["id"]
        headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{proxy.url}/v1/tasks/{task}/cancel", method="POST", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            location = answer.headers["location"]
        assert json.load(urllib.request.urlopen(urljoin(proxy.url, location), timeout=30))["id"] == task
        with urllib.request.urlopen(f"{proxy.url}/schema", timeout=30) as answer:
            links = re.findall(r'(?:href|src)="(/[^"]*)"', answer.read().decode())
        assert len(links) == 2
        for link in links:
            assert urllib.request.urlopen(urljoin(proxy.url, link), timeout=30).status == 200


def test_a_connection_that_a_proxy_has_closed_costs_no_write(api: ApiProcess) -> None:
    notes: list[str] = []
    with ReverseProxy(api.url, idle_s=0.2).running() as proxy:
        client = Client(Transport(proxy.url), actor=None, notify=notes.append)
        for name in ("a", "b"):
            assert client.write("POST", "/v1/workspaces", {"name": name}, key=name).status == 202
            time.sleep(0.5)
        assert client.get("/v1/workspaces").status == 200
    assert len(notes) <= 1
    assert len(read(api, "/v1/workspaces")["items"]) == 2
