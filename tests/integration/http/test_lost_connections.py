"""The connection to Postgres breaks around a commit: nothing is lost or done twice, and the key reveals the outcome."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.integration.http.actors import Client, client_of, running_api
from tests.integration.http.proxy import Cut, CuttingProxy

from wvs.postgres.pool import Pool

END_CONNECTIONS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'wvs-%'"""

READS = [
    "/v1/workspaces",
    "/v1/workspaces?state=active&limit=1",
    "/v1/workspaces/warm",
    "/v1/workspaces/ws_01h455vb4pex5vsknk084sn02q",
    "/v1/workspaces/warm/current",
    "/v1/workspaces/warm/snapshots",
    "/v1/workspaces/warm/snapshots/snap_01h455vb4pex5vsknk084sn02q",
    "/v1/workspaces/warm/events",
    "/v1/workspaces/warm/sessions",
    "/v1/tasks",
    "/v1/tasks/task_01h455vb4pex5vsknk084sn02q",
    "/v1/events",
    "/v1/sessions/sess_01h455vb4pex5vsknk084sn02q/directive",
]


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(database_url).running() as running:
        yield running


@pytest.fixture
async def cut_client(proxy: CuttingProxy) -> AsyncIterator[Client]:
    """A client of a process that reaches Postgres through the proxy; its statements are prepared already."""
    async with running_api(proxy.url, pool_size=1) as api, client_of(api) as opened:
        await opened.ok("POST", "/v1/workspaces", {"name": "warm"})
        yield opened


async def effects(pool: Pool, name: str) -> tuple[int, int]:
    """How many workspaces of the name were made, and how many tasks queued for them."""
    query = """SELECT count(DISTINCT w.id), count(q.task_id) FROM wvs.workspaces w
               LEFT JOIN wvs.queue q ON q.workspace_id = w.id WHERE w.name = $1"""
    row = await pool.fetchrow(query, name)
    assert row is not None
    return row[0], row[1]


async def test_a_commit_whose_answer_is_lost_is_looked_up_and_not_repeated(
    cut_client: Client, proxy: CuttingProxy, pool: Pool
) -> None:
    proxy.arm(Cut.AFTER)
    response = await cut_client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert proxy.cuts == 1
    assert response.status_code == 202
    assert "idempotent-replayed" not in response.headers
    assert await effects(pool, "one") == (1, 1)
    again = await cut_client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert (again.headers["idempotent-replayed"], again.content) == ("true", response.content)


async def test_a_command_that_never_arrived_is_sent_again(cut_client: Client, proxy: CuttingProxy, pool: Pool) -> None:
    proxy.arm(Cut.BEFORE)
    response = await cut_client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert proxy.cuts == 1
    assert response.status_code == 202
    assert await effects(pool, "one") == (1, 1)


async def test_alternating_cuts_before_and_after_the_commit_have_one_effect(
    cut_client: Client, proxy: CuttingProxy, pool: Pool
) -> None:
    proxy.arm(Cut.BEFORE, Cut.BEFORE, Cut.AFTER)
    response = await cut_client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert proxy.cuts == 3
    assert response.status_code == 202
    assert await effects(pool, "one") == (1, 1)


async def test_a_write_without_a_key_is_answered_after_its_commit_is_found(
    cut_client: Client, proxy: CuttingProxy, pool: Pool
) -> None:
    proxy.arm(Cut.AFTER)
    response = await cut_client.post("/v1/workspaces/warm/disable", headers={"content-type": "application/json"})
    assert proxy.cuts == 1
    assert (response.status_code, response.json()["state"]) == (200, "disabled")
    assert await pool.fetchval("SELECT count(*) FROM wvs.events WHERE topic = 'workspace.disabled.v1'") == 1


async def test_an_unknown_outcome_is_unavailable_and_a_repetition_with_the_key_resolves_it(
    cut_client: Client, client: Client, proxy: CuttingProxy, pool: Pool
) -> None:
    proxy.arm(Cut.AFTER)
    proxy.refusing = True
    response = await cut_client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) >= 1

    elsewhere = await client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert (elsewhere.status_code, elsewhere.headers["idempotent-replayed"]) == (202, "true")
    proxy.refusing = False
    here = await cut_client.write("POST", "/v1/workspaces", {"name": "one"}, key="k1")
    assert here.content == elsewhere.content
    assert await effects(pool, "one") == (1, 1)


async def test_reads_are_unavailable_during_an_outage_of_postgres_and_work_after_it(
    cut_client: Client, proxy: CuttingProxy, pool: Pool
) -> None:
    proxy.refusing = True
    await pool.execute(END_CONNECTIONS)
    for path in READS:
        response = await cut_client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE"), path
        assert response.headers["content-type"] == "application/problem+json"
        assert int(response.headers["retry-after"]) >= 1
    ready = await cut_client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "UNAVAILABLE")
    assert (await cut_client.get("/livez")).status_code == 200
    metrics = (await cut_client.get("/metrics")).text
    assert 'wvs_ignored_failures_total{where="metrics_refresh"} 1.0' in metrics

    proxy.refusing = False
    assert (await cut_client.read("/v1/workspaces/warm"))["name"] == "warm"
    assert (await cut_client.get("/readyz")).status_code == 200


async def test_a_wait_that_loses_postgres_answers_with_the_accepted_task(
    cut_client: Client, proxy: CuttingProxy, pool: Pool
) -> None:
    request = asyncio.create_task(cut_client.write("POST", "/v1/workspaces", {"name": "one"}, prefer="wait=2"))
    while await effects(pool, "one") == (0, 0):
        await asyncio.sleep(0.01)
    proxy.refusing = True
    await pool.execute(END_CONNECTIONS)
    response = await request
    assert (response.status_code, response.json()["task"]["state"]) == (202, "queued")
    assert response.headers["preference-applied"] == "wait=2"
