import asyncio
import os
import threading
import time

import pytest

from wvs.agent import threads as agent_threads
from wvs.agent.threads import in_daemon_thread


async def test_the_result_or_error_of_the_work_reaches_the_caller() -> None:
    def fail() -> None:
        raise LookupError

    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(LookupError):
        await in_daemon_thread(fail)


async def test_an_idle_thread_is_reused_and_a_hanging_one_is_not() -> None:
    """A thread that hangs may return much later: it must not get work for which a caller waits."""
    hanging, hangs = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang() -> int:
        loop.call_soon_threadsafe(hangs.set)
        hanging.wait(60)
        return threading.get_ident()

    async def used() -> int:
        ident = await in_daemon_thread(threading.get_ident)
        async with asyncio.timeout(10):
            while not agent_threads._idle:  # until the thread waits for work again
                await asyncio.sleep(0.001)
        return ident

    stuck = asyncio.create_task(in_daemon_thread(hang))
    await hangs.wait()
    used_meanwhile = {await used() for _ in range(20)}  # threads that other tests started may be among them
    assert len(used_meanwhile) <= agent_threads._MOST_IDLE
    hanging.set()
    assert await stuck not in used_meanwhile


async def test_a_cancelled_caller_leaves_the_thread_behind() -> None:
    hanging = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await in_daemon_thread(lambda: hanging.wait(60))
    assert await in_daemon_thread(lambda: 7) == 7
    hanging.set()


def test_a_child_process_starts_threads_of_its_own() -> None:
    """The threads of its parent do not exist after a fork."""
    assert asyncio.run(in_daemon_thread(lambda: 7)) == 7
    time.sleep(0.05)  # until that thread waits for work
    child = os.fork()
    if child == 0:
        try:
            found = asyncio.run(asyncio.wait_for(in_daemon_thread(lambda: 8), 10))
        except TimeoutError:
            found = 1
        os._exit(found)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
