"""The tests have no Docker: they check what can be checked without it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from wvs.settings import load_settings, unknown_variables

_COMPOSE = Path(__file__).parents[2] / "compose"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((_COMPOSE / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", ["prepare", "api", "executor"])
def test_every_variable_is_a_setting_with_an_allowed_value(services: dict[str, Any], name: str):
    environment = services[name]["environment"]
    assert unknown_variables(environment) == []
    assert load_settings(environment).volume == Path("/volume")


def test_the_api_is_published_on_the_loopback_address_only(services: dict[str, Any]):
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api": ["127.0.0.1:8787:8787"]
    }


def test_the_image_gets_every_file_that_the_build_of_the_package_needs():
    text = (_COMPOSE / "Dockerfile").read_text()
    root = _COMPOSE.parent
    copied = [word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]]
    assert all((root / name).exists() for name in copied)
    assert {"src", "db", "runbooks", "pyproject.toml", "README.md", "LICENSE"} <= set(copied)
    assert {"requirements/runtime.txt", "requirements/build.txt"} <= set(copied)
