"""`wvsctl session …`: which sessions exist, and how a person evicts one."""

import asyncio
import json

from tests.integration.agent.conftest import Service
from tests.integration.wvsctl.consoles import Result, Wvsctl

from wvs.agent import register


class Console:
    """`wvsctl` as a separate process, because the test process runs the service."""

    def __init__(self, url: str) -> None:
        self._console = Wvsctl(url)

    async def __call__(self, *arguments: str) -> Result:
        process = self._console.start(*arguments)
        out, err = await asyncio.to_thread(process.communicate)
        return Result(process.returncode, out, err)

    async def ok(self, *arguments: str) -> Result:
        result = await self(*arguments)
        assert result.code == 0, result
        return result


async def test_a_person_lists_the_sessions_and_evicts_one(service: Service) -> None:
    console = Console(service.url)
    reasons: list[str] = []

    async def on_end(reason: str) -> None:
        reasons.append(reason)

    async with await register(service.url, service.name, agent="a builder", on_end=on_end) as session:
        listed = await console.ok("session", "list", service.name)
        assert session.id in listed.out
        assert "a builder" in listed.out
        asked = await console("session", "evict", session.id)
        assert asked.code == 2
        assert "--yes" in asked.err
        evict = ("session", "evict", session.id, "--reason", "it hangs", "--yes")
        evicted = json.loads((await console.ok("--json", *evict)).out)
        assert (evicted["state"], evicted["reason"]) == ("evicted", "it hangs")
        async with asyncio.timeout(10):
            await session.until_ended()
        assert reasons == ["it hangs"]
    assert session.id not in (await console.ok("session", "list", service.name)).out
    ended = await console.ok("session", "list", service.name, "--ended")
    assert "evicted" in ended.out
    unknown = await console("session", "evict", "sess_" + session.id[5:][::-1], "--yes")
    assert unknown.code == 3
    assert (await console.ok(*evict)).out, "repeating the eviction must change nothing"
