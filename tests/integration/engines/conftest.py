"""Every engine on its own filesystem; a test process mounts it once, each test makes its own volume."""

import itertools
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.filesystems import Namespace, Unavailable

from wvs.domain.ids import WORKSPACE, format_id
from wvs.engines.base import EngineName, TreeOwner
from wvs.engines.errors import EngineError
from wvs.engines.volume.names import tree_name
from wvs.engines.volume.opening import init_volume, open_volume
from wvs.engines.volume.volume import Volume

_numbers = itertools.count(1)


def new_uuid7() -> uuid.UUID:
    """A UUIDv7 with a counter in place of the time: unlike the others, valid, and printable."""
    return uuid.UUID(int=(next(_numbers) << 80) | (7 << 76) | (2 << 62) | uuid.uuid4().int >> 70)


@dataclass(frozen=True)
class Site:
    """An engine and a directory where it works."""

    engine: EngineName
    directory: Path


class Sites:
    """Makes each site when a test first needs it."""

    def __init__(self, namespace: Namespace, directory: Path, size_mb: int = 400) -> None:
        self._namespace = namespace
        self._directory = directory
        self._size_mb = size_mb
        self._ready: dict[str, Path | Unavailable] = {}

    def get(self, kind: str) -> Site:
        engine, _, filesystem = kind.partition("-on-")
        if filesystem not in self._ready:
            try:
                self._ready[filesystem] = self._make(filesystem)
            except Unavailable as error:
                self._ready[filesystem] = error
        place = self._ready[filesystem]
        if isinstance(place, Unavailable):
            pytest.skip(str(place))
        return Site(engine, place)  # type: ignore[arg-type]

    def _make(self, filesystem: str) -> Path:
        match filesystem:
            case "xfs":
                return filesystems.xfs(self._namespace, size_mb=self._size_mb)
            case "btrfs":
                return filesystems.btrfs(self._namespace, size_mb=self._size_mb)
            case "ext4":
                return filesystems.ext4(self._namespace, size_mb=self._size_mb)
            case "juicefs":
                return filesystems.juicefs(self._namespace)
            case "here":
                return self._directory
            case _:
                raise ValueError(filesystem)


KINDS = ["copy-on-here", "reflink-on-xfs", "reflink-on-btrfs", "btrfs-on-btrfs", "juicefs-on-juicefs"]


@pytest.fixture(scope="session")
def big(pytestconfig: pytest.Config) -> bool:
    """Whether this run is the campaign with its big trees."""
    return pytestconfig.getoption("markexpr") == "campaign"


@pytest.fixture(scope="session")
def namespace(tmp_path_factory: pytest.TempPathFactory, big: bool) -> Iterator[Namespace]:
    made = Namespace(tmp_path_factory.mktemp("mounts"), size="12g" if big else "4g")
    yield made
    made.close()


@pytest.fixture(scope="session")
def sites(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory, big: bool) -> Sites:
    return Sites(namespace, tmp_path_factory.mktemp("here"), size_mb=3500 if big else 400)


def on(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test on these kinds only, in KINDS or not: elsewhere it has no meaning."""
    return pytest.mark.parametrize("site", kinds, indirect=True)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, sites: Sites) -> Site:
    return sites.get(request.param)


class Bench:
    """A volume with one workspace, and the few steps that every test takes."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.workspace = format_id(WORKSPACE, new_uuid7())
        volume.create_workspace(self.workspace)

    def new_name(self) -> str:
        return tree_name(new_uuid7(), 1)

    def intend(self) -> str:
        name = self.new_name()
        self.volume.intend(self.workspace, name)
        return name

    def live(self, mode: int = 0o755) -> str:
        """A new empty live tree."""
        name = self.intend()
        self.volume.create_root(self.workspace, name, TreeOwner(os.geteuid(), os.getegid()), mode)
        return name

    def path(self, name: str) -> Path:
        return Path(self.volume.path, self.workspace, "trees", name, "root")

    def has_tree(self, name: str) -> bool:
        return name in self.volume.whole_trees(self.workspace)

    def clone(self, source: str) -> str:
        target = self.intend()
        self.volume.clone(self.workspace, source, target)
        return target

    def purge(self, name: str) -> None:
        self.volume.retire(self.workspace, name)
        self.volume.purge(self.workspace, name)


@pytest.fixture
def volume_directory(site: Site) -> Iterator[Path]:
    path = site.directory / f"volume-{next(_numbers)}"
    path.mkdir()
    yield path
    subprocess.run(["chattr", "-R", "-f", "-i", "-a", str(path)], check=False, capture_output=True)
    for root in path.glob("ws_*/*/*/root") if site.engine == "btrfs" else ():
        subprocess.run(["btrfs", "property", "set", "-ts", root, "ro", "false"], check=True)
    shutil.rmtree(path)


@pytest.fixture
def bench(site: Site, volume_directory: Path) -> Bench:
    init_volume(str(volume_directory), uuid.uuid4(), site.engine)
    return Bench(open_volume(str(volume_directory)))


def attempt(call: Callable[[], object]) -> EngineError | None:
    """The `EngineError` of a call, or None; any other exception fails the test."""
    try:
        call()
    except EngineError as error:
        return error
    return None
