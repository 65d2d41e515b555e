"""How a command's failure is told: one sentence, a hint where there is one, and an exit code."""

import sys

import asyncpg

from wvs.domain.errors import Refused
from wvs.engines.errors import EngineError
from wvs.eventlog.codec import UnknownEventError
from wvs.eventlog.reading.follower import SequenceBehindError
from wvs.executor.volume_sweep import RestoredDatabaseError
from wvs.http.server import RemoteAddressError
from wvs.postgres.availability import CONNECTION_LOST
from wvs.postgres.errors import DatabaseSetupError
from wvs.projections.rebuild import RebuildRunsError, SchemaChangedError, SwapBlockedError
from wvs.projections.replaying import PoisonedEventError
from wvs.settings import InvalidSetting

EXIT_FAILURE = 1
EXIT_USAGE = 2

_OURS = (
    DatabaseSetupError,
    RebuildRunsError,
    RestoredDatabaseError,
    SchemaChangedError,
    SequenceBehindError,
    SwapBlockedError,
    UnknownEventError,
)
_SCHEMA_LACKS = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
_POISONED_HINT = (
    "The live tables are untouched. If a newer release wrote the event, use that release; "
    "else read: wvs runbook poisoned-event"
)


def report(failure: Exception) -> int:
    """The exit code for what ended a command, once it is told on stderr; what is not known is raised again."""
    match failure:
        case ExceptionGroup():
            return report(failure.exceptions[0])
        case InvalidSetting() | RemoteAddressError():
            return _tell(str(failure), "", EXIT_USAGE)
        case EngineError() | Refused():
            return _tell(f"{failure.code}: {failure.detail}", failure.hint, EXIT_FAILURE)
        case PoisonedEventError():
            return _tell(str(failure), _POISONED_HINT, EXIT_FAILURE)
        case _ if isinstance(failure, _OURS):
            return _tell(str(failure), "", EXIT_FAILURE)
        case _ if isinstance(failure, _SCHEMA_LACKS):
            return _tell(f"The database lacks this release's schema ({failure}).", "Run wvs migrate.", EXIT_FAILURE)
        case _ if isinstance(failure, (*CONNECTION_LOST, asyncpg.PostgresError)):
            what = f"{type(failure).__name__}: {failure}"
            return _tell(what, "See WVS_DATABASE_URL, and that the server runs.", EXIT_FAILURE)
        case _:
            raise failure


def _tell(what: str, hint: str, code: int) -> int:
    sys.stderr.write(f"wvs: {what}\n" + (f"     {hint}\n" if hint else ""))
    return code
