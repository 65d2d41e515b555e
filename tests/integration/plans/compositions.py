"""Every query that the program composes from fragments."""

from typing import Any, cast

from wvs.eventlog.reading import filtered_log
from wvs.postgres.queries import Composed
from wvs.projections import listings


def compositions() -> list[Composed]:
    """All of them, each once."""
    found: list[Composed] = []
    for module in (listings, filtered_log):
        for constant in vars(module).values():
            values = cast("dict[Any, Any]", constant).values() if isinstance(constant, dict) else [constant]
            found += [value for value in values if isinstance(value, Composed)]
    return list({composed.sql: composed for composed in found}.values())
