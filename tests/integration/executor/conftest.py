"""Fixtures of the executor's tests; see `platform` and `processes` beside this file."""

import contextlib
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.integration.engines.conftest import Sites
from tests.integration.engines.filesystems import Namespace
from tests.integration.executor.campaign import KINDS, WITHOUT_MOUNT, names
from tests.integration.executor.platform import Platform, make_volume
from tests.integration.executor.processes import Executors

from wvs import failpoints
from wvs.engines.volume.opening import init_volume
from wvs.postgres.pool import Pool


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Failpoints armed in this process do not outlive their test."""
    yield
    failpoints.arm("")


@pytest.fixture(scope="session")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """For filesystems that only this process sees."""
    made = Namespace(tmp_path_factory.mktemp("mounts"))
    yield made
    made.close()


@contextlib.contextmanager
def fresh_volume(tmp_path: Path) -> Generator[Path]:
    """An empty volume, in memory where that can be: a busy disk makes every syncfs wait, and with it every lease."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield make_volume(tmp_path / "volume")
        return
    with tempfile.TemporaryDirectory(prefix="wvs-test-", dir=memory) as directory:
        yield make_volume(Path(directory) / "volume")


@pytest.fixture(scope="session")
def sites(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Sites:
    return Sites(namespace, tmp_path_factory.mktemp("here"))


@contextlib.contextmanager
def volume_of(kind: str, sites: Sites, tmp_path: Path) -> Generator[Path]:
    """An empty volume of an engine on a filesystem; skips the test where the machine cannot provide that."""
    if kind == WITHOUT_MOUNT:
        with fresh_volume(tmp_path) as volume:
            yield volume
        return
    site = sites.get(kind)
    volume = site.directory / uuid.uuid4().hex
    init_volume(str(volume), uuid.uuid4(), site.engine)
    yield volume  # it goes with its filesystem


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    with fresh_volume(tmp_path) as made:
        yield made


@pytest.fixture
async def platform(pool: Pool, database_url: str, tmp_path: Path) -> AsyncIterator[Platform]:
    with fresh_volume(tmp_path) as made:
        async with Platform(pool, database_url, made).hinting() as platform:
            yield platform


@pytest.fixture
def executors(platform: Platform, tmp_path: Path) -> Iterator[Executors]:
    started = Executors(platform.url, platform.volume, tmp_path)
    yield started
    started.close()


CAMPAIGN: Final = {"test_a_crash_at": "crash", "test_a_zombie_at": "zombie", "test_a_cut_at": "cut"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how many of the campaign's points held, if this run is the campaign."""
    if not os.environ.get("WVS_FAULTS"):
        return
    every = wanted = wrong = 0
    for test, what in CAMPAIGN.items():
        for kind in KINDS:
            counts = {
                outcome: sum(f"{test}[{kind}-" in r.nodeid for r in terminalreporter.stats.get(outcome, ()))
                for outcome in ("passed", "failed", "error", "skipped")
            }
            violated = counts["failed"] + counts["error"]
            tried = counts["passed"] + violated
            if counts["skipped"]:
                terminalreporter.line(f"{what} points on {kind}: skipped, the reason is above")
            elif tried:
                summary = f"{tried} of {len(names(kind))} points, {violated} violations"
                terminalreporter.line(f"{what} points on {kind}: {summary}")
                every, wanted, wrong = every + tried, wanted + len(names(kind)), wrong + violated
    terminalreporter.line(f"{every} of {wanted} points, {wrong} violations")
