import threading

import pytest

from wvs.engines.crew import Crew


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_batch_is_worked_on_once(workers: int) -> None:
    done: list[int] = []
    lock = threading.Lock()

    def work(batch: int) -> None:
        with lock:
            done.append(batch)

    with Crew(workers, work, drop=lambda _: None) as crew:
        for batch in range(500):
            crew.submit(batch)
        crew.finish()
    assert sorted(done) == list(range(500))


def test_one_worker_is_the_caller() -> None:
    seen: set[int] = set()
    with Crew[int](1, lambda _: seen.add(threading.get_ident()), drop=lambda _: None) as crew:
        for batch in range(10):
            crew.submit(batch)
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_first_error_stops_the_crew_and_the_rest_is_dropped(workers: int) -> None:
    worked: set[int] = set()
    dropped: set[int] = set()

    def work(batch: int) -> None:
        if batch == 3:
            raise ValueError(batch)
        worked.add(batch)

    submitted = 0

    def run() -> None:
        nonlocal submitted
        with Crew(workers, work, drop=dropped.add) as crew:
            for batch in range(1000):
                submitted += 1
                crew.submit(batch)
            crew.finish()

    with pytest.raises(ValueError, match="3"):
        run()
    assert worked | dropped | {3} == set(range(submitted))
    assert not worked & dropped
    assert threading.active_count() == 1 or all(each.name != "wvs-clone" for each in threading.enumerate())


def test_an_error_of_the_caller_reaches_the_caller_and_ends_the_threads() -> None:
    dropped: list[int] = []
    gate = threading.Event()

    def wait(_batch: int) -> None:
        gate.wait(5)

    def run() -> None:
        with Crew[int](2, wait, drop=dropped.append) as crew:
            for batch in range(3):
                crew.submit(batch)
            threading.Timer(0.05, gate.set).start()
            raise KeyError("caller")

    with pytest.raises(KeyError, match="caller"):
        run()
    assert all(each.name != "wvs-clone" for each in threading.enumerate())
    assert dropped
