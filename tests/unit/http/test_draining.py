import asyncio

import pytest

from wvs.http.live.draining import finished_in_time


async def test_a_wait_that_ends_in_time_returns_true() -> None:
    assert await finished_in_time(asyncio.sleep(0), asyncio.Event(), timeout_s=5)


async def test_a_wait_that_takes_too_long_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    assert not await finished_in_time(wait(), asyncio.Event(), timeout_s=0.01)
    assert cancelled.is_set()


async def test_draining_ends_a_wait_at_once() -> None:
    draining = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, draining.set)
    async with asyncio.timeout(5):
        assert not await finished_in_time(asyncio.Event().wait(), draining, timeout_s=60)


async def test_what_the_wait_raises_is_raised() -> None:
    async def wait() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await finished_in_time(wait(), asyncio.Event(), timeout_s=5)


async def test_nothing_is_left_running() -> None:
    await finished_in_time(asyncio.Event().wait(), asyncio.Event(), timeout_s=0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
