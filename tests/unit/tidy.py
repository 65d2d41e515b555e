"""What the tidy test looks for: long files and functions, phrases that the style bans, dead dependencies, old shims."""

import ast
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
LONGEST_FILE: Final = 400
LONGEST_FUNCTION: Final = 60

BANNED_PHRASES: Final[Mapping[str, str]] = {
    r"\b(?:make|makes|making|made) anew\b": "say create, recreate, rebuild or reconnect",
    r"\bin words\b": "say what the message contains",
    r"\b(?:is|are) (?-i:none)\b": "say that there is no such thing, or that it is not valid",
    r"\b(?:tells|told|tell) of\b": "say reports, is notified of, lists",
    r"\b(?:stands?|stood|standing) still\b": "say is stopped or is frozen",
    r"\b(?:lets?|letting) go(?: of)?\b": "say releases, resumes or ends",
    r"\b(?:mend|mends|mended|mending)\b": "say repair or fix",
    r"\b(?:was|is|are|were) heard of\b": "say has sent a request or renewed its lease",
    r"\bof two that\b": "say which of the two",
    r"\b(?:hears?|heard)\b": "say receives a request, or is notified",
    r"\b(?:break|breaks|broke|broken) off\b": "say was interrupted, or failed",
    r"\b(?:come|comes|came) up\b": "say starts or is ready",
    r"\b(?:became|becomes|become) of\b": "say outcome or result",
    r"\bsigns? of life\b": "say heartbeat, or names what is renewed",
}
"""Regular expressions of phrases that readers had to read twice, and what to write instead (docs: CONTRIBUTING.md)."""

_PROSE: Final = frozenset({".py", ".md", ".sql", ".toml", ".yaml", ".txt", ".sh", ""})
_SHIM: Final = re.compile(r"[Ss]him for peers before (\d+)\.(\d+)\.(\d+); remove after (\d+)\.(\d+)\.(\d+)\.")
_ANY_SHIM: Final = re.compile(r"\bshims? for\b", re.IGNORECASE)


class Fault(NamedTuple):
    """One thing to tidy."""

    place: str
    problem: str


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository that match, new ones included, as paths below ROOT."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def long_parts(name: str, source: str) -> Iterator[Fault]:
    """The file if it is too long, and every function that is."""
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        yield Fault(name, f"{lines} lines, at most {LONGEST_FILE}: make it two files")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield Fault(f"{name}:{node.lineno}", f"{node.name} has {length} lines, at most {LONGEST_FUNCTION}")


def spans_of_the_wall_clock(name: str, source: str) -> Iterator[Fault]:
    """Durations in Python that two readings of the wall clock would give."""
    advice = "the wall clock may be set meanwhile: subtract times of time.monotonic, or use executor/stopwatch.py"
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="total_seconds" | "timestamp" as attribute)):
                yield Fault(f"{name}:{node.lineno}", f"{attribute}(): {advice}")
            case ast.Attribute(value=ast.Name(id="time"), attr="time" | "time_ns" as attribute):
                yield Fault(f"{name}:{node.lineno}", f"time.{attribute}: {advice}")
            case ast.ImportFrom(module="time", names=names) if {"time", "time_ns"} & {each.name for each in names}:
                yield Fault(f"{name}:{node.lineno}", f"time.time: {advice}")
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                if (_is_now(left) and not _is_timedelta(right)) or _is_now(right):
                    yield Fault(f"{name}:{node.lineno}", f"a difference to now: {advice}")
            case _:
                pass


def _is_now(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="datetime"), attr="now" | "utcnow")):
            return True
        case _:
            return False


def _is_timedelta(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "timedelta"


def unbounded_ages(name: str, text: str) -> Iterator[Fault]:
    """Ages in SQL that are negative after the clock of the database was set back."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"extract\s*\(\s*epoch", line, re.IGNORECASE) and not re.search(
            r"greatest\s*\(\s*extract\s*\(\s*epoch.*,\s*0\)", line, re.IGNORECASE
        ):
            yield Fault(f"{name}:{number}", "the clock of the database may be set back: greatest(extract(epoch …), 0)")


def banned_phrases(name: str, text: str) -> Iterator[Fault]:
    """Every banned phrase, also where a line break or a comment sign divides it."""
    for pattern, advice in BANNED_PHRASES.items():
        spaced = pattern.replace(" ", r"(?:[ \t]*\n[ \t]*(?:#|--|>)?[ \t]*| )")
        for match in re.finditer(spaced, text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            yield Fault(f"{name}:{line}", f"{match[0]!r}: {advice}")


def is_prose(path: Path) -> bool:
    """Whether people read the file: code, documents, SQL and settings, not data or pictures."""
    return path.suffix in _PROSE


def imported_modules(sources: Mapping[str, str]) -> set[str]:
    """The top-level names that these modules import."""
    found: set[str] = set()
    for source in sources.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def overdue_shims(name: str, text: str, version: tuple[int, ...]) -> Iterator[Fault]:
    """Shims for older peers that do not say when they go, or should have gone with this version."""
    for number, line in enumerate(text.splitlines(), 1):
        stated = _SHIM.search(line)
        if stated is None:
            if _ANY_SHIM.search(line):
                yield Fault(f"{name}:{number}", "write: Shim for peers before X.Y.Z; remove after X.Y.Z.")
            continue
        last = tuple(int(part) for part in stated.groups()[3:])
        if version > last:
            yield Fault(f"{name}:{number}", f"this shim was to go after {'.'.join(map(str, last))}")
