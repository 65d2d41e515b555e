"""The reserve for a full disk, on a real small filesystem that keeps a part for root."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable

from wvs.postgres.reserve import RESERVE_SHARE, ROOM_BYTES, DiskReserve, disk_of


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    namespace = Namespace(tmp_path)
    try:
        yield filesystems.ext4(namespace, "disk", 256)
    except Unavailable as error:
        pytest.skip(str(error))
    finally:
        namespace.close()


def fill_disk(disk: Path) -> None:
    with (disk / "filler").open("ab", buffering=0) as file:
        for block in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(block))


def test_a_reserve_holds_its_space_and_what_is_kept_for_root_and_gives_room_on_a_full_disk(disk: Path) -> None:
    reserve = DiskReserve(disk)
    before = disk_of(disk)
    assert before.kept_for_root > 0
    assert not reserve.exists
    assert not reserve.make_room(), "without a reserve there is nothing to give"
    assert reserve.fill()
    assert reserve.size == int(before.total * RESERVE_SHARE) + before.kept_for_root
    assert before.free - disk_of(disk).free >= reserve.size
    assert not reserve.fill(), "it is whole"

    fill_disk(disk)  # as root, so the part for root is filled, too
    assert disk_of(disk).free == 0
    whole = reserve.size
    assert reserve.make_room()
    assert disk_of(disk).free >= ROOM_BYTES
    assert 0 < reserve.size < whole
    assert not reserve.fill(), "a full disk has no room for it"

    (disk / "filler").unlink()
    os.sync()
    assert reserve.fill()
    assert reserve.size == whole


def test_a_reserve_is_given_back_as_a_whole_before_it_is_refused(disk: Path) -> None:
    reserve = DiskReserve(disk)
    reserve.fill()
    for keep, left in ((0.5, int(disk_of(disk).total * RESERVE_SHARE) // 2), (0.0, 0)):
        for _ in range(100):
            fill_disk(disk)
            if not reserve.make_room(keep=keep):
                break
        assert (reserve.size, reserve.exists) == (left, True)
