"""Why a test is skipped, in the few forms that tests/skip_policy.py and tests/allowed_skips.toml know."""

import os
import shutil

import pytest

NOT_INSTALLED = "not installed: "
NOT_ROOT = "not root: "


def not_installed(program: str) -> str:
    """The reason of a test that lacks a program of requirements/test-programs.txt."""
    return f"{NOT_INSTALLED}{program}"


def not_root(purpose: str) -> str:
    """The reason of a test that only root can run; `purpose` is what needs root."""
    return f"{NOT_ROOT}{purpose}"


def find_program(name: str) -> str | None:
    """The path of a program, also of those that are only on root's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def need_program(name: str) -> str:
    """The path of a program; skips the test where it is missing."""
    found = find_program(name)
    if found is None:
        pytest.skip(not_installed(name))
    return found


def need_root(purpose: str) -> None:
    """Skips the test for any other user."""
    if os.geteuid() != 0:
        pytest.skip(not_root(purpose))
