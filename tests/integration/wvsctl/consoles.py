"""The console under test, run in this process or in a separate one, and the services that it uses."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from wvs.cli.wvsctl.app import run


class Result(Struct, frozen=True):
    """The result of one call of `wvsctl`."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Wvsctl:
    """`wvsctl` against one URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(self, *arguments: str) -> Result:
        """Runs the program in this process, from the command line to the exit code, without the interpreter's start."""
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = run(["--url", self.url, *arguments])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        return Result(code, _text(out), _text(err))

    def ok(self, *arguments: str) -> Result:
        result = self(*arguments)
        assert result.code == 0, result
        return result

    def json(self, *arguments: str) -> Any:
        return self.ok("--json", *arguments).document

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the program in a separate process."""
        return subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvsctl", *arguments],
            env={**os.environ, "WVS_URL": self.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def raw(self, path: str) -> bytes:
        """The API's answer, without the console."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


@contextlib.contextmanager
def serving(command: str, *arguments: str, environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """Runs `wvs COMMAND` for the block; yields the URL of its `ready` line."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", command, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ready http://"), log.read_text()
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.close()
        process.wait(60)


@contextlib.contextmanager
def working(environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """Runs `wvs executor` for the block; yields its process id."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvs", "executor"],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
