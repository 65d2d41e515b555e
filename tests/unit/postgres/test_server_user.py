import os
import pwd
from pathlib import Path

import pytest
from tests.skips import not_root

from wvs.postgres import server_user as module
from wvs.postgres.errors import EmbeddedPostgresFailed
from wvs.postgres.server_user import ServerUser, server_user

_ME = pwd.getpwuid(os.geteuid())


def _no_user_named(*names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pwd.getpwnam

    def getpwnam(name: str) -> pwd.struct_passwd:
        if name in names:
            raise KeyError(name)
        return known("nobody") if name == "postgres" else known(name)

    monkeypatch.setattr(module.pwd, "getpwnam", getpwnam)


def test_an_ordinary_user_runs_the_server_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(module.os, "geteuid", lambda: nobody.pw_uid)
    user = server_user(tmp_path / "postgres")
    assert user == ServerUser(name="nobody", uid=nobody.pw_uid, gid=nobody.pw_gid, drops_root=False)
    assert user.command(["initdb", "-V"], [tmp_path]) == ["initdb", "-V"]


def test_a_user_id_without_a_name_is_refused_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.os, "geteuid", lambda: 54321)
    with pytest.raises(EmbeddedPostgresFailed, match=r"54321 .* WVS_DATABASE_URL"):
        server_user(tmp_path)


def test_root_gives_a_new_cluster_to_postgres_or_else_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    _no_user_named(monkeypatch=monkeypatch)
    assert server_user(tmp_path / "new").name == "postgres"
    _no_user_named("postgres", monkeypatch=monkeypatch)
    assert server_user(tmp_path / "new").name == "nobody"
    _no_user_named("postgres", "nobody", monkeypatch=monkeypatch)
    with pytest.raises(EmbeddedPostgresFailed, match="run WVS as another user"):
        server_user(tmp_path / "new")


@pytest.mark.skipif(os.geteuid() != 0, reason=not_root("giving files away"))
def test_root_runs_an_existing_cluster_as_its_owner(tmp_path: Path):
    daemon = pwd.getpwnam("daemon")
    os.chown(tmp_path, daemon.pw_uid, daemon.pw_gid)
    assert server_user(tmp_path).name == "daemon"
