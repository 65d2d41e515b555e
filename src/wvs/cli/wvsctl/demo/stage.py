"""What the steps share: the console as a person runs it, the API for what the console does not show, and the tree."""

import json
import os
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
from wvs.cli.wvsctl.demo.service import Service, environment
from wvs.cli.wvsctl.demo.telling import NotAsTold, Teller
from wvs.engines.paths import root_path, tree_path

WORKSPACE = "demo"


class Ran(Struct, frozen=True):
    """What one command came to."""

    document: dict[str, Any]
    messages: str


class Stage:
    """One workspace of one service, and the story's teller."""

    def __init__(self, service: Service, teller: Teller, directory: Path) -> None:
        self.service = service
        self.teller = teller
        self.directory = directory
        self.link = directory  # of the live tree; known once there is a workspace
        self._client = Client(Transport(service.url), actor="demo", say=teller.does)

    def wvsctl(self, *arguments: str, told: int = 0) -> Ran:
        """Run the console as a process of its own; raises `NotAsTold` for any other exit code than `told`."""
        return self.begin(*arguments, told=told)()

    def begin(self, *arguments: str, told: int = 0) -> Callable[[], Ran]:
        """Start the console and go on; what is returned waits for its end."""
        self.teller.runs("wvsctl " + " ".join(arguments))
        process = subprocess.Popen(
            [sys.executable, "-m", "wvs.cli.wvsctl", "--json", "--actor", "demo", *arguments],
            env={**os.environ, "WVS_URL": self.service.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

        def end() -> Ran:
            out, messages = process.communicate()
            if process.returncode != told:
                raise NotAsTold(f"exit code {told}: no, instead {process.returncode}\n{messages}")
            return Ran(json.loads(out or "{}"), messages)

        return end

    def wvs(self, *arguments: str) -> str:
        """Run the operator's program beside the service; what it prints. Raises `NotAsTold` if it fails."""
        self.teller.runs("wvs " + " ".join(arguments))
        ended = subprocess.run(
            [sys.executable, "-m", "wvs.cli.wvs", *arguments],
            env={**environment(), "WVS_DATA_DIR": str(self.directory / "data")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise NotAsTold(f"exit code 0: no, instead {ended.returncode}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def events(self) -> list[dict[str, Any]]:
        """Every event of the workspace, page by page, as the audit shows them."""
        path, found, after = path_of("workspaces", WORKSPACE, "events"), list[dict[str, Any]](), None
        while True:
            query = [("limit", "100"), *([("after", after)] if after else [])]
            page = self._client.decode(self._client.get(path, query), dict[str, Any])
            items = cast("list[dict[str, Any]]", page["items"])
            found += items
            if not items or page["next_cursor"] is None:
                return found
            after = cast("str", page["next_cursor"])

    def tree_of(self, snapshot_id: str) -> Path:
        """The directory of a snapshot, by the event that made it."""
        for event in self.events():
            if event["type"] == "snapshot.created.v1" and event["data"]["snapshot_id"] == snapshot_id:
                return Path(root_path(tree_path(str(self.link.parent), event["data"]["tree"])))
        raise NotAsTold(f"an event made {snapshot_id}: no")

    def certificate_of(self, snapshot: dict[str, Any]) -> CertificateDocument:
        """The proof in a snapshot's document."""
        return msgspec.convert(snapshot["certificate"], CertificateDocument)
