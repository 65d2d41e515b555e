"""The secret of a session stays inside `wvsctl agent run` and its guardian: the command cannot read it."""

import fcntl
import re
import struct
import termios
from hashlib import sha256
from pathlib import Path

from tests.integration.agent.conftest import Service, until_lease_renewed

SECRET = re.compile(rb"(?=([A-Za-z0-9_-]{43}))")


def secrets_in(content: bytes, hashes: set[bytes]) -> int:
    """How often a secret with one of these hashes is in `content`."""
    return sum(sha256(found[1]).digest() in hashes for found in SECRET.finditer(content))


def shown_of(process: Path) -> bytes:
    """What the command line and the environment of a process show, and the files that it has open."""
    shown = [(process / name).read_bytes() for name in ("cmdline", "environ")]
    for descriptor in (process / "fd").iterdir():
        target = descriptor.resolve()
        if target.is_file() and not target.is_relative_to("/proc") and target.stat().st_size < 10_000_000:
            shown.append(target.read_bytes())
    return b"\0".join(shown)


def heap_of(process: Path) -> bytes:
    parts: list[bytes] = []
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(bound, 16) for bound in span.split("-"))
            if rights.startswith("rw") and end - start < 64 << 20 and "[v" not in line:
                memory.seek(start)
                parts.append(memory.read(end - start))
    return b"\0".join(parts)


async def test_no_process_but_the_wrapper_and_its_guardian_has_the_secret(service: Service) -> None:
    wrapped = await service.shell("echo ready; sleep 100")
    await wrapped.line()
    await until_lease_renewed(service)
    hashes = {row["secret_hash"] for row in await service.platform.pool.fetch("SELECT secret_hash FROM wvs.sessions")}
    wrapper = Path(f"/proc/{wrapped.process.pid}")
    assert secrets_in(heap_of(wrapper), hashes) > 0, "the search finds no secret where one is"
    children = [Path(f"/proc/{pid}") for pid in (wrapper / f"task/{wrapper.name}/children").read_text().split()]
    (guardian,) = [child for child in children if b"guardian_process.py" in (child / "cmdline").read_bytes()]
    (command,) = [child for child in children if child != guardian]
    for process in (wrapper, guardian, command):
        assert secrets_in(shown_of(process), hashes) == 0, (process / "cmdline").read_bytes()
    assert secrets_in(heap_of(command), hashes) == 0
    with (guardian / "fd/0").open("rb") as pipe:
        unread = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))
    assert unread == (0,), "the command could read it from the guardian's pipe"
