"""`wvs runbook`: the pages for operators, in a wheel (`wvs/_runbooks`) and in a checkout (`runbooks`)."""

import sys
from pathlib import Path
from typing import Final

import wvs
from wvs.cli.wvs.exits import EXIT_USAGE

_PACKAGE: Final = Path(wvs.__file__).resolve().parent


def runbooks() -> dict[str, Path]:
    """The pages by name; raises `FileNotFoundError` if the installation lacks them."""
    for directory in (_PACKAGE / "_runbooks", _PACKAGE.parents[1] / "runbooks"):
        if pages := {page.stem: page for page in sorted(directory.glob("*.md"))}:
            return pages
    raise FileNotFoundError("this installation of wvs lacks its runbooks")


def run_runbook(name: str | None) -> int:
    """Prints one page, or the names and titles of all."""
    pages = runbooks()
    if name is None:
        for each, page in pages.items():
            sys.stdout.write(f"{each:18} {_title(page)}\n")
        return 0
    if name not in pages:
        sys.stderr.write(f"wvs: there is no runbook {name!r}; these exist: {', '.join(pages)}\n")
        return EXIT_USAGE
    sys.stdout.write(pages[name].read_text(encoding="utf-8"))
    return 0


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
