"""Worker processes: every batch comes back once, whatever happens to the process."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wvs.domain.errors import ErrorCode
from wvs.engines.base import Cancel
from wvs.engines.errors import EngineError
from wvs.engines.trees.jobs import BatchResult
from wvs.engines.trees.worker_pool import WorkerPool


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


MANY = [f"absent {number}" for number in range(50)]


def ignore(_: int) -> None: ...


def offer_until_taken(pool: WorkerPool, directory: int, names: list[str], token: object) -> None:
    for _ in range(500):
        if pool.offer("unlink", [directory], ([], names), token):
            return
    raise AssertionError("no worker takes work")


def test_a_batch_is_worked_on_by_another_process_and_comes_back_with_its_token(directory: int, tmp_path: Path) -> None:
    for name in ("plain", "new\nline", "\udcff\udcfe"):
        (tmp_path / name).touch()
    with WorkerPool(2, Cancel(20), ignore) as pool:
        offer_until_taken(pool, directory, ["plain", "new\nline", "\udcff\udcfe"], "token")
        assert pool.waiting() == ["token"]
        assert list(pool.remaining()) == [("token", BatchResult(files=3))]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_has_its_name_and_number(directory: int, tmp_path: Path) -> None:
    (tmp_path / "first").touch()
    with WorkerPool(2, Cancel(20), ignore) as pool:
        offer_until_taken(pool, directory, ["first", "n" * 300], "token")
        ((_, done),) = pool.remaining()
    assert done.failure is not None
    assert (done.failure.name, os.strerror(done.failure.error_number)) == ("n" * 300, "File name too long")


def test_little_work_starts_no_process(directory: int) -> None:
    with WorkerPool(4, Cancel(), ignore) as pool:
        assert not any(pool.offer("unlink", [directory], ([], MANY), None) for _ in range(5))


def test_one_worker_is_the_caller(directory: int) -> None:
    with WorkerPool(1, Cancel(), ignore) as pool:
        assert not any(pool.offer("unlink", [directory], ([], MANY), None) for _ in range(1000))


def test_waiting_work_is_bounded(directory: int) -> None:
    with WorkerPool(3, Cancel(20), ignore) as pool:
        taken = [number for number in range(200) if pool.offer("unlink", [directory], ([], MANY), number)]
        assert len(taken) == 8
        assert sorted(token for token, _ in pool.remaining()) == taken


def test_a_process_that_dies_is_an_error_and_not_a_hang(directory: int) -> None:
    with WorkerPool(2, Cancel(20), ignore) as pool:
        offer_until_taken(pool, directory, MANY, 1)
        list(pool.remaining())
        pool._workers[0].process.kill()
        pool._workers[0].process.wait()
        with pytest.raises(EngineError, match="worker process ended") as raised:
            work_on(pool, directory)
    assert raised.value.code is ErrorCode.CLONE_FAILED
    assert raised.value.retryable


def work_on(pool: WorkerPool, directory: int) -> None:
    for number in range(100):
        pool.offer("unlink", [directory], ([], MANY), number)
        list(pool.remaining())


def test_the_processes_end_with_the_context_also_after_an_error(directory: int) -> None:
    pool = WorkerPool(3, Cancel(20), ignore)

    def fail() -> None:
        with pool:
            for number in range(40):
                pool.offer("unlink", [directory], ([], MANY), number)
            processes.extend(worker.process for worker in pool._workers)
            raise KeyError("caller")

    processes = []
    with pytest.raises(KeyError, match="caller"):
        fail()
    assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)


def test_waiting_for_results_can_be_cancelled(directory: int) -> None:
    cancel = Cancel()
    with WorkerPool(2, cancel, ignore) as pool:
        offer_until_taken(pool, directory, MANY, 1)
        list(pool.remaining())
        os.kill(pool._workers[0].process.pid, 19)
        pool.offer("unlink", [directory], ([], MANY), 2)
        cancel.request()
        started = time.monotonic()
        with pytest.raises(EngineError):
            list(pool.remaining())
        assert time.monotonic() - started < 1
        pool._workers[0].process.kill()
