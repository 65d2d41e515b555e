"""Finds what the texts of the repository cite, and reports every citation of something that does not exist.

A citation is `design §7, step 3` (a heading of docs/design.md, or a numbered step under it), `rule 4` (a step of
design §3), `ADR 0011`, a path below docs/ or runbooks/ with or without `#anchor`, the name of a document or of a
migration, and every relative link of a Markdown page. A `§` that follows neither `design` nor an RFC names no document,
and is reported too.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_ROOTS: Final = ("src", "tests", "db", "docs", "runbooks", "benchmarks", "compose")
_SUFFIXES: Final = frozenset({".py", ".sql", ".md", ".toml", ".yaml", ".txt", ".sh"})
_DESIGN: Final = "docs/design.md"
_ITS_OWN: Final = frozenset({_DESIGN, "docs/architecture.md"})
"""Pages in which a bare `§` is one of the design."""

_PLANTED: Final = "tests/unit/test_citations.py"
"""Plants bad citations of its own."""

# Between two words of a comment that was broken into lines.
_GAP: Final = r"(?:\s|#|--)*"
_SECTION: Final = re.compile(rf"§(?P<section>\d+(?:\.\d+)*)(?:,{_GAP}step{_GAP}(?P<step>\d+))?")
_AFTER_DESIGN: Final = re.compile(rf"\bdesign{_GAP}(?:§[\d.]+(?:, step \d+)?(?:,|;| and|){_GAP})*$", re.IGNORECASE)
_AFTER_RFC: Final = re.compile(r"\bRFC \d+,? $")
_RULE: Final = re.compile(rf"\brule{_GAP}(?P<rule>\d+)\b")
_ADR: Final = re.compile(r"\bADR (?P<number>\d{4})|\badr/(?P<name>\d{4}-[\w-]+)")
_PATH: Final = re.compile(r"(?<![\w./-])(?P<path>(?:docs|runbooks)/[\w./-]+\.(?:md|svg|py))(?:#(?P<anchor>[\w-]+))?")
_NAME: Final = re.compile(r"(?<![\w./-])(?P<name>[A-Za-z][\w-]*\.md)\b")
_MIGRATION: Final = re.compile(r"\b\d{14}_\w+\.sql\b")
_LINK: Final = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
_HEADING: Final = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


class Citation(NamedTuple):
    """A citation, its place, and the reason why its target does not exist; `fault` is empty if the target exists."""

    file: str
    line: int
    text: str
    fault: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text!r}: {self.fault}"


class Repository:
    """The text files below `root` that people read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sections = sections_of((root / _DESIGN).read_text(encoding="utf-8"))
        self._documents = {path.name for path in (*root.glob("*.md"), *root.glob("*/**/*.md"), *root.glob("*/*.md"))}

    def citations(self) -> Iterator[Citation]:
        """Every citation, good or not."""
        for path in self._files():
            file = path.relative_to(self.root).as_posix()
            text = path.read_text(encoding="utf-8")
            for match, fault in self._found(file, text):
                yield Citation(file, text.count("\n", 0, match.start()) + 1, match[0], fault)

    def broken(self) -> list[str]:
        """The citations whose target does not exist."""
        return [str(citation) for citation in self.citations() if citation.fault]

    def _files(self) -> Iterator[Path]:
        for path in sorted(self.root.iterdir()):
            if path.is_file() and (path.suffix in {".md", ".toml"} or path.name == "Makefile"):
                yield path
        for name in _ROOTS:
            found = sorted((self.root / name).rglob("*"))
            yield from (path for path in found if self._is_text(path))

    def _is_text(self, path: Path) -> bool:
        return path.suffix in _SUFFIXES and path.is_file() and path != self.root / _PLANTED

    def _found(self, file: str, text: str) -> Iterator[tuple[re.Match[str], str]]:
        checks: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]]] = [
            (_SECTION, lambda match: self._section(file, text, match)),
            (_RULE, lambda match: self._step("3", match["rule"])),
            (_ADR, lambda match: self._adr(match["name"] or match["number"])),
            (_PATH, lambda match: self._target(self.root / match["path"], match["anchor"])),
            (_NAME, lambda match: None if match["name"] in self._documents else "there is no such document"),
        ]
        if not file.startswith("tests/"):  # tests make migrations of their own
            checks.append((_MIGRATION, lambda match: self._target(self.root / "db/migrations" / match[0], None)))
        if file.endswith(".md"):
            checks.append((_LINK, lambda match: self._link(file, match)))
        for pattern, check in checks:
            for match in pattern.finditer(text):
                fault = check(match)
                if fault != _NOT_OURS:
                    yield match, fault or ""

    def _section(self, file: str, text: str, match: re.Match[str]) -> str | None:
        before = text[max(0, match.start() - 120) : match.start()]
        if _AFTER_RFC.search(before):
            return _NOT_OURS
        if file not in _ITS_OWN and not _AFTER_DESIGN.search(before):
            return "it names no document; write design § or RFC NNNN §"
        return self._step(match["section"], match["step"])

    def _step(self, section: str, step: str | None) -> str | None:
        if step is not None:
            return None if step in self.sections.get(section, ()) else f"{_DESIGN} has no step {step} in §{section}"
        above, _, last = section.rpartition(".")
        if section in self.sections or last in self.sections.get(above, ()):
            return None
        return f"{_DESIGN} has no §{section}"

    def _adr(self, number: str) -> str | None:
        return None if list((self.root / "docs/adr").glob(f"{number}*.md")) else "there is no such decision"

    def _link(self, file: str, match: re.Match[str]) -> str | None:
        path = (self.root / file).parent / match["path"] if match["path"] else self.root / file
        return self._target(path, match["anchor"])

    def _target(self, path: Path, anchor: str | None) -> str | None:
        if not path.exists():
            return "there is no such file"
        if anchor is not None and anchor not in anchors_of(path.read_text(encoding="utf-8")):
            return f"{path.name} has no heading #{anchor}"
        return None


_NOT_OURS: Final = "not ours"


def sections_of(design: str) -> dict[str, set[str]]:
    """The numbered headings of the design, each with the numbers of the steps directly under it.

    Raises `ValueError` for a number that occurs twice: a citation of it could mean either.
    """
    sections: dict[str, set[str]] = {}
    steps: set[str] = set()
    for line in design.splitlines():
        if line.startswith("#"):
            steps = set()
            if numbered := re.match(r"#+ (\d+(?:\.\d+)*)\.? ", line):
                if numbered[1] in sections:
                    raise ValueError(f"the design has two sections {numbered[1]}")
                sections[numbered[1]] = steps
        elif step := re.match(r"(\d+)\. ", line):
            if step[1] in steps:
                raise ValueError(f"a section of the design has two steps {step[1]}: {line[:40]!r}")
            steps.add(step[1])
    return sections


def anchors_of(page: str) -> set[str]:
    """The anchors of a Markdown page, as GitHub makes them of its headings."""
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["title"]) for match in _HEADING.finditer(page))
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}
