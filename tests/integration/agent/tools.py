"""Programs that `make agent-tools` installs, for tests that run them in a live tree."""

import os
from pathlib import Path

import pytest
from tests.skips import need_program, not_installed

_TOOLS = Path(os.environ.get("WVS_TEST_AGENT_TOOLS", Path(__file__).parents[3] / "build" / "agent-tools"))


def pnpm() -> str:
    """The command line of pnpm."""
    return _node("pnpm/bin/pnpm.cjs", "pnpm")


def vite() -> str:
    """The command line of vite."""
    return _node("vite/bin/vite.js", "vite")


def pyright_language_server() -> str:
    """The command line of pyright's language server."""
    return _node("pyright/langserver.index.js", "pyright")


def python_packages() -> Path:
    """The directory with watchdog."""
    return _installed(_TOOLS / "python", "watchdog")


def _node(script: str, name: str) -> str:
    node = need_program("node")
    return f"{node} {_installed(_TOOLS / 'node_modules' / script, name)}"


def _installed(path: Path, name: str) -> Path:
    if not path.exists():
        pytest.skip(not_installed(name))
    return path
