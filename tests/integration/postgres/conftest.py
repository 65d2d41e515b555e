"""Servers of a test's own, on copies of one cluster."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from wvs.postgres.embedded import EmbeddedPostgres


def server_on(data_dir: Path, **more: Any) -> EmbeddedPostgres:
    """A server, not started yet, with the binaries of this run."""
    binaries = os.environ.get("WVS_TEST_POSTGRES_BIN")
    return EmbeddedPostgres(data_dir, durable=False, binaries=Path(binaries) if binaries else None, **more)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose cluster is made and stopped: making one takes longest."""
    data_dir = tmp_path_factory.mktemp("made")
    with server_on(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(made_once: Path, tmp_path: Path) -> Path:
    target = tmp_path / "data"
    subprocess.run(["cp", "-a", str(made_once), str(target)], check=True)
    return target
