"""Sessions and freezes over HTTP with a real executor, for agents that obey and agents that do not."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.executor.conftest import Platform, platform

from wvs.domain.ids import SNAPSHOT, WORKSPACE, format_id
from wvs.domain.states import TaskState
from wvs.http.server import listen, serve
from wvs.http.wiring import open_api

__all__ = ["platform"]


class Agent:
    """An agent that speaks the protocol over plain HTTP."""

    def __init__(self, client: httpx.AsyncClient, registered: dict[str, Any]) -> None:
        self._client = client
        self.id: str = registered["session"]["id"]
        self.secret = {"X-Session-Secret": registered["secret"]}
        self.directive: dict[str, Any] = registered["directive"]

    async def next(self, wait: float = 10) -> dict[str, Any]:
        number = self.directive["number"]
        answer = await self._client.get(
            f"/v1/sessions/{self.id}/directive", params={"after": number, "wait": wait}, headers=self.secret
        )
        self.directive = answer.raise_for_status().json()
        return self.directive

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while self.directive["kind"] != kind:
                await self.next()
        return self.directive

    async def ack(self, kind: str, **fields: Any) -> httpx.Response:
        body = {"kind": kind, **fields}
        return await self._client.post(f"/v1/sessions/{self.id}/acks", json=body, headers=self.secret)

    async def obey(self, token: str) -> None:
        """Obeys one freeze."""
        freeze = (await self.until("freeze"))["freeze"]
        self.directive = (await self.ack("frozen", freeze=freeze, token=token, flush="ok")).raise_for_status().json()
        await self.until("confirm")
        answer = await self.ack("still_frozen", freeze=freeze, token=token)
        self.directive = answer.raise_for_status().json()
        await self.until("run")


@pytest.fixture
async def client(platform: Platform) -> AsyncGenerator[httpx.AsyncClient]:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = platform.settings_with_volume()
    async with open_api(settings, platform.url) as api:
        serving = asyncio.create_task(
            serve(api, listen("127.0.0.1", 0), on_listening=url.set_result, handle_signals=False)
        )
        async with httpx.AsyncClient(base_url=await url, timeout=70) as client:
            yield client
        api.draining.set()
        await serving


async def registered(client: httpx.AsyncClient, workspace: str, agent: str = "test") -> Agent:
    body = {"agent": agent, "host": "here", "pid": 1}
    answer = await client.post(f"/v1/workspaces/{workspace}/sessions", json=body)
    return Agent(client, answer.raise_for_status().json())


@contextlib.asynccontextmanager
async def workspace_with_file(platform: Platform) -> AsyncGenerator[tuple[Any, str]]:
    async with platform.running():
        workspace_id = await platform.create()
        (platform.live(workspace_id) / "a").write_text("one")
        yield workspace_id, format_id(WORKSPACE, workspace_id)


async def test_a_snapshot_waits_for_every_session_and_its_certificate_names_them(
    platform: Platform,
    client: httpx.AsyncClient,
) -> None:
    async with workspace_with_file(platform) as (workspace_id, name):
        agents = [await registered(client, name, f"agent {n}") for n in range(3)]
        obeying = [asyncio.create_task(agent.obey(f"token {n}")) for n, agent in enumerate(agents)]
        snapshot_id, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        await asyncio.gather(*obeying)
        shown = (await client.get(f"/v1/workspaces/{name}/snapshots/{format_id(SNAPSHOT, snapshot_id)}")).json()
    certificate = shown["certificate"]
    assert not certificate["vacuous"]
    assert {m["session_id"] for m in certificate["members"]} == {agent.id for agent in agents}
    assert {m["token"] for m in certificate["members"]} == {"token 0", "token 1", "token 2"}


async def test_the_error_names_a_silent_session_and_the_others_run_again(
    platform: Platform,
    client: httpx.AsyncClient,
) -> None:
    platform.settings_change(freeze_budget_s=1.0)
    async with workspace_with_file(platform) as (workspace_id, name):
        good, silent = await registered(client, name, "good"), await registered(client, name, "silent")
        before = platform.trees(workspace_id)
        task = asyncio.create_task(platform.snapshot(workspace_id))
        freeze = (await good.until("freeze"))["freeze"]
        await good.ack("frozen", freeze=freeze, token="t", flush="ok")
        _, state = await task
        assert state is TaskState.FAILED
        await good.until("run")
        failed = (await client.get("/v1/tasks", params={"state": "failed"})).json()["items"][0]
        assert failed["error"]["code"] == "QUIESCE_TIMEOUT"
        assert silent.id in failed["error"]["detail"]
        assert good.id not in failed["error"]["detail"]

        evicted = await client.post(f"/v1/sessions/{silent.id}/evict", json={"reason": "its host burned down"})
        assert evicted.json()["state"] == "evicted"
        assert (await silent.next())["kind"] == "end"
        obeying = asyncio.create_task(good.obey("again"))
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        await obeying
        assert len(platform.trees(workspace_id)) == len(before) + 1


async def test_another_token_after_the_clone_breaks_the_freeze_which_is_retried(
    platform: Platform,
    client: httpx.AsyncClient,
) -> None:
    async with workspace_with_file(platform) as (workspace_id, name):
        liar = await registered(client, name)
        task = asyncio.create_task(platform.snapshot(workspace_id))
        freeze = (await liar.until("freeze"))["freeze"]
        await liar.ack("frozen", freeze=freeze, token="before", flush="ok")
        await liar.until("confirm")
        await liar.ack("still_frozen", freeze=freeze, token="after")
        await liar.next()
        await liar.obey("honest")
        _, state = await task
        assert state is TaskState.SUCCEEDED
        events = (await client.get(f"/v1/workspaces/{name}/events")).json()["items"]
    assert [e["data"]["error"]["code"] for e in events if e["type"] == "task.attempt_failed.v1"] == ["QUIESCE_BROKEN"]


async def test_a_stale_acknowledgement_is_refused_and_changes_nothing(
    platform: Platform,
    client: httpx.AsyncClient,
) -> None:
    async with workspace_with_file(platform) as (workspace_id, name):
        agent = await registered(client, name)
        early = await agent.ack("frozen", freeze=1, token="t", flush="ok")
        assert early.status_code == 409
        assert early.json()["code"] == "FREEZE_STALE"
        obeying = asyncio.create_task(agent.obey("t"))
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        await obeying
        late = await agent.ack("still_frozen", freeze=1, token="t")
        assert late.json()["code"] == "FREEZE_STALE"
        missing = await agent.ack("frozen", freeze=1, token="t")
        assert missing.status_code == 400


async def test_after_a_switch_the_directive_has_the_new_tree_and_its_epoch(
    platform: Platform,
    client: httpx.AsyncClient,
) -> None:
    async with workspace_with_file(platform) as (workspace_id, name):
        snapshot_id, _ = await platform.snapshot(workspace_id)
        agent = await registered(client, name)
        task = asyncio.create_task(platform.set_current(workspace_id, snapshot_id))
        freeze = (await agent.until("freeze"))["freeze"]
        await agent.ack("frozen", freeze=freeze, token="t", flush="ok")
        await agent.until("confirm")
        await agent.ack("still_frozen", freeze=freeze, token="t")
        assert await task is TaskState.SUCCEEDED
        switch = await agent.until("switch")
        assert switch["epoch"] == 2
        assert (Path(switch["path"]) / "a").read_text() == "one"
        assert (await agent.ack("switched", epoch=2)).json()["kind"] == "run"
        assert (await client.delete(f"/v1/sessions/{agent.id}", headers=agent.secret)).json()["state"] == "ended"
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
