"""How a command's failure is told: one sentence, a hint where there is one, and an exit code."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import asyncpg
from cyclopts import CycloptsError

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
EXIT_INTERRUPTED = 130

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
    "else see runbooks/poisoned-event.md."
)


def told(call: Callable[[], Any]) -> int:
    """The exit code of `call`, whose known failures are told on stderr; a defect keeps its traceback."""
    try:
        code = call()
    except CycloptsError:
        return EXIT_USAGE  # told by cyclopts
    except (InvalidSetting, RemoteAddressError) as error:
        return _tell(str(error), "", EXIT_USAGE)
    except ExceptionGroup as group:
        return told(partial(_raise, group.exceptions[0]))
    except (EngineError, Refused) as error:
        return _tell(f"{error.code}: {error.detail}", error.hint, EXIT_FAILURE)
    except PoisonedEventError as error:
        return _tell(str(error), _POISONED_HINT, EXIT_FAILURE)
    except _OURS as error:
        return _tell(str(error), "", EXIT_FAILURE)
    except _SCHEMA_LACKS as error:
        return _tell(f"The database lacks this release's schema ({error}).", "Run wvs migrate.", EXIT_FAILURE)
    except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
        return _tell(
            f"{type(error).__name__}: {error}", "See WVS_DATABASE_URL, and that the server runs.", EXIT_FAILURE
        )
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _raise(error: Exception) -> None:
    raise error


def _tell(what: str, hint: str, code: int) -> int:
    sys.stderr.write(f"wvs: {what}\n" + (f"     {hint}\n" if hint else ""))
    return code
