"""The tables of a Markdown page, and the constants of the sources, so that a test can compare them."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = ROOT / "src"

Number = int | float


def table(page: str, *header: str) -> list[list[str]]:
    """The rows of the one table of `docs/<page>` with this header; raises `LookupError` unless there is exactly one."""
    found = [rows for columns, rows in _tables((ROOT / "docs" / page).read_text()) if columns == list(header)]
    if len(found) != 1:
        raise LookupError(f"docs/{page} has {len(found)} tables with the header {header}")
    return found[0]


def codes(cell: str) -> list[str]:
    """The texts in backticks in a cell."""
    return re.findall(r"`([^`]*)`", cell)


def module_with(text: str) -> ModuleType:
    """The one module of the sources that contains `text`; raises `LookupError` unless there is exactly one."""
    found = [path for path in sorted(_SOURCES.rglob("*.py")) if text in path.read_text()]
    if len(found) != 1:
        raise LookupError(f"{len(found)} modules contain {text!r}")
    return importlib.import_module(".".join(found[0].relative_to(_SOURCES).with_suffix("").parts))


def constants() -> dict[str, set[Number]]:
    """Every numeric constant of the sources, of a module or, as `Class.field`, of a class."""
    values: dict[str, set[Number]] = {}
    for path in sorted(_SOURCES.rglob("*.py")):
        module = ast.parse(path.read_text())
        for name, value in _assigned(module.body, ""):
            values.setdefault(name, set()).add(value)
    return values


def _tables(page: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    lines = [*page.splitlines(), ""]
    start = 0
    for n, line in enumerate(lines):
        if line.startswith("|"):
            continue
        if n - start > 2:
            header, _rule, *rows = (_cells(row) for row in lines[start:n])
            yield header, rows
        start = n + 1


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _assigned(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Number]]:
    for statement in body:
        match statement:
            case ast.ClassDef(name=name, body=inner):
                yield from _assigned(inner, f"{name}.")
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                number = _number(value)
                if number is not None:
                    yield prefix + name, number
            case _:
                pass


def _number(value: ast.expr) -> Number | None:
    match value:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = _number(left), _number(right)
            return None if one is None or other is None else one * other
        case _:
            return None
