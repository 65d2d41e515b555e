"""The life that a fixture records: every event, and every state that outlives a restart of the service."""

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tools.release_fixture.agent import Agent
from tools.release_fixture.service import Service
from tools.release_fixture.veteran import create_veteran, store_memento

Answer = dict[str, Any]


class Life:
    """Workspaces by their names; every method leaves its tasks final unless it says otherwise."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.workspaces: dict[str, str] = {}
        self.keyed: list[Answer] = []
        """Requests whose keys are still remembered, with their answers: their tasks are not final."""

    def live(self) -> None:
        """The whole life; at its end one task runs, whose executor was killed, and others are queued."""
        with self._service.executor():
            self.archive()
            self.crew()
            self.lost()
            self.closed()
            self.veteran()
        self.cancelled_in_the_queue()
        with self._service.executor("init.root_made=error,drop.removing=error"):
            self.failures()
        with self._service.executor("create.syncing=sleep:2"):
            self.phoenix()
            self.cancelled_in_mid_run()
        self._service.wvs("volume", "check", "--repair")
        self.interrupted()
        self.waiting()

    def create(self, name: str, state: str = "succeeded") -> Path:
        """Creates a workspace; returns its live tree as agents find it."""
        body = {"name": name, "labels": {"team": "größer", "env/x": ""}}
        made = self._service.finish(self._service.send("POST", "/v1/workspaces", body), state)
        return self._keep(name, made)

    def snapshot(self, name: str, message: str | None = None, state: str = "succeeded", **labels: str) -> str:
        """Takes a snapshot; returns its id."""
        asked = self._ask(name, {"message": message, "labels": labels})
        return self._service.finish(asked, state)["snapshot"]["id"]

    def archive(self) -> None:
        """Trees with everything that a portable archive can hold; snapshots, switches, a skipped switch, a reset."""
        tree = self.create("archive")
        _fill(tree)
        first = self.snapshot("archive", "the first one", stage="raw", reviewed="yes")
        (tree / "notes.txt").write_text("changed\n")
        second = self.snapshot("archive", "zweite, mit Umlaut: ä", stage="cooked")
        self.set_current("archive", first)
        skipped = self._service.send("PUT", self._path("archive", "current"), {"snapshot_id": first})
        if skipped["task"]["noop"] is not True:
            raise RuntimeError(f"the second switch was no no-op: {skipped}")
        self.set_current("archive", first, reset=True)
        self._service.run("DELETE", self._path("archive", "snapshots", second))
        self.snapshot("archive")

    def set_current(self, name: str, snapshot: str, *, reset: bool = False) -> None:
        body = {"snapshot_id": snapshot, "reset": reset}
        self._service.run("PUT", self._path(name, "current"), body)

    def crew(self) -> None:
        """Sessions: one that freezes, one that refuses and is evicted, one that left, one that fell silent."""
        service = self._service
        tree = self.create("crew")
        (tree / "log").write_text("one\n")
        worker = Agent(service, self.workspaces["crew"], "worker")
        asked = self._ask("crew", {"message": "with a member"})
        worker.obey("boot-1:1")
        proven = service.finish(asked)["snapshot"]["id"]
        switching = service.send("PUT", self._path("crew", "current"), {"snapshot_id": proven})
        worker.switch("boot-1:2")
        service.finish(switching)
        worker.leave()
        rebel = Agent(service, self.workspaces["crew"], "rebel")
        refused = self._ask("crew", {"message": "refused, then retried"})
        rebel.refuse("in the middle of a transaction")
        service.finish(refused, "failed")
        abandoned = self._ask("crew", {"message": "refused for good"})
        rebel.refuse("still in it")
        service.finish(abandoned, "failed")
        failing = service.send("PUT", self._path("crew", "current"), {"snapshot_id": proven, "reset": True})
        rebel.refuse("and again")
        service.finish(failing, "failed")
        rebel.evict("it never freezes")
        service.finish(service.send("POST", f"/v1/tasks/{refused['task']['id']}/retry"))
        service.send("POST", f"/v1/tasks/{abandoned['task']['id']}/cancel")
        self.create("silent")
        Agent(service, self.workspaces["silent"], "sleeper")

    def lost(self) -> None:
        """A snapshot whose directory somebody removed."""
        self.create("lost")
        before = set(self._home("lost").glob("trees/*"))
        snapshot = self.snapshot("lost", "soon gone")
        (made,) = set(self._home("lost").glob("trees/*")) - before
        self.snapshot("lost", "kept")
        shutil.rmtree(made)
        with contextlib.suppress(RuntimeError):  # a finding is a failure of the check
            self._service.wvs("volume", "check", "--repair")
        if self._service.get(self._path("lost", "snapshots", snapshot))["state"] != "lost":
            raise RuntimeError("the missing snapshot was not found")

    def closed(self) -> None:
        """A disabled workspace, and a later one of the same name."""
        self.create("closed")
        self.snapshot("closed", "the last one")
        self._service.send("POST", self._path("closed", "disable"), {"reason": "the project ended"})
        self.workspaces["closed before"] = self.workspaces.pop("closed")
        self.create("closed")

    def veteran(self) -> None:
        """A workspace whose first event has an older name; it has a memento, and events after it."""
        created = asyncio.run(create_veteran(self._service.database_url, "veteran"))
        tree = self._keep("veteran", self._service.finish(created))
        (tree / "old").write_text("from the first days\n")
        self.snapshot("veteran", "before the memento")
        asyncio.run(store_memento(self._service.database_url, self.workspaces["veteran"]))
        self.set_current("veteran", self.snapshot("veteran", "after the memento"))

    def cancelled_in_the_queue(self) -> None:
        """A snapshot and a drop that were cancelled before an executor took them."""
        service = self._service
        kept = service.get(self._path("veteran", "snapshots"), limit=2)["items"][1]["id"]
        asked = (self._ask("veteran", {}), service.send("DELETE", self._path("veteran", "snapshots", kept)))
        for each in asked:
            service.finish(service.send("POST", f"/v1/tasks/{each['task']['id']}/cancel"), "cancelled")

    def failures(self) -> None:
        """Tasks that fail at every attempt: an init, and a drop that has begun."""
        self.create("stillborn", "failed")
        self.create("phoenix", "failed")
        victim = self._service.get(self._path("archive", "snapshots"), limit=1)["items"][0]["id"]
        dropping = self._service.send("DELETE", self._path("archive", "snapshots", victim))
        self._service.finish(dropping, "failed")

    def phoenix(self) -> None:
        """A workspace whose init succeeded when a person retried it."""
        self._service.run("POST", self._path("phoenix", "retry-init"))

    def cancelled_in_mid_run(self) -> None:
        """A running task that ended at its next safe point."""
        asked = self._ask("phoenix", {"message": "too slow"})
        self._service.finish(asked, "running")
        self._service.send("POST", f"/v1/tasks/{asked['task']['id']}/cancel")
        self._service.finish(asked, "cancelled")

    def interrupted(self) -> None:
        """A task whose executor is killed after its clone; it stays running, and its freeze open."""
        with self._service.executor():
            tree = self.create("interrupted")
        (tree / "work").write_text("half done\n")
        with self._service.executor("create.cloned=kill") as executor:
            self._remember("interrupted", "POST", {"message": "its executor died"}, "kept-1")
            executor.wait(60)

    def waiting(self) -> None:
        """Tasks that no executor has taken yet."""
        self._remember("interrupted", "POST", {"message": "behind it", "labels": {"a": "b"}}, "kept-2")
        self._remember("archive", "POST", {"message": "queued"}, "kept-3")
        time.sleep(5.5)  # until the lease of the silent session is over, so that answers no longer change

    def _remember(self, name: str, method: str, body: Answer, key: str) -> None:
        path = self._path(name, "snapshots")
        answer = self._service.send(method, path, body, key)
        self.keyed.append({"method": method, "path": path, "body": body, "key": key, "answer": answer})

    def _ask(self, name: str, body: Answer) -> Answer:
        return self._service.send("POST", self._path(name, "snapshots"), body)

    def _keep(self, name: str, made: Answer) -> Path:
        self.workspaces[name] = made["workspace"]["id"]
        return self._home(name) / "current"

    def _home(self, name: str) -> Path:
        return self._service.volume / self.workspaces[name]

    def _path(self, name: str, *rest: str) -> str:
        return "/".join((f"/v1/workspaces/{self.workspaces[name]}", *rest))


def _fill(tree: Path) -> None:
    """Files, modes, links, hard links and an attribute that every file system of a test can hold."""
    (tree / "notes.txt").write_text("first\n")
    (tree / "empty").touch()
    (tree / "src" / "deep" / "er").mkdir(parents=True)
    (tree / "src" / "tool").write_text("#!/bin/sh\necho tool\n")
    (tree / "src" / "tool").chmod(0o755)
    (tree / "secret").write_bytes(bytes(range(256)))
    (tree / "secret").chmod(0o600)
    (tree / "shared").mkdir()
    (tree / "shared").chmod(0o2775)
    (tree / "shared" / "ümlaut").write_text("ä")
    os.link(tree / "notes.txt", tree / "src" / "same-notes")
    (tree / "link").symlink_to("src/tool")
    (tree / "dangling").symlink_to("/nowhere/at/all")
    os.mkfifo(tree / "pipe")
    os.setxattr(tree / "src" / "tool", "user.wvs.note", b"kept")
