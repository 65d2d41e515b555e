"""python -m tools.release_fixture: makes the fixture of this release (tests/releases/README.md)."""

import shutil
import socket
import sys
from pathlib import Path
from typing import Final

import wvs
from tools.release_fixture.layout import FILES
from tools.release_fixture.life import Life
from tools.release_fixture.recording import foreign_text, missing_events, record
from tools.release_fixture.service import running_service
from wvs.eventlog.codec import TOPICS
from wvs.eventlog.upcasting import UPCASTERS

RELEASES: Final = Path(__file__).parents[2] / "tests" / "releases"
SCRATCH: Final = Path("/tmp/wvs-release")  # noqa: S108 - stored errors may name it: it must be the same on all machines


def main() -> int:
    """The exit code: 1 if the fixture exists, or lacks an event, or names this machine."""
    target = RELEASES / wvs.__version__
    if target.exists():
        sys.stderr.write(f"{target} exists. The fixture of a release is made once: raise the version first.\n")
        return 1
    if SCRATCH.exists():
        sys.stderr.write(
            f"{SCRATCH} exists: it belongs to another run of this program; remove it if that was killed.\n"
        )
        return 1
    SCRATCH.mkdir(mode=0o755)
    try:
        made = SCRATCH / "fixture"
        made.mkdir()
        faults = _make(made)
        if faults:
            sys.stderr.write("".join(f"{fault}\n" for fault in faults))
            return 1
        shutil.copytree(made, target)
    finally:
        shutil.rmtree(SCRATCH)
    size = sum((target / name).stat().st_size for name in FILES)
    sys.stdout.write(f"{target}: {size // 1024} KB\n")
    return 0


def _make(made: Path) -> list[str]:
    with running_service(SCRATCH) as service:
        life = Life(service)
        life.live()
        lacking = missing_events(service, set(TOPICS.values()) | set(UPCASTERS))
        record(service, life, made)
    foreign = foreign_text(made, [socket.gethostname(), str(RELEASES.parents[1])])
    return [f"no event {topic} happened" for topic in sorted(lacking)] + [f"a file names {text}" for text in foreign]


if __name__ == "__main__":
    sys.exit(main())
