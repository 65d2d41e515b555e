"""What an executor imports until it runs tasks: while all executors are gone, its start is time without tasks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_HEAVY = {
    "litestar",
    "uvicorn",
    "cyclopts",
    "attr",
    "rich.console",
    "pygments",
    "psycopg",
    "httpx",
    "textual",
    "wvs.http",
}


@pytest.mark.timeout(120)
def test_an_executor_starts_without_web_framework_and_command_line_library(database_url: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    init = [sys.executable, "-m", "wvs.cli.wvs", "volume", "init", str(volume), "--engine", "copy"]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    settings = {"WVS_DATABASE_URL": database_url, "WVS_VOLUME": str(volume), "WVS_EXECUTOR_METRICS_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "wvs.cli.wvs", "executor"],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "err").open("wb"),
        text=True,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    imported = {
        line.rpartition("|")[2].strip()
        for line in (tmp_path / "err").read_text().splitlines()
        if line.startswith("import time:")
    }
    process.terminate()
    assert process.wait(60) == 0
    assert ready == f"ready {volume}\n"
    assert "wvs.executor.worker" in imported
    assert imported & _HEAVY == set()
