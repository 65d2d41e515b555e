"""Servers that are started in a live tree, as their users start them."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.agent.conftest import Service
from tests.skips import need_program

from wvs.postgres.embedded import embedded_binaries
from wvs.postgres.server_user import server_user

_START_POSTGRES = """
BIN={binaries} SOCKETS={sockets}
if [ ! -d data ]; then
    mkdir -m 700 data && chown {owner} data && {as_user} "$BIN/initdb" -A trust -U wvs data >&2 || exit 3
fi
{as_user} "$BIN/pg_ctl" -D data -l "$SOCKETS/log" -w -o "-k $SOCKETS -c listen_addresses=" start >&2 || exit 4
"""

_RUN_LOAD = """
TABLE='create table ledger (id serial primary key, payload text); create index on ledger (payload)'
SQL='insert into ledger (payload) select repeat(md5(random()::text), 20) from generate_series(1, 20)'
psql() {{ "$BIN/psql" -qAt -h "$SOCKETS" -U wvs -d postgres -c "$1"; }}
[ -s "$SOCKETS/committed" ] || psql "$TABLE"
echo up
while [ ! -e stop ]; do
    psql "$SQL"
    psql 'select max(id) from ledger' > "$SOCKETS/committed.new" && mv "$SOCKETS/committed.new" "$SOCKETS/committed"
done
{as_user} "$BIN/pg_ctl" -D data -w -m fast stop >&2
"""


class Postgres:
    """A PostgreSQL with its data directory in the live tree, which runs as another user than root.

    `script` starts it as a daemon, so that its parent ends at once; then inserts rows until a file `stop` is there.
    """

    def __init__(self, sockets: Path) -> None:
        user = server_user(Path("no data"))
        as_user: list[str] = []
        if user.drops_root:
            as_user = [need_program("setpriv"), "--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups"]
            os.chown(sockets, user.uid, user.gid)
        self._sockets = sockets
        self.progress = sockets / "committed"
        self._binaries = embedded_binaries()
        self.script = (_START_POSTGRES + _RUN_LOAD).format(
            binaries=shlex.quote(str(self._binaries)),
            sockets=sockets,
            owner=f"{user.uid}:{user.gid}",
            as_user=shlex.join(as_user),
        )

    def query(self, statement: str) -> str:
        """The answer of the running server."""
        return self._run("psql", "-qAt", "-d", "postgres", "-c", statement)

    def check(self) -> None:
        """Verifies every table against each of its indexes with pg_amcheck. Raises if it finds a fault."""
        self._run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--on-error-stop")

    def log(self) -> str:
        """What the server has written to its log."""
        return (self._sockets / "log").read_text()

    def _run(self, program: str, *arguments: str) -> str:
        command = [self._binaries / program, "-h", self._sockets, "-U", "wvs", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


@contextmanager
def postgres_for(service: Service) -> Iterator[Postgres]:
    """A PostgreSQL for the live tree of a service. Its user may reach the tree, and its sockets have a short path."""
    for directory in (service.platform.volume, service.platform.volume.parent):
        directory.chmod(0o711)
    with tempfile.TemporaryDirectory(prefix="wvs-pg-", dir="/tmp") as sockets:
        yield Postgres(Path(sockets))
