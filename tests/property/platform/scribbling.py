"""Changes of a live tree as an agent makes them. Each is atomic, so that a clone has either all of it or nothing."""

import os
from pathlib import Path

OPERATIONS = ("write", "append", "remove", "link", "symlink", "directory", "mode")


def scribble(live: Path, workshop: Path, operation: str, pick: int, content: bytes) -> None:
    """Makes one change in the tree at `live`. `workshop` is a directory on the same file system, outside every tree."""
    places = [live, *sorted(p for p in live.iterdir() if p.is_dir() and not p.is_symlink())]
    files = sorted(p for p in live.rglob("*") if p.is_file() and not p.is_symlink())
    place = places[pick % len(places)]
    new = place / f"f{pick % 7}"
    match operation:
        case "append" if files:
            with files[pick % len(files)].open("ab") as file:
                file.write(content)
        case "remove" if files:
            files[pick % len(files)].unlink()
        case "link" if files and not os.path.lexists(new):
            os.link(files[pick % len(files)], new)
        case "symlink" if not os.path.lexists(new):
            os.symlink(f"../{pick}", new)
        case "directory" if not os.path.lexists(live / f"d{pick % 3}"):
            os.mkdir(live / f"d{pick % 3}")
        case "mode" if files:
            os.chmod(files[pick % len(files)], 0o600 | pick % 64)
        case _:
            finished = workshop / "finished"
            finished.write_bytes(content)
            os.rename(finished, new)
