"""Tools that key what they keep by an absolute path work on after a restore of the very snapshot that holds them.

On every engine, since each clones the links, the times and the modes that these tools compare in its own way.
"""

import io
import json
import os
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.agent.conftest import Service, Wrapped, service_on
from tests.integration.agent.tools import pnpm
from tests.integration.engines.conftest import Sites
from tests.integration.executor.campaign import BTRFS, KINDS, WITHOUT_MOUNT
from tests.integration.executor.conftest import volume_of
from tests.skips import need_program

from wvs.domain.states import TaskState
from wvs.postgres.pool import Pool

END = "exit "
BACKEND = """
import os, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("thing.pth", os.path.join(os.getcwd(), "src"))
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    return name
"""
"""A build backend as small as can be, because the tests have no package index."""

VENV = f"""
where() {{ (cd / && "$OLDPWD/.venv/bin/python" -c 'import thing; print(thing.__file__)'); }}
if [ -d .venv ]; then where >/dev/null || exit; else {sys.executable} -m venv .venv || exit; fi
.venv/bin/pip --version | cut -d' ' -f4 || exit
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable project >&2 && where || exit
"""
WORKTREE = """
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
if [ ! -d repo ]; then
    git init -q repo && git -C repo commit -q --allow-empty -m one && git -C repo worktree add -q ../wt -b task || exit
fi
git -C wt status --short --branch && git -C wt commit -q --allow-empty -m more || exit
git -C repo worktree list | cut -d' ' -f1
"""


async def report_of(wrapped: Wrapped) -> list[str]:
    """The lines of one run of a script; the last is its exit code."""
    lines: list[str] = []
    while not lines or not lines[-1].startswith(END):
        line = await wrapped.line()
        assert line, (lines, await wrapped.ended())
        lines.append(line)
    return lines


async def reports_around_a_restore(service: Service, script: str, needed: str) -> tuple[list[str], list[str]]:
    """What a script prints in a fresh tree, and when it is started again in a snapshot taken after that.

    Before the restore the tree loses `needed`, a file without which the script would fail.
    """
    wrapped = await service.shell(f'({script}\n); echo "{END}$?"; while [ ! -e stop ]; do sleep 0.05; done')
    before = await report_of(wrapped)
    snapshot_id, state = await service.snapshot()
    assert state is TaskState.SUCCEEDED
    (service.live / "junk").touch()
    (service.live / needed).unlink()
    assert await service.platform.set_current(service.workspace_id, snapshot_id, reset=True) is TaskState.SUCCEEDED
    after = await report_of(wrapped)
    assert not (service.live / "junk").exists()
    (service.live / "stop").touch()
    _, _, errors = await wrapped.ended()
    assert (before[-1], after[-1]) == (f"{END}0", f"{END}0"), errors
    return before, after


@pytest.fixture(params=[WITHOUT_MOUNT, *KINDS[1:]])
async def service(
    request: pytest.FixtureRequest, kernel_holds: None, sites: Sites, pool: Pool, database_url: str, tmp_path: Path
) -> AsyncIterator[Service]:
    with volume_of(request.param, sites, tmp_path) as volume:
        async with service_on(volume, pool, database_url) as made:
            yield made


async def test_a_venv_an_editable_install_and_a_git_worktree_work_after_a_restore(service: Service) -> None:
    need_program("git")
    project = service.live / "project"
    (project / "src").mkdir(parents=True)
    (project / "src" / "thing.py").touch()
    (project / "backend.py").write_text(BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    before, after = await reports_around_a_restore(service, VENV + WORKTREE, ".venv/bin/pip")
    assert before == after
    live = os.path.realpath(service.live)
    assert before[0].startswith(f"{live}/.venv/")
    assert before[1] == f"{live}/project/src/thing.py"
    assert before[-3:-1] == [f"{live}/repo", f"{live}/wt"]


@pytest.mark.parametrize("service", [BTRFS], indirect=True)
async def test_pnpm_installs_and_adds_after_a_restore_on_btrfs(service: Service, tmp_path: Path) -> None:
    """A subvolume is a device of its own, so pnpm keeps its store inside the tree, and its path in node_modules."""
    live = service.live
    for name in ("one", "two"):
        pack(live / f"{name}.tgz", name)
    (live / "package.json").write_text(json.dumps({"name": "project", "version": "1.0.0", "private": True}))
    script = f"""
    export HOME={tmp_path} CI=1; pnpm() {{ {pnpm()} "$@"; }}
    if [ ! -d node_modules ]; then
        pnpm add --offline ./one.tgz >&2 && touch node_modules/kept || exit
    else
        pnpm install --offline --frozen-lockfile >&2 && pnpm add --offline ./two.tgz >&2 || exit
        [ -e node_modules/kept ] || {{ echo "pnpm has made node_modules anew"; exit 1; }}
    fi
    pnpm store path
    """
    before, after = await reports_around_a_restore(service, script, "node_modules/kept")
    assert before == after
    assert Path(before[0]).is_relative_to(os.path.realpath(live)), "the store is elsewhere: this shows nothing"


def pack(path: Path, name: str) -> None:
    """Writes an npm package."""
    with tarfile.open(path, "w:gz") as archive:
        for file, text in (("package.json", json.dumps({"name": name, "version": "1.0.0"})), ("index.js", "")):
            entry = tarfile.TarInfo(f"package/{file}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
