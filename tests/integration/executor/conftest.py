"""What the executor's tests start from; see `platform` and `processes` beside this file."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.executor.platform import Platform, make_volume
from tests.integration.executor.processes import Executors

from wvs import failpoints
from wvs.postgres.pool import Pool


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Failpoints armed in this process do not outlive their test."""
    yield
    failpoints.arm("")


@pytest.fixture
async def platform(pool: Pool, database_url: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with Platform(pool, database_url, make_volume(tmp_path / "volume")).hinting() as made:
        yield made


@pytest.fixture
def executors(platform: Platform, tmp_path: Path) -> Iterator[Executors]:
    started = Executors(platform.url, platform.volume, tmp_path)
    yield started
    started.close()
