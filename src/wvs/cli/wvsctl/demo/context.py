"""What the steps share: the service, the narrator, `wvsctl` as a user runs it, and the API for other details."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from wvs.cli.wvsctl.api.client import Client, path_of
from wvs.cli.wvsctl.api.documents import CertificateDocument
from wvs.cli.wvsctl.api.transport import Transport
from wvs.cli.wvsctl.demo.narrator import CheckFailed, Narrator
from wvs.cli.wvsctl.demo.service import DemoService, environment
from wvs.engines.paths import name_beside, root_path, tree_path

WORKSPACE = "demo"


class CommandResult(Struct, frozen=True):
    """The JSON document and the messages that a command printed."""

    document: dict[str, Any]
    messages: str


class DemoContext:
    """The demo's service, its one workspace and its narrator."""

    def __init__(self, service: DemoService, narrator: Narrator, directory: Path) -> None:
        self.service = service
        self.narrator = narrator
        self.directory = directory
        self.live = directory  # the path of the live tree; the first step sets it
        self._client = Client(Transport(service.url), actor="demo", notify=narrator.explain)

    def wvsctl(self, *arguments: str, expected_exit: int = 0) -> CommandResult:
        """Runs `wvsctl` in a process; raises `CheckFailed` if its exit code is not `expected_exit`."""
        return self.start(*arguments, expected_exit=expected_exit)()

    def start(self, *arguments: str, expected_exit: int = 0) -> Callable[[], CommandResult]:
        """Starts `wvsctl` and returns at once; the returned function waits until it ends and returns its result."""
        self.narrator.show_command("wvsctl " + shlex.join(arguments))
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvsctl", "--json", "--actor", "demo", *arguments],
            env={**os.environ, "WVS_URL": self.service.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def wait() -> CommandResult:
            out, messages = process.communicate()
            if process.returncode != expected_exit:
                raise CheckFailed(
                    f"exit code {expected_exit} expected, but wvsctl exited with {process.returncode}\n{messages}"
                )
            return CommandResult(json.loads(out or "{}"), messages)

        return wait

    def wvs(self, *arguments: str) -> str:
        """Runs `wvs` on the service's data directory and returns its output; raises `CheckFailed` if it fails."""
        self.narrator.show_command("wvs " + shlex.join(arguments))
        ended = subprocess.run(
            [sys.executable, "-m", "wvs.cli.wvs", *arguments],
            env={**environment(), "WVS_DATA_DIR": str(self.directory / "data")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise CheckFailed(
                f"exit code 0 expected, but wvs exited with {ended.returncode}\n{ended.stdout}{ended.stderr}"
            )
        return ended.stdout

    def events(self) -> list[dict[str, Any]]:
        """Every event of the workspace, read from the API page by page."""
        path, events, after = path_of("workspaces", WORKSPACE, "events"), list[dict[str, Any]](), None
        while True:
            query = [("limit", "100"), *([("after", after)] if after else [])]
            page = self._client.decode(self._client.get(path, query), dict[str, Any])
            items = cast("list[dict[str, Any]]", page["items"])
            events += items
            if not items or page["next_cursor"] is None:
                return events
            after = cast("str", page["next_cursor"])

    @property
    def workspace_directory(self) -> Path:
        """The workspace's directory on the volume."""
        return self.live.parent.parent

    def live_tree(self) -> str:
        """The name of the tree that is at the path now."""
        return Path(name_beside(str(self.live))).read_text(encoding="ascii").strip()

    def tree_of(self, snapshot_id: str) -> Path:
        """The directory of a snapshot, according to the event that created it."""
        for event in self.events():
            if event["type"] == "snapshot.created.v1" and event["data"]["snapshot_id"] == snapshot_id:
                return Path(root_path(tree_path(str(self.workspace_directory), event["data"]["tree"])))
        raise CheckFailed(f"the log has no event that created {snapshot_id}")

    def certificate_of(self, snapshot: dict[str, Any]) -> CertificateDocument:
        """The certificate in a snapshot's document."""
        return msgspec.convert(snapshot["certificate"], CertificateDocument)
