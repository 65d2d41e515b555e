"""Work beside a block lasts exactly as long as the block."""

import asyncio

import pytest

from wvs.background import background, stop


async def test_work_is_cancelled_and_awaited_when_the_block_ends() -> None:
    steps: list[str] = []

    async def work() -> None:
        steps.append("started")
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    async with background(work()) as [task]:
        await asyncio.sleep(0)
    assert steps == ["started", "cleaned up"]
    assert task.cancelled()


async def test_work_is_stopped_when_the_block_raises() -> None:
    tasks: list[asyncio.Task[object]] = []

    async def block() -> None:
        async with background(asyncio.sleep(3600), asyncio.sleep(3600)) as started:
            tasks.extend(started)
            raise ValueError("the block")

    with pytest.raises(ValueError, match="the block"):
        await block()
    assert all(task.cancelled() for task in tasks)


async def test_work_that_fails_ends_neither_the_block_nor_the_other_work() -> None:
    async def fail() -> None:
        raise RuntimeError("nobody awaits this")

    async with background(fail(), asyncio.sleep(3600)) as [failed, lasting]:
        await asyncio.wait({failed})
        assert not lasting.done()
    assert isinstance(failed.exception(), RuntimeError)
    assert lasting.cancelled()


async def test_stopping_work_that_has_ended_changes_nothing() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "result"))
    assert await task == "result"
    await stop(task)
    assert task.result() == "result"
