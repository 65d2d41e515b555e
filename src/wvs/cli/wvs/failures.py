"""Reports the failure of a command: one sentence, a hint if there is one, and an exit code."""

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
from wvs.postgres.errors import DatabaseSetupError
from wvs.projections.rebuild import RebuildRunsError, SchemaChangedError, SwapBlockedError
from wvs.projections.replaying import PoisonedEventError
from wvs.settings import InvalidSetting

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_SELF_EXPLANATORY = (
    DatabaseSetupError,
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
    "otherwise see runbooks/poisoned-event.md."
)


def run_and_report(call: Callable[[], Any]) -> int:
    """Calls `call` and returns its exit code. Prints a known failure on stderr; a defect keeps its traceback."""
    try:
        code = call()
    except CycloptsError:
        return EXIT_USAGE  # cyclopts has printed the message
    except (InvalidSetting, RemoteAddressError) as error:
        return _report(str(error), "", EXIT_USAGE)
    except ExceptionGroup as group:
        return run_and_report(partial(_raise, group.exceptions[0]))
    except (EngineError, Refused) as error:
        return _report(f"{error.code}: {error.detail}", error.hint, EXIT_FAILURE)
    except PoisonedEventError as error:
        return _report(str(error), _POISONED_HINT, EXIT_FAILURE)
    except _SELF_EXPLANATORY as error:
        return _report(str(error), "", EXIT_FAILURE)
    except _SCHEMA_ERRORS as error:
        return _report(
            f"The database does not have the schema of this release ({error}).", "Run wvs migrate.", EXIT_FAILURE
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return _report(
            f"{type(error).__name__}: {error}",
            "Check WVS_DATABASE_URL, and that the database server runs.",
            EXIT_FAILURE,
        )
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _raise(error: Exception) -> None:
    raise error


def _report(message: str, hint: str, code: int) -> int:
    sys.stderr.write(f"wvs: {message}\n" + (f"     {hint}\n" if hint else ""))
    return code
