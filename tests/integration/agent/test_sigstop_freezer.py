"""The freezer of `agent run --cooperative` with real processes. It runs in a process whose only children it stops."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

SPAWN = """
import os
os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "fifo", os.O_RDONLY, 0)])
"""
"""The child opens the FIFO before it executes its program; until then the parent is inside vfork(2)."""

FREEZE = """
import asyncio, os, subprocess, sys
from wvs.agent.freezer import poll_until
from wvs.agent.sigstop_freezer import SigstopFreezer

def is_in_vfork(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "D"

async def main():
    freezer = SigstopFreezer()
    parent = subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid
    await poll_until(lambda: is_in_vfork(parent))
    freezing = asyncio.create_task(freezer.freeze())
    await asyncio.sleep(0.2)
    print("early" if freezing.done() else "waits", flush=True)
    os.open("fifo", os.O_RDWR)
    try:
        await freezing
        print("frozen" if freezer.still_frozen() else "runs", len(freezer.pids()), flush=True)
    finally:
        await freezer.kill()

asyncio.run(main())
"""


async def test_a_parent_inside_vfork_is_stopped_once_its_child_has_executed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FREEZE, SPAWN), cwd=tmp_path, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"waits\n"
            assert await process.stdout.readline() == b"frozen 2\n"
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
