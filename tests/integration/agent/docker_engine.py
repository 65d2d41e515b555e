"""A Docker engine of the tests' own, which leaves nothing behind, and containers with the host's programs.

No registry is needed: the image holds only directories, and each container mounts the host's /usr and this checkout,
read-only. So it runs the host's sh and this Python.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.integration.engines.filesystems import Unavailable, need_program, need_root

IMAGE = "wvs-test"
_CHECKOUT = Path(__file__).parents[3]
_ALIASES = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


class DockerEngine:
    """One dockerd on a socket in `directory`. Its mounts are in a namespace of its own, its cgroups below one parent.

    It has no bridge and writes no firewall rules: containers get `--network none` or the host's.
    """

    def __init__(self, directory: Path) -> None:
        """Raises `Unavailable` where no engine can run."""
        need_root()
        for program in ("containerd", "runc", "docker"):
            need_program(program)
        self._cgroup = f"wvs-test-{uuid.uuid4().hex[:8]}"
        self._log = directory / "log"
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{directory}/socket"}
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        command = [
            *(need_program("setpriv"), "--pdeathsig", "TERM", need_program("unshare"), "--mount"),
            *("--propagation", "slave", need_program("dockerd"), "--host", f"unix://{directory}/socket"),
            *(f"--{option}={directory / name}" for option, name in places.items()),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            *("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self._cgroup}"),
        ]
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_until_it_answers()
        self._import_image()

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + 60
        while self._docker("version").returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > until:
                self.close()
                raise Unavailable(f"dockerd does not serve: {self._log.read_text()[-500:]}")
            time.sleep(0.05)

    def _import_image(self) -> None:
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
        self.docker("import", "-", IMAGE, content=content.getvalue())

    def _docker(self, *arguments: str, content: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            ["docker", *arguments], input=content, capture_output=True, env=self.environment, check=False, timeout=60
        )

    def docker(self, *arguments: str, content: bytes = b"") -> str:
        """The output of a docker command that has to succeed."""
        done = self._docker(*arguments, content=content)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.decode()}"
        return done.stdout.decode().strip()

    def start(self, *argv: str, options: tuple[str, ...] = (), network: str = "none") -> str:
        """Starts a container and returns its name."""
        name = f"wvs-{uuid.uuid4().hex[:8]}"
        read_only = {"/usr", str(_CHECKOUT), sys.base_prefix, sys.prefix}
        shared = [f"--mount=type=bind,source={place},target={place},readonly" for place in sorted(read_only)]
        self.docker("run", "--detach", "--name", name, f"--network={network}", *shared, *options, IMAGE, *argv)
        return name

    def state(self, name: str) -> dict[str, Any]:
        return json.loads(self.docker("container", "inspect", "--format", "{{json .State}}", name))

    def logs(self, name: str) -> str:
        return self.docker("logs", name)

    def remove_containers(self) -> None:
        if names := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", *names)

    def close(self) -> None:
        """Ends the engine, and fails if a cgroup of a container is left."""
        if self._daemon.poll() is None:
            with suppress(AssertionError):
                self.remove_containers()
            self._daemon.terminate()
            self._daemon.wait(60)
        for place in Path("/sys/fs/cgroup").glob(f"*/{self._cgroup}"):
            place.rmdir()
        for place in Path("/sys/fs/cgroup").glob(self._cgroup):
            place.rmdir()
