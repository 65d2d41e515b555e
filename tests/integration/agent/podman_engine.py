"""A podman of the tests' own."""

import ctypes
import os
import time
from pathlib import Path

from tests.integration.agent.container_engine import IMAGE, ContainerEngine, image
from tests.integration.engines.filesystems import need_program, need_root

_PR_SET_CHILD_SUBREAPER = 36
"""See prctl(2)."""
_STORAGE = """
[storage]
driver = "vfs"
graphroot = "{0}/root"
runroot = "{0}/run"
"""
# Podman's own limits are above those of many hosts; to raise a limit, root needs CAP_SYS_RESOURCE.
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
lock_type = "file"
static_dir = "{0}/root/libpod"
tmp_dir = "{0}/tmp"
volume_path = "{0}/volumes"
[network]
network_config_dir = "{0}/networks"
"""


class PodmanEngine(ContainerEngine):
    """Podman with all its state in `directory`, and its cgroups below one parent.

    It has no daemon: each container has a process conmon, an orphan of the command that started the container. Until
    `close`, this process adopts these orphans, since a test also runs where PID 1 does not reap.
    """

    runtime = "podman"

    def __init__(self, directory: Path) -> None:
        """Raises `Unavailable` where podman cannot run."""
        super().__init__()
        need_root()
        for program in ("runc", "podman"):  # crun refuses a host with cgroup v2 beside v1
            need_program(program)
        files = {"CONTAINERS_STORAGE_CONF": _STORAGE, "CONTAINERS_CONF": _CONTAINERS}
        for variable, content in files.items():
            (directory / variable).write_text(content.format(directory))
        self.environment = os.environ | {variable: str(directory / variable) for variable in files}
        self._directory = directory
        self._options = (f"--cgroup-parent=/{self._cgroup}",)
        _set_subreaper(1)
        self._import_image()

    def _import_image(self) -> None:
        """In a mount namespace of its own: `podman import` writes a cache below /var/lib, whatever is configured."""
        elsewhere = self._directory / "lib"
        elsewhere.mkdir()
        hide = (need_program("unshare"), "--mount", "sh", "-c", f'mount --bind {elsewhere} /var/lib && exec "$@"', "sh")
        self.call("import", "-", IMAGE, before=hide, content=image())

    def close(self) -> None:
        try:
            self.remove_containers()
            self._reap()
        finally:
            _set_subreaper(0)
        assert str(self._directory) not in Path("/proc/self/mountinfo").read_text(), "podman left a mount"
        self._remove_cgroups("conmon")

    def _reap(self) -> None:
        """Each conmon ends after its container, and so does the podman that it starts to clean up."""
        until = time.monotonic() + 60
        while left := _adopted():
            assert time.monotonic() < until, f"podman left processes: {left}"
            for pid in left:
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)


def _set_subreaper(value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _adopted() -> list[int]:
    """The children of this process that podman left."""
    found: list[int] = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            pid, _, rest = (place / "stat").read_text(errors="replace").partition(" (")
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, _, fields = rest.rpartition(") ")
        if name in ("conmon", "podman") and int(fields.split()[1]) == os.getpid():
            found.append(int(pid))
    return found
