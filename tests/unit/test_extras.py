"""The error of a program whose extra is not installed; tests/integration/packaging shows it in real installations."""

import importlib
import pkgutil
import re
import subprocess
import sys

import pytest

import wvs
from wvs.cli.extras import MissingExtra, needs, require_module
from wvs.cli.wvs.app import run
from wvs.cli.wvs.runbooks import runbooks


def test_the_error_for_a_missing_package_names_its_extra() -> None:
    with (
        pytest.raises(MissingExtra, match=re.escape("wvs x needs the up extra: pip install 'wvs[up]'")),
        needs("wvs x", "up"),
    ):
        raise ModuleNotFoundError(name="fasteners.process_lock")
    with pytest.raises(MissingExtra, match="no module named no_such_module"):
        require_module("wvs x", "server", "no_such_module")
    require_module("wvs x", "server", "asyncpg")


@pytest.mark.parametrize("name", ["wvs.domain.nothing", "wvs", None])
def test_a_missing_module_of_wvs_itself_is_reported_as_a_defect(name: str | None) -> None:
    with pytest.raises(ModuleNotFoundError), needs("wvs x", "server"):
        raise ModuleNotFoundError(name=name)


def test_a_command_without_its_extra_exits_with_the_code_of_a_usage_error() -> None:
    code = "import sys; sys.modules['litestar'] = None; from wvs.cli.wvs.app import run; sys.exit(run(['api']))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "wvs api needs the server extra: pip install 'wvs[server]' (no module named litestar)\n"


def test_every_module_can_be_imported() -> None:
    names = [module.name for module in pkgutil.walk_packages(wvs.__path__, "wvs.")]
    assert len(names) > 200
    for name in names:
        importlib.import_module(name)


def test_a_runbook_is_printed_and_without_a_name_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runbook", "silent-session"]) == 0
    assert capsys.readouterr().out == runbooks()["silent-session"].read_text()
    assert run(["runbook"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(runbooks())
    assert run(["runbook", "nonsense"]) == 2
    assert "silent-session" in capsys.readouterr().err
