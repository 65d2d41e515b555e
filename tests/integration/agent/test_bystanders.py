"""Processes outside every session: named in the certificate and the notes, or reason enough to refuse (design §7)."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.agent.conftest import Service
from tests.integration.executor.platform import Platform
from tests.skips import need_root

from wvs.domain.ids import TASK, format_id
from wvs.domain.states import TaskState
from wvs.telemetry.metrics import Metrics

SLEEPS = "while :; do sleep 0.05; done"
HERE = socket.gethostname()


@contextlib.contextmanager
def bystander(*argv: str, cwd: Path | str = "/") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, cwd=cwd, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.1)  # a child of the shell ends after it


async def proof(service: Service) -> dict[str, Any]:
    """The document of a new snapshot."""
    snapshot, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED, await service.failure()
    return await service.document(snapshot)


async def task(service: Service, task_id: UUID) -> dict[str, Any]:
    return (await service.client.get(f"/v1/tasks/{format_id(TASK, task_id)}")).raise_for_status().json()


def pids(document: dict[str, Any]) -> list[int]:
    return [each["pid"] for each in document["certificate"]["bystanders"]["named"]]


@pytest.fixture
def refusing(platform: Platform) -> None:
    """Request this fixture before `service`."""
    platform.settings_change(bystanders="refuse")


@pytest.fixture
async def agent(service: Service) -> Service:
    """A service with one agent of two processes, whose wrapper was started in the live tree."""
    wrapped = await service.run("sh", "-c", f"sh -c '{SLEEPS}' & echo up; {SLEEPS}", cwd=service.live)
    assert await wrapped.line() == "up"
    return service


async def test_the_certificate_names_what_was_frozen_and_no_process_of_the_service(agent: Service) -> None:
    document = await proof(agent)
    (member,) = document["certificate"]["members"]
    assert member["frozen"]["kind"] == "cgroup"
    assert member["frozen"]["name"] == f"wvs-{member['session_id']}"
    assert member["frozen"]["processes"] >= 2
    assert document["certificate"]["bystanders"]["found"] == 0
    assert document["notes"] == []


async def test_a_shell_in_the_tree_is_named_in_certificate_notes_task_and_metric(agent: Service) -> None:
    with bystander("sh", "-c", SLEEPS, cwd=agent.live) as shell:
        document = await proof(agent)
    seen = next(each for each in document["certificate"]["bystanders"]["named"] if each["pid"] == shell.pid)
    assert seen == {"pid": shell.pid, "command": f"sh -c {SLEEPS}", "host": HERE, "how": ["working directory"]}
    note = f"bystander {shell.pid} on {HERE}: sh -c {SLEEPS} (working directory)"
    assert note in document["notes"]
    tasks = (await agent.client.get("/v1/tasks", params={"kind": "snapshot_create"})).json()["items"]
    assert note in tasks[0]["notes"]


async def test_a_metric_counts_the_bystanders(platform: Platform) -> None:
    metrics = Metrics()
    async with platform.running(metrics):
        workspace_id = await platform.create()
        with bystander("sh", "-c", SLEEPS, cwd=platform.live(workspace_id)):
            await platform.ready_snapshot(workspace_id)
    assert (metrics.registry.get_sample_value("wvs_bystanders_total") or 0) >= 1


async def test_an_agent_that_leaves_its_cgroup_is_a_bystander(agent: Service) -> None:
    need_root("moves a process to another cgroup")
    cgroup = await agent.cgroup()
    pid = (cgroup / "cgroup.procs").read_text().split()[0]
    (cgroup.parent / "cgroup.procs").write_text(pid)
    try:
        assert int(pid) in pids(await proof(agent))
    finally:
        (cgroup / "cgroup.procs").write_text(pid)


async def test_setsid_does_not_leave_the_frozen_cgroup(service: Service) -> None:
    wrapped = await service.shell(f"setsid sh -c '{SLEEPS}' & echo up; {SLEEPS}")
    assert await wrapped.line() == "up"
    assert (await proof(service))["certificate"]["bystanders"]["found"] == 0


async def test_a_cooperative_agent_and_its_children_are_no_bystanders(service: Service) -> None:
    wrapped = await service.shell(f"sh -c '{SLEEPS}' & echo up; {SLEEPS}", "--cooperative")
    assert await wrapped.line() == "up"
    document = await proof(service)
    assert document["certificate"]["members"][0]["frozen"]["kind"] == "sigstop"
    assert document["certificate"]["bystanders"]["found"] == 0


async def test_a_workspace_without_sessions_names_its_bystanders_too(service: Service) -> None:
    with bystander("sh", "-c", SLEEPS, cwd=service.live) as shell:
        document = await proof(service)
    assert document["certificate"]["vacuous"]
    assert shell.pid in pids(document)


async def test_refuse_fails_the_freeze_with_the_names_and_publishes_nothing(refusing: None, agent: Service) -> None:
    with bystander("sh", "-c", SLEEPS, cwd=agent.live) as shell:
        _, state = await agent.snapshot()
        assert state is TaskState.FAILED
    failure = await agent.failure()
    assert failure["code"] == "QUIESCE_REFUSED"
    assert f"bystander {shell.pid} on {HERE}" in failure["detail"]
    assert "wvsctl agent run" in failure["hint"]
    await proof(agent)  # without the bystander, it succeeds


async def test_current_set_names_those_whose_working_directory_it_takes_away(agent: Service) -> None:
    snapshot, _ = await agent.snapshot()
    with bystander("sh", "-c", SLEEPS, cwd=agent.live) as shell:
        task_id = await agent.platform.ask_for_current(agent.workspace_id, snapshot, reset=True)
        assert await agent.platform.wait(agent.workspace_id, task_id) is TaskState.SUCCEEDED
    notes = (await task(agent, task_id))["notes"]
    assert any(note.startswith(f"the working directory of {shell.pid} on {HERE}") for note in notes), notes


async def test_a_mount_in_the_tree_is_named_as_not_in_the_snapshot(service: Service) -> None:
    need_root("mounts in a namespace of its own")
    script = f"mkdir -p build; mount -t tmpfs none build; echo up; {SLEEPS}"
    wrapped = await service.run("unshare", "-m", "sh", "-c", script)
    assert await wrapped.line() == "up"
    note = f"not in the snapshot: build, where another filesystem (tmpfs) is mounted on {HERE}"
    assert note in (await proof(service))["notes"]


async def test_a_session_of_another_host_that_did_not_look_is_said(service: Service) -> None:
    path = f"/v1/workspaces/{service.name}/sessions"
    made = (await service.client.post(path, json={"agent": "remote", "host": "build-9"})).raise_for_status().json()
    headers, session = {"X-Session-Secret": made["secret"]}, made["session"]["id"]
    taking = asyncio.create_task(service.snapshot())
    for kind in ("freeze", "confirm"):
        directive = await _directive(service, session, headers, kind)
        ack = {"kind": "frozen" if kind == "freeze" else "still_frozen", "freeze": directive["freeze"], "token": "t1"}
        more = {"flush": "ok"} if kind == "freeze" else {}
        answer = await service.client.post(f"/v1/sessions/{session}/acks", json={**ack, **more}, headers=headers)
        answer.raise_for_status()
    snapshot, state = await taking
    await service.client.delete(f"/v1/sessions/{session}", headers=headers)
    assert state is TaskState.SUCCEEDED
    unseen = (await service.document(snapshot))["certificate"]["bystanders"]["unseen"]
    assert f"build-9: {session} did not look there" in unseen


async def test_what_a_session_of_another_host_saw_is_in_the_certificate(service: Service) -> None:
    path = f"/v1/workspaces/{service.name}/sessions"
    made = (await service.client.post(path, json={"agent": "remote", "host": "build-9"})).raise_for_status().json()
    headers, session = {"X-Session-Secret": made["secret"]}, made["session"]["id"]
    frozen = {"kind": "cgroup", "name": f"wvs-{session}", "processes": 3}
    seen = {
        "found": 2,
        "named": [
            {"pid": 7, "command": "agent", "how": ["working directory"], "cgroup": f"/x/wvs-{session}"},
            {"pid": 8, "command": "vim", "how": ["working directory"], "cgroup": "/user.slice"},
        ],
    }
    taking = asyncio.create_task(service.snapshot())
    for kind, more in (
        ("freeze", {"kind": "frozen", "flush": "ok", "frozen": frozen}),
        ("confirm", {"kind": "still_frozen", "bystanders": seen}),
    ):
        directive = await _directive(service, session, headers, kind)
        assert directive["looked_from"] is None or "pid:" in directive["looked_from"]
        ack = {"freeze": directive["freeze"], "token": "t1", **more}
        answer = await service.client.post(f"/v1/sessions/{session}/acks", json=ack, headers=headers)
        answer.raise_for_status()
    snapshot, state = await taking
    await service.client.delete(f"/v1/sessions/{session}", headers=headers)
    assert state is TaskState.SUCCEEDED
    certificate = (await service.document(snapshot))["certificate"]
    assert certificate["members"][0]["frozen"] == frozen
    assert certificate["bystanders"]["named"] == [
        {"pid": 8, "command": "vim", "host": "build-9", "how": ["working directory"]}
    ]
    assert certificate["bystanders"]["found"] == 1


async def _directive(service: Service, session: str, headers: dict[str, str], kind: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            path = f"/v1/sessions/{session}/directive"
            directive = (await service.client.get(path, headers=headers)).raise_for_status().json()
            if directive["kind"] == kind:
                return directive
            await asyncio.sleep(0.02)
