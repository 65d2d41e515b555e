"""Clients that two generators make of the OpenAPI document call every operation of a real API."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import private_database
from tests.integration.http.contract import ServedApi
from tests.skips import not_installed

from wvs.http.wiring import document

# `make client-generators` installs them here: they have other dependencies than the tests.
PROGRAMS = Path(__file__).parents[3] / "build" / "client-generators" / "bin"
STORY = Path(__file__).with_name("generated_client.py")
DOCUMENT = "openapi.json"
GENERATE = {
    "openapi-python-client": (
        *("openapi-python-client", "generate", "--fail-on-warning", "--path", DOCUMENT, "--meta", "none"),
        *("--output-path", "generated_by_openapi_python_client"),
    ),
    "openapi-generator": (
        *("openapi-generator-cli", "generate", "--input-spec", DOCUMENT, "--generator-name", "python"),
        *("--package-name", "generated_by_openapi_generator", "--output", "."),
    ),
}


@pytest.fixture
def api(admin_url: str, template_database: str) -> Iterator[ServedApi]:
    with private_database(admin_url, template_database) as url, ServedApi(url).running() as running:
        yield running


@pytest.mark.parametrize("generator", GENERATE)
def test_a_generated_client_calls_every_operation(generator: str, api: ServedApi, tmp_path: Path) -> None:
    program, *arguments = GENERATE[generator]
    if not (PROGRAMS / program).exists():
        pytest.skip(not_installed(f"{program} (make client-generators)"))
    (tmp_path / DOCUMENT).write_text(json.dumps(document()))
    # openapi-python-client formats its output with the ruff that is first on PATH.
    environment = {"PATH": f"{PROGRAMS}:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    run([str(PROGRAMS / program), *arguments], tmp_path, environment)
    called = run([str(PROGRAMS / "python"), str(STORY), generator, str(tmp_path), api.url], tmp_path, environment)
    assert set(called.split()) == {
        operation["operationId"] for item in document()["paths"].values() for operation in item.values()
    }


def run(command: list[str], directory: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
