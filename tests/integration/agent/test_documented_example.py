"""The example program in docs/agents.md."""

import asyncio
import re
import sys
from pathlib import Path

from tests.integration.agent.conftest import Service, until

from wvs.domain.states import TaskState

PAGE = Path(__file__).parents[3] / "docs" / "agents.md"


async def test_the_documented_program_takes_part_in_freezes_and_switches(service: Service) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    snapshot_of_nothing, _ = await service.snapshot()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program.replace("range(100)", "range(10_000)"), service.url, service.name
    )
    try:
        await until((service.live / "step").exists)
        (session,) = await service.sessions()
        snapshot_id, state = await service.snapshot()
        assert state is TaskState.SUCCEEDED
        (member,) = (await service.document(snapshot_id))["certificate"]["members"]
        assert (member["session_id"], member["flush"]) == (session["id"], "ok")
        assert await service.platform.set_current(service.workspace_id, snapshot_of_nothing) is TaskState.SUCCEEDED
        await until((service.live / "step").exists)
        assert (await service.sessions())[0]["epoch"] == 2
    finally:
        process.kill()
        await process.wait()
    await service.evict(session["id"])
