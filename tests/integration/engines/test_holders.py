"""Which processes of this host hold a tree, with real processes."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.skips import need_root

from wvs.engines.holders import Look, hidden_below, holders_of
from wvs.engines.mounts import Mount, mounts

MAPS_SHARED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[1], os.O_RDWR)
address = libc.mmap(None, 4096, 3, 1, fd, ctypes.c_long(0))
assert address not in (None, ctypes.c_void_p(-1).value)
os.close(fd)
print("ready", flush=True)
sys.stdin.read()
"""
WRITES = 'import sys; f = open(sys.argv[1], "a"); print("ready", flush=True); sys.stdin.read()'
READS = 'import sys; f = open(sys.argv[1]); print("ready", flush=True); sys.stdin.read()'
LOOKS_AT_ANOTHER = """
import subprocess, sys
from wvs.engines.holders import holders_of
other = subprocess.Popen(
    ["unshare", "-m", "sh", "-c", sys.argv[2]], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
other.stdout.readline()
print(*(holder.how for holder in holders_of(sys.argv[1], 10).holders if holder.pid == other.pid))
other.kill()
other.wait()
"""
FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
exit_thread = {"x86_64": 60, "aarch64": 93}[platform.machine()]
threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall(exit_thread, 0)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "live" / "root"
    (root / "src").mkdir(parents=True)
    (root / "src" / "main.c").write_text("x" * 4096)
    (root.parent / "root-beside").mkdir()
    return root


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that prints `ready` and ends with its input."""
    started: list[subprocess.Popen[str]] = []

    def begin(*argv: str, cwd: Path | str = "/") -> subprocess.Popen[str]:
        process = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def held(look: Look) -> dict[int, tuple[str, ...]]:
    return {holder.pid: holder.how for holder in look.holders}


def test_a_shell_in_the_tree_holds_it_and_one_beside_it_does_not(tree: Path, start: Start) -> None:
    inside = start("sh", "-c", "echo ready; cat", cwd=tree / "src")
    start("sh", "-c", "echo ready; cat", cwd=tree.parent / "root-beside")
    found = held(holders_of(str(tree), 10))
    assert found[inside.pid] == ("working directory src",)
    assert all(Path(f"/proc/{pid}/cwd").readlink() == tree / "src" for pid in found)


def test_a_writer_and_a_shared_mapping_hold_the_tree_and_a_reader_does_not(tree: Path, start: Start) -> None:
    file = str(tree / "src" / "main.c")
    writer = start(sys.executable, "-c", WRITES, file)
    mapper = start(sys.executable, "-c", MAPS_SHARED, file)
    start(sys.executable, "-c", READS, file)
    assert held(holders_of(str(tree), 10)) == {
        writer.pid: ("has src/main.c open for writing",),
        mapper.pid: ("has src/main.c mapped shared",),
    }


def test_a_file_that_left_the_tree_does_not_count(tree: Path, start: Start) -> None:
    file = tree / "src" / "main.c"
    start(sys.executable, "-c", WRITES, str(file))
    file.rename(tree.parent / "main.c")
    assert held(holders_of(str(tree), 10)) == {}


def test_a_mount_in_another_namespace_is_found_under_its_own_path(tree: Path, tmp_path: Path, start: Start) -> None:
    need_root("mounts in a namespace of its own")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = 'mount --bind "$1" "$2"; cd "$2/src"; echo ready; read _'
    other = start("unshare", "-m", "sh", "-c", script, "sh", str(tree), str(elsewhere))
    inherits = start("unshare", "-m", "sh", "-c", "echo ready; read _")
    found = held(holders_of(str(tree), 10))
    assert found[other.pid] == (f"has it mounted at {elsewhere.resolve()}", "working directory src")
    assert inherits.pid not in found


@pytest.mark.parametrize("is_mount_here", [False, True])
def test_another_root_that_shows_the_volume_at_the_same_path_is_found(
    is_mount_here: bool, tree: Path, tmp_path: Path
) -> None:
    """As a container with `-v /srv/wvs:/srv/wvs`: the mount has the path of here, in another root directory."""
    need_root("mounts in a namespace of its own")
    top, volume = tmp_path / "new", tree.parent
    script = f"""
        mount -t tmpfs none "{top}"; mkdir -p "{top}/usr" "{top}/old" "{top}/proc" "{top}{volume}"
        mount --rbind /proc "{top}/proc"; mount --rbind /usr "{top}/usr"; ln -s usr/bin usr/lib usr/lib64 "{top}"
        mount --bind "{volume}" "{top}{volume}"
        cd "{top}"; pivot_root . old; exec /usr/bin/sh -c "umount -l /old; echo ready; read _"
    """
    top.mkdir()
    here = f'mount --bind "{volume}" "{volume}"; ' if is_mount_here else ""
    argv = ["unshare", "-m", "sh", "-c", f'{here}exec "$@"', "sh", sys.executable, "-c", LOOKS_AT_ANOTHER]
    looked = subprocess.run([*argv, str(tree), script], capture_output=True, text=True, check=True)
    assert looked.stdout == f"('has it mounted at {tree}',)\n"


def test_a_process_whose_first_thread_has_ended_is_found_by_another_thread(tree: Path, start: Start) -> None:
    process = start(sys.executable, "-c", FIRST_THREAD_ENDS, cwd=tree)
    until = time.monotonic() + 20
    while "State:\tZ" not in Path(f"/proc/{process.pid}/status").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert held(holders_of(str(tree), 10)) == {process.pid: ("working directory",)}


def test_without_the_kernel_s_search_of_mappings_a_shared_mapping_is_found_too(
    tree: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before Linux 6.11, which answers ENOTTY to an ioctl of /proc/PID/maps."""
    monkeypatch.setattr("wvs.engines.mappings._PROCMAP_QUERY", 0)
    (tree / "src" / "main.c").rename(tree / "src" / "main\r\x85.c")
    mapper = start(sys.executable, "-c", MAPS_SHARED, str(tree / "src" / "main\r\x85.c"))
    assert held(holders_of(str(tree), 10)) == {mapper.pid: ("has src/main\r\x85.c mapped shared",)}


def test_all_are_counted_and_the_first_are_described(tree: Path, start: Start) -> None:
    for _ in range(4):
        start("sh", "-c", "echo ready; read _", cwd=tree)
    look = holders_of(str(tree), 3)
    assert (look.found, len(look.holders)) == (4, 3)


def test_a_long_command_is_cut_and_control_characters_are_not_shown(tree: Path, start: Start) -> None:
    start("sh", "-c", "echo ready; read _ #\n\x1b[31m" + "x" * 500, cwd=tree)
    (holder,) = holders_of(str(tree), 10).holders
    assert len(holder.command) == 120
    assert holder.command.isprintable()


def test_threads_of_the_kernel_are_left_out_and_a_thread_group_without_its_first_thread_is_not(start: Start) -> None:
    """Both have no program to show. Every thread of the kernel works in `/`."""
    process = start(sys.executable, "-c", FIRST_THREAD_ENDS)
    found = {holder.pid for holder in holders_of("/", 100_000).holders}
    assert {os.getpid(), process.pid} <= found
    of_kernel = {pid for pid in found if not Path(f"/proc/{pid}/cmdline").read_bytes() and pid != process.pid}
    assert {pid for pid in of_kernel if Path(f"/proc/{pid}/stat").read_text().split()[3] == "2"} == set()


def test_a_process_so_deep_in_the_tree_that_the_kernel_shows_no_path_is_said(tree: Path, start: Start) -> None:
    """Its shared mapping is found by the list of mappings: the search for one shows no path of that length."""
    script = "import os, sys\nfor _ in range(21):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
    script += "open('f', 'w').write('x' * 4096)\n"
    mapper = start(sys.executable, "-c", script + MAPS_SHARED, "f", cwd=tree)
    look = holders_of(str(tree), 10)
    assert re.search(r"\d+ process(es)? in directories so deep that the kernel shows no path", look.unseen)
    ((how,),) = [holder.how for holder in look.holders if holder.pid == mapper.pid]
    assert how.startswith("has ddd")


def test_a_root_directory_so_deep_that_the_kernel_shows_no_path_is_said(tree: Path, start: Start) -> None:
    need_root("changes the root directory, in a mount namespace of its own")
    script = "import os, sys\nfor _ in range(21):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\n"
    script += "os.chroot('.')\nprint('ready', flush=True)\nsys.stdin.read()\n"
    start("unshare", "-m", sys.executable, "-c", script, cwd=tree)
    assert "in directories so deep that the kernel shows no path" in holders_of(str(tree), 10).unseen


def test_spared_processes_are_left_out(tree: Path, start: Start) -> None:
    shell = start("sh", "-c", "echo ready; read _", cwd=tree)
    assert holders_of(str(tree), 10, [shell.pid]).found == 0


def test_processes_that_end_during_the_look_are_no_failure(tree: Path) -> None:
    churn = subprocess.Popen(["sh", "-c", "while :; do sh -c : ; done"], cwd="/", start_new_session=True)
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert holders_of(str(tree), 10).found == 0
    finally:
        churn.kill()
        churn.wait()


def test_a_container_that_ends_before_its_mount_table_is_opened_is_no_failure(
    tree: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers EINVAL then."""
    need_root("mounts in a namespace of its own")
    ends = start("unshare", "-m", "sh", "-c", "echo ready; read _")

    def opened_late(process: int | str = "self") -> tuple[Mount, ...]:
        if process == str(ends.pid):
            ends.kill()
            os.waitid(os.P_PID, ends.pid, os.WEXITED | os.WNOWAIT)
        return mounts(process)

    monkeypatch.setattr("wvs.engines.holders.mounts", opened_late)
    assert holders_of(str(tree), 10).found == 0


def test_what_cannot_be_examined_is_said(tree: Path) -> None:
    need_root("becomes another user")
    code = (
        "import os, sys; from wvs.engines.holders import holders_of\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(holders_of(sys.argv[1], 10).unseen)"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(tree)], capture_output=True, text=True, check=True).stdout
    assert "no right to examine" in shown


def test_a_mount_in_the_tree_is_hidden_for_those_that_see_it(tree: Path, start: Start) -> None:
    need_root("mounts in a namespace of its own")
    script = 'mount -t tmpfs none "$1/src"; echo ready; read _'
    other = start("unshare", "-m", "sh", "-c", script, "sh", str(tree))
    assert hidden_below(str(tree), other.pid) == [("src", "tmpfs")]
    assert hidden_below(str(tree)) == []
