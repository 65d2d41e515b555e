"""What an engine cannot keep is noted or refused; nothing is lost without a word, and no secret is written out."""

import fcntl
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.engines import filesystems
from tests.integration.engines.conftest import Bench, attempt, on
from tests.integration.engines.filesystems import Namespace, Unavailable
from tests.skips import need_root

from wvs.domain.errors import ErrorCode
from wvs.engines.volume.opening import init_volume, open_volume

_ADD_KEY = 0xC0506617
_REMOVE_KEY = 0xC0406618
_SET_POLICY = 0x800C6613
_SECRET = b"the secret of the directory " * 200

Notes = list[tuple[str, int, str]]


def chattr(*arguments: str | Path) -> None:
    subprocess.run(["chattr", *arguments], check=True, capture_output=True)


def notes_of(bench: Bench, source: str) -> tuple[str, Notes]:
    """Clones; the clone's name and its notes."""
    target = bench.intend()
    result = bench.volume.clone(bench.workspace, source, target)
    return target, [(note.what, note.count, note.example) for note in result.notes]


@on("copy-on-ext4", "reflink-on-xfs", "reflink-on-btrfs")
def test_flags_that_a_clone_loses_are_noted(bench: Bench) -> None:
    need_root("making a file immutable")
    source = bench.live()
    root = bench.path(source)
    (root / "d").mkdir()
    for name in ("one", "two", "d/three"):
        (root / name).write_bytes(b"x")
    chattr("+i", root / "one")
    chattr("+ad", root / "d" / "three")
    chattr("+i", root / "d")
    assert notes_of(bench, source)[1] == [
        ("flag +a append-only", 1, "d/three"),
        ("flag +d no dump", 1, "d/three"),
        ("flag +i immutable", 2, "one"),
    ]


@on("btrfs-on-btrfs")
def test_a_snapshot_of_btrfs_keeps_flags_and_has_no_notes(bench: Bench) -> None:
    source = bench.live()
    (bench.path(source) / "f").touch()
    chattr("+i", bench.path(source) / "f")
    target, notes = notes_of(bench, source)
    assert notes == []
    shown = subprocess.run(["lsattr", bench.path(target) / "f"], check=True, capture_output=True, text=True).stdout
    assert "i" in shown.split()[0]


@on("juicefs-on-juicefs")
def test_juicefs_has_no_flags_to_lose(bench: Bench) -> None:
    (bench.path(bench.live()) / "f").touch()
    with pytest.raises(subprocess.CalledProcessError):
        chattr("+i", bench.path(bench.live()) / "f")


@on("reflink-on-xfs")
def test_project_ids_and_extent_sizes_are_noted(bench: Bench) -> None:
    source = bench.live()
    (bench.path(source) / "of a project").write_bytes(b"x")
    chattr("-p", "42", bench.path(source) / "of a project")
    (bench.path(source) / "database").touch()
    subprocess.run(["xfs_io", "-c", "extsize 1m", bench.path(source) / "database"], check=True)
    (bench.path(source) / "database").write_bytes(b"x")
    assert notes_of(bench, source)[1] == [("extent size hint", 1, "database"), ("project id", 1, "of a project")]


@on("copy-on-here", "reflink-on-xfs")
def test_sockets_and_hard_links_that_lead_out_of_the_tree_are_noted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bench.live()
    root = bench.path(source)
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("sock")
    outside = Path(bench.volume.path) / "outside"
    outside.write_bytes(b"x")
    for name in ("linked", "linked again"):
        os.link(outside, root / name)
    os.link(root / "linked", root / "third")
    (root / "inside").write_bytes(b"x")
    os.link(root / "inside", root / "inside too")
    target, notes = notes_of(bench, source)
    assert [(what, count) for what, count, _ in notes] == [("hard link to a name outside the tree", 1), ("socket", 1)]
    assert (bench.path(target) / "linked").stat().st_nlink == 3


@on("reflink-on-btrfs")
def test_a_subvolume_that_becomes_a_plain_directory_is_noted(bench: Bench) -> None:
    source = bench.live()
    (bench.path(source) / "dir").mkdir()
    subprocess.run(["btrfs", "-q", "subvolume", "create", bench.path(source) / "dir" / "home"], check=True)
    (bench.path(source) / "dir" / "home" / "below").mkdir()
    assert notes_of(bench, source)[1] == [("btrfs subvolume", 1, "dir/home")]


class Vault:
    """A directory that fscrypt encrypts, on a volume of its own."""

    def __init__(self, bench: Bench, mount: Path, image: Path) -> None:
        self.bench = bench
        self.image = image
        self._mount = mount
        key = os.urandom(64)
        argument = bytearray(struct.pack("<II32sII32s", 2, 0, b"", len(key), 0, b"") + key)
        self._on_mount(_ADD_KEY, argument)
        self._identifier = bytes(argument[8:24])
        self.source = bench.live()
        self.root = bench.path(self.source)
        (self.root / "secret").mkdir()
        policy = struct.pack("<BBBBB3s16s", 2, 1, 4, 3, 0, b"", self._identifier)
        directory = os.open(self.root / "secret", os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SET_POLICY, policy)
        finally:
            os.close(directory)

    def lock(self) -> None:
        """Takes the key out of the kernel."""
        self._on_mount(_REMOVE_KEY, bytearray(struct.pack("<II32s", 2, 0, self._identifier) + bytes(24)))

    def plain_texts(self) -> int:
        """How often the secret is on the disk in clear text."""
        os.sync()
        return self.image.read_bytes().count(_SECRET[:200])

    def _on_mount(self, request: int, argument: bytearray) -> None:
        mount = os.open(self._mount, os.O_RDONLY)
        try:
            fcntl.ioctl(mount, request, argument)
        finally:
            os.close(mount)


@pytest.fixture
def vault(namespace: Namespace, request: pytest.FixtureRequest) -> Iterator[Vault]:
    name = f"vault-{uuid.uuid4().hex[:8]}"
    try:
        mount = filesystems.ext4(namespace, name, 64, "-O", "encrypt")
    except Unavailable as error:
        pytest.skip(str(error))
    (mount / "lost+found").rmdir()
    init_volume(str(mount), uuid.uuid4(), "copy")
    try:
        made = Vault(Bench(open_volume(str(mount))), mount, namespace.directory / f"{name}.img")
    except OSError as error:
        pytest.skip(f"this kernel encrypts no directories: {error.strerror}")
    yield made
    subprocess.run(["umount", "-l", mount], check=True)


def encrypted(path: Path) -> bool:
    return "E" in subprocess.run(["lsattr", "-d", path], check=True, capture_output=True, text=True).stdout.split()[0]


def test_an_encrypted_directory_is_encrypted_in_the_clone(vault: Vault) -> None:
    (vault.root / "secret" / "deep").mkdir()
    (vault.root / "secret" / "deep" / "key").write_bytes(_SECRET)
    (vault.root / "secret" / "link").symlink_to("key")
    (vault.root / "open").write_bytes(b"public")
    assert vault.plain_texts() == 0
    target, notes = notes_of(vault.bench, vault.source)
    clone = vault.bench.path(target)
    assert (clone / "secret" / "deep" / "key").read_bytes() == _SECRET
    assert encrypted(clone / "secret" / "deep")
    assert not encrypted(clone / "open")
    assert vault.plain_texts() == 0
    assert notes == []


def leave_the_directory(vault: Vault) -> None:
    (vault.root / "secret" / "key").write_bytes(_SECRET)
    (vault.root / "secret" / "key").rename(vault.root / "moved")


def lock_the_directory(vault: Vault) -> None:
    (vault.root / "secret" / "key").write_bytes(_SECRET)
    os.sync()
    vault.lock()


@pytest.mark.parametrize(
    ("change", "said"),
    [(leave_the_directory, "cloning moved: it is encrypted (fscrypt)"), (lock_the_directory, "ENOKEY")],
)
def test_a_secret_that_cannot_be_encrypted_is_refused_and_never_on_the_disk(
    vault: Vault, change: Callable[[Vault], None], said: str
) -> None:
    change(vault)
    error = attempt(lambda: vault.bench.clone(vault.source))
    assert error is not None
    assert error.code is ErrorCode.CLONE_FAILED
    assert not error.retryable
    assert said in error.detail
    assert "then retry the task" in error.hint
    assert vault.plain_texts() == 0
    vault.bench.purge(vault.source)
