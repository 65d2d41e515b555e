"""What a proxy in front of the API makes of it."""

import gzip
import time
import tracemalloc
from typing import Any

import httpx
import pytest
from tests.integration.http.actors import Client, Executor, client_of, running_api


async def test_no_answer_is_held_back_for_longer_than_the_setting(database_url: str, executor: Executor) -> None:
    async with running_api(database_url, max_wait_s=1) as api, client_of(api) as client:
        began = time.monotonic()
        made = await client.write("POST", "/v1/workspaces", {"name": "one"}, prefer="wait=30")
        assert made.status_code == 202
        assert made.headers["preference-applied"] == "wait=1"
        task = made.json()["task"]["id"]
        shown = await client.get(f"/v1/tasks/{task}", headers={"prefer": "wait=30"})
        assert shown.headers["preference-applied"] == "wait=1"
        await executor.run()
        body = {"agent": "a", "host": "h", "pid": 1}
        registered = (await client.write("POST", "/v1/workspaces/one/sessions", body)).json()
        number, session = registered["directive"]["number"], registered["session"]["id"]
        directive = await client.get(
            f"/v1/sessions/{session}/directive",
            params={"after": number, "wait": 30},
            headers={"x-session-secret": registered["secret"]},
        )
        assert directive.json()["number"] == number
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("public_url", "sent", "prefix"),
    [
        ("https://example.com/team/wvs/", None, "/team/wvs"),
        ("https://example.com/wvs", "/other", "/wvs"),
        ("https://example.com", None, ""),
        (None, "/wvs", "/wvs"),
        (None, "/wvs/", "/wvs"),
        (None, None, ""),
        (None, "//evil.example", ""),
        (None, '/"><script>', ""),
        (None, "/a, /b", ""),
        (None, "wvs", ""),
    ],
)
async def test_links_begin_with_the_path_under_which_a_proxy_serves_the_api(
    database_url: str, public_url: str | None, sent: str | None, prefix: str
) -> None:
    headers = {} if sent is None else {"x-forwarded-prefix": sent}
    async with running_api(database_url, public_url=public_url) as api, client_of(api) as client:
        client.headers.update(headers)
        made = await client.write("POST", "/v1/workspaces", {"name": "one"})
        assert made.headers["location"] == f"{prefix}/v1/tasks/{made.json()['task']['id']}"
        assert (await client.get("/v1/workspaces/none")).json()["type"] == f"{prefix}/problems/WORKSPACE_NOT_FOUND"
        assert (await client.get("/none")).json()["type"] == f"{prefix}/problems/ROUTE_NOT_FOUND"
        refused = await client.get("/v1/tasks", headers={"host": "evil.example"})
        assert refused.json()["type"] == f"{prefix}/problems/INVALID_REQUEST"
        page = (await client.get("/schema")).text
        for link in (f'href="{prefix}/schema/assets/', f'src="{prefix}/schema/assets/', f'url: "{prefix}/schema/open'):
            assert link in page
        servers = (await client.get("/schema/openapi.json")).json().get("servers")
        assert servers == [{"url": prefix or "/"}]


async def test_a_proxy_on_another_host_names_no_path(database_url: str) -> None:
    async with running_api(database_url) as api:
        transport = httpx.ASGITransport(api.asgi, client=("10.0.0.7", 4711))  # pyright: ignore[reportArgumentType]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/none", headers={"x-forwarded-prefix": "/wvs"})
    assert answer.json()["type"] == "/problems/ROUTE_NOT_FOUND"


async def ask(client: Any, body: bytes, coding: str) -> httpx.Response:
    headers = {"content-type": "application/json", "content-encoding": coding, "idempotency-key": coding}
    return await client.post("/v1/workspaces", content=body, headers=headers)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_a_body_in_gzip_is_decoded(client: Client, coding: str) -> None:
    assert (await ask(client, gzip.compress(b'{"name":"one"}'), coding)).status_code == 202
    assert (await ask(client, b'{"name":"two"}', "identity")).status_code == 202


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip"])
async def test_another_coding_is_refused_with_those_that_are_accepted(client: Client, coding: str) -> None:
    refused = await ask(client, b"{}", coding)
    assert refused.status_code == 415
    assert refused.headers["accept-encoding"] == "gzip, identity"
    assert f"Content-Encoding {coding!r}" in refused.json()["detail"]


@pytest.mark.parametrize("size", [65537, 50_000_000])
async def test_a_small_body_that_decodes_to_a_large_one_is_refused(client: Client, size: int) -> None:
    body = gzip.compress(b" " * size)
    tracemalloc.start()
    try:
        refused = await ask(client, body, "gzip")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.status_code == 413
    assert peak_bytes < 5_000_000, "decoded beyond the limit"
    assert (await ask(client, gzip.compress(b'{"name":"one"}' + b" " * (65536 - 14)), "gzip")).status_code == 202


WHOLE_GZIP = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"name":"one"}', id="plain"),
        pytest.param(WHOLE_GZIP[:-1], id="cut"),
        pytest.param(WHOLE_GZIP + b"x", id="trailing"),
        pytest.param(WHOLE_GZIP[:-8] + b"\0" * 8, id="wrong-sum"),
    ],
)
async def test_damaged_gzip_is_named(client: Client, body: bytes) -> None:
    refused = await ask(client, body, "gzip")
    assert refused.status_code == 400
    assert "is not valid gzip" in refused.json()["detail"]
