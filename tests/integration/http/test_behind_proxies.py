"""What a proxy in front of the API makes of it."""

import time

from tests.integration.http.actors import Executor, client_of, running_api


async def test_no_answer_is_held_back_for_longer_than_the_setting(
    database_url: str, executor: Executor
) -> None:
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
        directive = await client.get(f"/v1/sessions/{session}/directive", params={"after": number, "wait": 30})
        assert directive.json()["number"] == number
        assert time.monotonic() - began < 20
