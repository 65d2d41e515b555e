"""A container engine of the tests' own, which leaves nothing behind, and containers with the host's programs.

No registry is needed: the image holds only directories, and each container mounts the host's /usr and this checkout,
read-only. So it runs the host's sh and this Python.
"""

import io
import json
import subprocess
import sys
import tarfile
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

IMAGE = "localhost/wvs-test"
_CHECKOUT = Path(__file__).parents[3]
_ALIASES = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


class ContainerEngine(ABC):
    """Containers get `--network none` or the host's: the engine has no bridge and writes no firewall rules."""

    runtime: ClassVar[str]
    """Its command, and the value of `wvsctl agent attach --runtime`."""
    environment: dict[str, str]
    """With it the command finds this engine."""
    _options: tuple[str, ...] = ()
    """Of every container."""

    def __init__(self) -> None:
        self._cgroup = f"wvs-test-{uuid.uuid4().hex[:8]}"

    def _run(self, *command: str, content: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            command, input=content, capture_output=True, env=self.environment, check=False, timeout=60
        )

    def call(self, *arguments: str, before: tuple[str, ...] = (), content: bytes = b"") -> str:
        """The output of a command of the runtime that has to succeed; `before` is a command that starts it."""
        done = self._run(*before, self.runtime, *arguments, content=content)
        assert done.returncode == 0, f"{self.runtime} {' '.join(arguments)}: {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def start(self, *argv: str, options: tuple[str, ...] = (), network: str = "none") -> str:
        """Starts a container and returns its name."""
        name = f"wvs-{uuid.uuid4().hex[:8]}"
        read_only = {"/usr", str(_CHECKOUT), sys.base_prefix, sys.prefix}
        shared = [f"--mount=type=bind,source={place},target={place},readonly" for place in sorted(read_only)]
        how = ("--detach", "--name", name, f"--network={network}", *self._options)
        self.call("run", *how, *shared, *options, IMAGE, *argv)
        return name

    def state(self, name: str) -> dict[str, Any]:
        return json.loads(self.call("container", "inspect", "--format", "{{json .State}}", name))

    def logs(self, name: str) -> str:
        return self.call("logs", name)

    def remove_containers(self) -> None:
        if names := self.call("ps", "--all", "--quiet").split():
            self.call("rm", "--force", *names)

    @abstractmethod
    def close(self) -> None:
        """Ends the engine, and fails if a process, a mount or a cgroup of a container is left."""

    def _remove_cgroups(self, *below: str) -> None:
        for name in (*(f"{self._cgroup}/{one}" for one in below), self._cgroup):
            for pattern in (name, f"*/{name}"):
                for place in Path("/sys/fs/cgroup").glob(pattern):
                    place.rmdir()


def image() -> bytes:
    """A tar file to import as `IMAGE`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("usr", "tmp", "etc"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(directory)
        for name, target in _ALIASES.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return content.getvalue()
