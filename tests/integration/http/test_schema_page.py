"""The page at /schema, as npm has it and as a real browser without a network shows it."""

import hashlib
import json
import re
import shutil
import subprocess
import urllib.request
from importlib.resources import files
from pathlib import Path

import pytest
from tests.integration.http.api_process import ApiProcess
from tests.skips import not_installed

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_swagger_ui_is_byte_for_byte_the_package_of_the_recorded_hashes() -> None:
    directory = files("wvs.http") / "swagger_ui"
    lines = (directory / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    found = {file.name for file in directory.iterdir()} - {"SHA256SUMS", "VERSION"}
    assert found == set(sums)
    assert {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in sums} == sums
    assert (directory / "VERSION").read_text().strip() in (directory / "swagger-ui-bundle.js").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason=not_installed("chromium"))
def test_a_browser_that_reaches_nothing_else_shows_every_operation(database_url: str, tmp_path: Path) -> None:
    api = ApiProcess(database_url, tmp_path / "api.log")
    api.start()
    try:
        shown = browse(f"{api.url}/schema", tmp_path)
        with urllib.request.urlopen(f"{api.url}/schema/openapi.json") as answer:
            document = json.load(answer)
    finally:
        api.stop()
    paths = {path for path in document["paths"] if path.startswith("/v1/")}
    assert len(paths) > 10
    assert set(re.findall(r'data-path="([^"]*)"', shown)) >= paths
    assert document["info"]["title"] in shown


def browse(url: str, scratch: Path) -> str:
    """The page's DOM after its scripts ran, in a browser for which no name resolves."""
    assert CHROMIUM is not None
    ended = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-background-networking", "--disable-component-update"),
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={scratch / 'browser'}",
            *("--virtual-time-budget=20000", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return ended.stdout
