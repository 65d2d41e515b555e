"""A session's secret: needed to speak for the session, and found nowhere but in the answer to the registration."""

import asyncio
import uuid
from hashlib import sha256
from typing import Any

import httpx
import pytest
import structlog
from tests.integration.executor.conftest import Platform, platform
from tests.integration.http.actors import client_of, running_api
from tests.integration.quiesce.test_sessions import Agent, client, registered, workspace_with_file

from wvs.domain.ids import SESSION, WORKSPACE, format_id
from wvs.domain.states import TaskState

__all__ = ["client", "platform"]

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'wvs'"


def requests_of(session_id: str, **fields: Any) -> list[tuple[str, str, Any]]:
    """Every request of a session."""
    one = f"/v1/sessions/{session_id}"
    ack = {"kind": "frozen", "freeze": 1, "token": "forged", "flush": "ok", **fields}
    return [
        ("GET", f"{one}/directive", None),
        ("POST", f"{one}/acks", ack),
        ("POST", f"{one}/acks", {"kind": "switched", "epoch": 9}),
        ("DELETE", one, None),
    ]


async def refused(client: httpx.AsyncClient, session_id: str, headers: dict[str, str], **fields: Any) -> None:
    for method, path, body in requests_of(session_id, **fields):
        answer = await client.request(method, path, json=body, headers=headers)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (403, "SESSION_SECRET_INVALID"), (path, problem)
        assert "X-Session-Secret" in problem["hint"]


async def listed(client: httpx.AsyncClient, workspace: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/workspaces/{workspace}/sessions", params={"all": True})
    return answer.raise_for_status().json()["items"]


async def test_the_id_of_a_session_is_not_enough_to_forge_a_certificate(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    platform.settings_change(freeze_budget_s=2.0)
    async with workspace_with_file(platform) as (workspace_id, name):
        victim, stranger = await registered(client, name, "victim"), await registered(client, name, "stranger")
        task = asyncio.create_task(platform.snapshot(workspace_id))
        freeze = (await victim.until("freeze"))["freeze"]
        await stranger.ack("frozen", freeze=freeze, token="t", flush="ok")
        (known,) = [session for session in await listed(client, name) if session["agent"] == "victim"]
        for headers in ({}, {"X-Session-Secret": ""}, {"X-Session-Secret": "a" * 43}, stranger.secret):
            await refused(client, known["id"], headers, freeze=freeze)
        _, state = await task
        assert state is TaskState.FAILED
        failed = (await client.get("/v1/tasks", params={"state": "failed"})).json()["items"][0]
        assert failed["error"]["code"] == "QUIESCE_TIMEOUT"
        assert victim.id in failed["error"]["detail"]
        (now,) = [session for session in await listed(client, name) if session["agent"] == "victim"]
        assert (now["state"], now["epoch"]) == ("active", known["epoch"])


async def test_a_request_without_the_secret_does_not_renew_the_lease(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    async with workspace_with_file(platform) as (_, name):
        agent = await registered(client, name)
        await platform.pool.execute("UPDATE wvs.sessions SET lease_until = now() - interval '1 s'")
        await refused(client, agent.id, {})
        (session,) = await listed(client, name)
        assert session["lease_expired"]


async def test_the_secret_is_in_no_row_no_log_line_and_no_other_answer(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with workspace_with_file(platform) as (workspace_id, name):
            path, body = f"/v1/workspaces/{name}/sessions", {"agent": "a", "host": "h"}
            keyed = {"Idempotency-Key": "once"}
            first, again = [await client.post(path, json=body, headers=keyed) for _ in range(2)]
            assert "idempotent-replayed" not in again.headers  # an answer with a secret is not stored
            agents = [Agent(client, answer.json()) for answer in (first, again)]
            secrets = [agent.secret["X-Session-Secret"] for agent in agents]
            assert len(set(secrets)) == 2
            obeying = [asyncio.create_task(agent.obey(f"token {n}")) for n, agent in enumerate(agents)]
            _, state = await platform.snapshot(workspace_id)
            assert state is TaskState.SUCCEEDED
            await asyncio.gather(*obeying)
            answers = [
                await client.get(f"/v1/sessions/{agents[0].id}/directive", headers=agents[0].secret),
                await agents[0].ack("frozen", freeze=77, token="t", flush="ok"),
                await client.get(f"/v1/sessions/{agents[0].id}/directive", headers=agents[1].secret),
                await client.delete(f"/v1/sessions/{agents[0].id}", headers=agents[0].secret),
                await client.get(f"/v1/workspaces/{name}/sessions", params={"all": True}),
                await client.get("/v1/events", params={"limit": 1000}),
                await client.get("/v1/audit/events"),
            ]
    assert [answer.status_code for answer in answers] == [200, 409, 403, 200, 200, 200, 200]
    rows: list[str] = []
    for table in await platform.pool.fetch(TABLES):
        query = f"SELECT t::text AS row FROM wvs.{table['tablename']} t"
        rows += [str(row["row"]) for row in await platform.pool.fetch(query)]
    hashes = [sha256(secret.encode()).hexdigest() for secret in secrets]
    assert [sum(wanted in row for row in rows) for wanted in hashes] == [1, 1]  # only in wvs.sessions
    texts = [*rows, *(answer.text for answer in answers), *map(repr, lines)]
    assert lines
    assert [text for text in texts if any(secret in text for secret in secrets)] == []
    shown = [answer.text for answer in answers] + [repr(line) for line in lines]
    assert [text for text in shown if any(wanted in text for wanted in hashes)] == []


async def test_another_api_process_knows_the_session_by_its_secret(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    async with workspace_with_file(platform) as (_, name):
        agent = await registered(client, name)
        async with running_api(platform.url) as api, client_of(api) as other:
            path = f"/v1/sessions/{agent.id}/directive"
            assert (await other.get(path)).status_code == 403
            assert (await other.get(path, headers=agent.secret)).json()["kind"] == "run"


@pytest.mark.parametrize("headers", [{}, {"X-Session-Secret": "anything"}])
async def test_a_session_of_an_api_that_knew_no_secrets_still_freezes(
    headers: dict[str, str], platform: Platform, client: httpx.AsyncClient
) -> None:
    """While a release is rolled, old APIs register sessions through the function of their release."""
    async with workspace_with_file(platform) as (workspace_id, _):
        old = uuid.uuid4()
        query = "SELECT wvs.register_session($1, $2, 'old', 'h', 1, 30)"
        assert await platform.pool.fetchval(query, old, workspace_id) == "active"
        session = {"id": format_id(SESSION, old), "workspace_id": format_id(WORKSPACE, workspace_id)}
        directive = (await client.get(f"/v1/sessions/{session['id']}/directive", headers=headers)).json()
        agent = Agent(client, {"session": session, "directive": directive, "secret": ""})
        agent.secret = headers
        obeying = asyncio.create_task(agent.obey("t"))
        _, state = await platform.snapshot(workspace_id)
        assert state is TaskState.SUCCEEDED
        await obeying
        ended = await client.delete(f"/v1/sessions/{agent.id}", headers=headers)
        assert ended.json()["state"] == "ended"
