"""A volume's engine is chosen once and explained; an engine that does not fit is refused by name."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.integration.engines.conftest import Sites
from tests.integration.engines.filesystems import Namespace, Unavailable, without_exchange

from wvs.domain.errors import ErrorCode
from wvs.engines.errors import EngineError
from wvs.engines.volume.opening import init_volume, open_volume


def unavailable(error: pytest.ExceptionInfo[EngineError]) -> str:
    assert error.value.code is ErrorCode.VOLUME_UNAVAILABLE
    return error.value.detail


def test_init_tries_the_engines_and_gives_its_reasons(sites: Sites) -> None:
    site = sites.get("reflink-on-xfs")
    made = init_volume(str(site.directory / "chosen"), uuid.uuid4())
    assert made.choice is not None
    assert made.choice.engine == made.identity.engine == "reflink"
    assert made.identity.filesystem == "xfs"
    assert "FICLONE" in made.choice.why


def test_init_falls_to_copy_where_nothing_better_works_and_shows_what_failed(tmp_path: Path) -> None:
    made = init_volume(str(tmp_path / "volume"), uuid.uuid4())
    assert made.choice is not None
    if made.choice.engine != "copy":
        pytest.skip(f"the temporary directory is on a filesystem with {made.choice.engine}")
    assert [probe.engine for probe in made.choice.probes][-2:] == ["reflink", "copy"]
    assert all(probe.why for probe in made.choice.probes)


def test_an_engine_asked_for_is_honoured(sites: Sites) -> None:
    site = sites.get("reflink-on-xfs")
    made = init_volume(str(site.directory / "asked"), uuid.uuid4(), "copy")
    assert made.identity.engine == "copy"
    assert open_volume(str(site.directory / "asked")).engine.name == "copy"


def test_an_engine_that_does_not_work_here_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    if init_volume(str(tmp_path / "probe"), uuid.uuid4()).identity.engine != "copy":
        pytest.skip("the temporary directory can reflink")
    with pytest.raises(EngineError) as raised:
        init_volume(str(tmp_path / "volume"), uuid.uuid4(), "reflink")
    assert "reflink" in unavailable(raised)
    with pytest.raises(EngineError):
        open_volume(str(tmp_path / "volume"))


@pytest.fixture(scope="module")
def no_exchange(namespace: Namespace) -> Path:
    try:
        return without_exchange(namespace)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("engine", [("--engine", "copy"), ()], ids=["copy", "the best"])
def test_a_filesystem_that_cannot_exchange_directories_is_refused_by_name_and_left_as_it_was(
    no_exchange: Path, tmp_path: Path, engine: tuple[str, ...]
) -> None:
    before = sorted(no_exchange.rglob("*"))
    command = [sys.executable, "-m", "wvs.cli.wvs", "volume", "init", str(no_exchange / "a" / "volume"), *engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "wvs: VOLUME_UNAVAILABLE: fuse.ext4 lacks RENAME_EXCHANGE, by which a switch replaces the live tree: "
        "Invalid argument\n     put the volume on ext4, XFS, btrfs or JuiceFS\n"
    )
    assert sorted(no_exchange.rglob("*")) == before


def test_a_volume_that_an_earlier_version_made_without_exchange_is_refused_when_it_is_opened(
    no_exchange: Path, tmp_path: Path
) -> None:
    init_volume(str(tmp_path / "elsewhere"), uuid.uuid4(), "copy")
    identity = json.loads((tmp_path / "elsewhere" / ".wvs" / "volume.json").read_text())
    volume = no_exchange / "earlier"
    (volume / ".wvs").mkdir(parents=True)
    (volume / ".wvs" / "volume.json").write_text(json.dumps(identity | {"filesystem": "fuse.ext4"}))
    before = sorted(volume.rglob("*"))
    with pytest.raises(EngineError) as raised:
        open_volume(str(volume))
    assert "fuse.ext4 lacks RENAME_EXCHANGE" in unavailable(raised)
    assert raised.value.hint == "put the volume on ext4, XFS, btrfs or JuiceFS"
    assert not raised.value.retryable
    assert sorted(volume.rglob("*")) == before


def test_init_repeated_keeps_the_volume(tmp_path: Path) -> None:
    first = init_volume(str(tmp_path), uuid.uuid4(), "copy")
    again = init_volume(str(tmp_path), uuid.uuid4())
    assert again.identity == first.identity
    assert again.choice is None
    with pytest.raises(EngineError) as raised:
        init_volume(str(tmp_path), uuid.uuid4(), "reflink")
    assert "chosen once" in raised.value.hint


def test_init_after_an_interrupted_init_succeeds(tmp_path: Path) -> None:
    (tmp_path / ".wvs").mkdir()
    (tmp_path / ".wvs" / ".volume.json.new.0").write_text('{"half')
    assert init_volume(str(tmp_path), uuid.uuid4(), "copy").choice is not None


def test_a_directory_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(EngineError) as raised:
        init_volume(str(tmp_path), uuid.uuid4())
    assert "thesis.tex" in unavailable(raised)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError) as raised:
        init_volume(str(tmp_path / "file"), uuid.uuid4())
    unavailable(raised)


def test_opening_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EngineError) as raised:
            open_volume(str(path))
        unavailable(raised)


@pytest.mark.parametrize(
    ("field", "value"), [("filesystem", "zfs"), ("layout", 3), ("engine", "teleport"), ("surprise", 1)]
)
def test_a_volume_that_does_not_fit_any_more_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    init_volume(str(tmp_path), uuid.uuid4(), "copy")
    file = tmp_path / ".wvs" / "volume.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(EngineError) as raised:
        open_volume(str(tmp_path))
    assert str(value) in unavailable(raised) or field in unavailable(raised)
    assert not raised.value.retryable


def test_a_reflink_volume_moved_to_a_filesystem_without_reflinks_is_refused_by_name(tmp_path: Path) -> None:
    identity = init_volume(str(tmp_path), uuid.uuid4(), "copy").identity
    if identity.filesystem in ("xfs", "btrfs"):
        pytest.skip("the temporary directory can reflink")
    file = tmp_path / ".wvs" / "volume.json"
    file.write_text(file.read_text().replace('"copy"', '"reflink"'))
    with pytest.raises(EngineError) as raised:
        open_volume(str(tmp_path))
    assert "reflink" in unavailable(raised)


def test_a_volume_swapped_under_an_open_one_is_noticed(tmp_path: Path) -> None:
    init_volume(str(tmp_path / "volume"), uuid.uuid4(), "copy")
    volume = open_volume(str(tmp_path / "volume"))
    (tmp_path / "volume").rename(tmp_path / "away")
    with pytest.raises(EngineError) as raised:
        volume.workspaces()
    unavailable(raised)
    init_volume(str(tmp_path / "volume"), uuid.uuid4(), "copy")
    with pytest.raises(EngineError) as raised:
        volume.workspaces()
    assert str(volume.identity.id) in unavailable(raised)


def test_a_volume_may_be_named_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    init_volume(str(tmp_path / "link"), uuid.uuid4(), "copy")
    assert open_volume(str(tmp_path / "link")).path == str(tmp_path / "real")
