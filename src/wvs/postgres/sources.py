"""Locates the SQL files: in the package of a wheel (`wvs/_db`), at the top of a checkout (`db`)."""

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parents[1]


def database_files(kind: str) -> Path:
    """The directory `db/<kind>`, for example `migrations`; raises `FileNotFoundError` if the installation lacks it."""
    for base in (_PACKAGE / "_db", _PACKAGE.parents[1] / "db"):
        if (base / kind).is_dir():
            return base / kind
    raise FileNotFoundError(f"this installation of wvs lacks its SQL files (db/{kind}); install wvs again")
