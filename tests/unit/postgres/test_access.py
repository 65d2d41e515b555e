import ssl

import asyncpg
import pytest
from structlog.testing import capture_logs

from wvs.postgres import access
from wvs.postgres.access import reason_of, when_reachable
from wvs.postgres.errors import InvalidDatabaseUrl, ReadOnlyDatabase, UnfitDatabase


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_RETRY_S", 0)


class Attempts:
    """Fails with each error in turn, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> int:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.made


AWAY = (
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("sorry, too many clients already"),
    ConnectionRefusedError("refused"),
    TimeoutError(),
    asyncpg.TargetServerAttributeNotMatched("none of the hosts"),
    ReadOnlyDatabase("a standby", "promote it"),
)


async def test_whatever_passes_by_itself_is_waited_for_and_said_once():
    reasons: list[str] = []
    with capture_logs() as logs:
        assert await when_reachable(Attempts(*AWAY), 60, reasons.append) == len(AWAY) + 1
    assert reasons == [reason_of(error) for error in AWAY]
    assert [line["event"] for line in logs] == ["waiting_for_database", "database_reached"]


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InvalidPasswordError("password authentication failed"),
        asyncpg.InvalidCatalogNameError("no such database"),
        ssl.SSLCertVerificationError("self-signed"),
        InvalidDatabaseUrl("no URL"),
        UnfitDatabase("DATABASE_ENCODING", "LATIN1", "make another"),
        ValueError("a bug"),
    ],
)
async def test_what_only_a_person_can_mend_is_not_waited_for(error: Exception):
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        await when_reachable(attempts, 60)
    assert attempts.made == 1


@pytest.mark.parametrize("error", AWAY)
async def test_without_a_wait_the_first_error_counts(error: Exception):
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        await when_reachable(attempts, 0)
    assert attempts.made == 1
