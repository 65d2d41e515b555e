"""The cgroups of this process, in which a freezer creates a child, and those of a container."""

import os
from collections.abc import Iterator
from pathlib import Path

from wvs.agent.errors import NoFreezer
from wvs.engines.mounts import Mount, mounts


def own_cgroup_v2() -> Path:
    """This process's cgroup in the v2 hierarchy, wherever that is mounted. Raises `NoFreezer`."""
    return _own_cgroup([mount for mount in mounts() if mount.filesystem == "cgroup2"], "", "cgroup v2")


def own_cgroup_v1() -> Path:
    """This process's cgroup in the v1 hierarchy of the freezer. Raises `NoFreezer`."""
    hierarchies = [m for m in mounts() if m.filesystem == "cgroup" and "freezer" in m.super_options.split(",")]
    return _own_cgroup(hierarchies, "freezer", "the cgroup v1 freezer")


def cgroups_of_container(pid: int, container: str) -> list[Path]:
    """The directories of a container's cgroup that have a freezer, v2 first. `container` is its whole id.

    Not the cgroup of its process `pid`, which may be below: systemd in a container makes cgroups of its own. Docker and
    podman name the container's cgroup after its id.
    """
    found: list[Path] = []
    for mount in mounts():
        controller = {"cgroup2": "", "cgroup": "freezer"}.get(mount.filesystem)
        if controller is None or (controller and controller not in mount.super_options.split(",")):
            continue
        for path in _paths_of(pid, controller):
            parts = path.split("/")
            depth = next((n for n, part in enumerate(parts, 1) if container in part), None)
            directory = Path(mount.point) / "/".join(parts[:depth]).removeprefix(mount.root).lstrip("/")
            if depth is not None and directory.is_dir():
                found.append(directory)
    return sorted(found, key=lambda directory: (directory / "freezer.state").exists())


def _own_cgroup(hierarchies: list[Mount], controller: str, name: str) -> Path:
    if not hierarchies:
        raise NoFreezer(f"{name} is not mounted")
    for mount in hierarchies:
        for path in _paths_of(os.getpid(), controller):
            # In a container the mount may begin below the root, or /proc may show paths as seen from outside.
            inside = path.removeprefix(mount.root) if mount.root != "/" else path
            directory = Path(mount.point) / inside.lstrip("/")
            if _contains_this_process(directory):
                return directory
    raise NoFreezer(f"this process's own directory in {name} is not visible")


def _paths_of(pid: int, controller: str) -> Iterator[str]:
    """The paths of a process in the hierarchy of `controller`, see cgroups(7), /proc/pid/cgroup."""
    for line in os.fsdecode(Path(f"/proc/{pid}/cgroup").read_bytes()).rstrip("\n").split("\n"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            yield path


def _contains_this_process(directory: Path) -> bool:
    try:
        return str(os.getpid()) in (directory / "cgroup.procs").read_text().split()
    except OSError:
        return False
