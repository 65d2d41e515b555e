"""A Docker engine of the tests' own."""

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.integration.agent.container_engine import IMAGE, ContainerEngine, image
from tests.integration.engines.filesystems import Unavailable, need_program, need_root


class DockerEngine(ContainerEngine):
    """One dockerd on a socket in `directory`: its mounts in a namespace of its own, its cgroups below one parent."""

    runtime = "docker"

    def __init__(self, directory: Path) -> None:
        """Raises `Unavailable` where no engine can run."""
        super().__init__()
        need_root()
        for program in ("containerd", "runc", "docker"):
            need_program(program)
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
        self.call("import", "-", IMAGE, content=image())

    def _wait_until_it_answers(self) -> None:
        until = time.monotonic() + 60
        while self._run("docker", "version").returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > until:
                self.close()
                raise Unavailable(f"dockerd does not serve: {self._log.read_text()[-500:]}")
            time.sleep(0.05)

    def close(self) -> None:
        if self._daemon.poll() is None:
            with suppress(AssertionError):
                self.remove_containers()
            self._daemon.terminate()
            self._daemon.wait(60)
        self._remove_cgroups()
