"""Reports the failure of a command: one sentence, a hint if there is one, and an exit code."""

import sys

import asyncpg

from wvs.cli.wvs.child_process import announce_refusal
from wvs.cli.wvs.exits import EXIT_FAILURE, EXIT_USAGE
from wvs.domain.errors import Refused
from wvs.engines.errors import EngineError
from wvs.eventlog.codec import UnknownEventError
from wvs.eventlog.reading.follower import SequenceBehindError
from wvs.executor.volume_binding import ExecutorsConnectedError, WrongVolumeError
from wvs.executor.volume_sweep import RestoredDatabaseError
from wvs.postgres.access import reason_of
from wvs.postgres.availability import CONNECTION_LOST, is_unavailable
from wvs.postgres.errors import DatabaseSetupError, InvalidDatabaseUrl, ReadOnlyDatabase, UnfitDatabase
from wvs.projections.rebuild import RebuildRunsError, SchemaChangedError, SwapBlockedError
from wvs.projections.replaying import PoisonedEventError
from wvs.settings import InvalidSetting

_SELF_EXPLANATORY = (
    DatabaseSetupError,
    ExecutorsConnectedError,
    RebuildRunsError,
    RestoredDatabaseError,
    SchemaChangedError,
    SequenceBehindError,
    SwapBlockedError,
    UnknownEventError,
)
_SCHEMA_ERRORS = (
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
_POISONED_HINT = (
    "The live tables are unchanged. If a newer release wrote the event, use that release; "
    "otherwise read: wvs runbook poisoned-event"
)


def report(failure: Exception) -> int:
    """Reports a known failure on stderr and returns its exit code; raises an unknown one again, with its traceback."""
    match failure:
        case ExceptionGroup():
            return report(failure.exceptions[0])
        case InvalidSetting() | WrongVolumeError() | InvalidDatabaseUrl():
            announce_refusal(str(failure))
            return _report(str(failure), "", EXIT_USAGE)
        case ReadOnlyDatabase():
            return _report(f"{failure.code}: {failure.detail}.", failure.hint, EXIT_FAILURE)
        case UnfitDatabase():
            announce_refusal(str(failure))
            return _report(f"{failure.code}: {failure.detail}.", failure.hint, EXIT_USAGE)
        case EngineError() | Refused():
            return _report(f"{failure.code}: {failure.detail}", failure.hint, EXIT_FAILURE)
        case PoisonedEventError():
            return _report(str(failure), _POISONED_HINT, EXIT_FAILURE)
        case _ if isinstance(failure, _SELF_EXPLANATORY):
            return _report(str(failure), "", EXIT_FAILURE)
        case _ if isinstance(failure, _SCHEMA_ERRORS):
            return _report(
                f"The database does not have the schema of this release ({failure}).", "Run wvs migrate.", EXIT_FAILURE
            )
        case _ if isinstance(failure, (*CONNECTION_LOST, asyncpg.PostgresError)):
            what = reason_of(failure) if is_unavailable(failure) else f"{type(failure).__name__}: {failure}"
            return _report(what, "Check WVS_DATABASE_URL, and that the database server runs.", EXIT_FAILURE)
        case _:
            raise failure


def _report(message: str, hint: str, code: int) -> int:
    sys.stderr.write(f"wvs: {message}\n" + (f"     {hint}\n" if hint else ""))
    return code
