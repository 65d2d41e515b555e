"""Prints `architecture.svg`: what a request and a task pass through; `make docs` writes it to the file.

Drawn by hand in numbers, because a layout program would be one more thing to install and would move everything at each
change. The same input always gives the same bytes, so that a test can compare them with the file.
"""

import sys
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 1200
HEIGHT: Final = 1010

_FONT: Final = "'DejaVu Sans', Verdana, Arial, sans-serif"
_INK: Final = "#1f2933"
_REQUEST: Final = "#1d5fbf"
_TASK: Final = "#b3510b"

Point = tuple[int, int]


class Box(NamedTuple):
    """A part of a process, or of the database: its name and one or two lines on what it does."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str] = ()


class Zone(NamedTuple):
    """What runs, or lies, in one place; `title_at` is the title's distance from its left border."""

    x: int
    y: int
    width: int
    height: int
    title: str
    fill: str
    title_at: int = 14


class Arrow(NamedTuple):
    """A path with an arrowhead at its end. `number` names its steps, `at` is where that is written."""

    points: Sequence[Point]
    color: str
    number: str = ""
    at: Point = (0, 0)
    dashed: bool = False


ZONES: Final = (
    Zone(20, 20, 250, 590, "Agents' hosts", "#eef5ee"),
    Zone(320, 20, 250, 590, "API process: wvs api", "#eaf1fb"),
    Zone(630, 20, 240, 590, "PostgreSQL: commit point", "#f3eefb"),
    Zone(930, 20, 250, 590, "Executor: wvs executor", "#fdf1e6"),
    Zone(20, 650, 1160, 110, "Volume: one filesystem, one clone engine", "#f4f4f0", 225),
)

BOXES: Final = (
    Box(40, 62, 210, 62, "client", ("wvsctl, or any HTTP client",)),
    Box(40, 400, 210, 82, "wvsctl agent run", ("or wvs.agent: session, token,", "freezer, flush")),
    Box(40, 530, 210, 58, "the agent's program", ("unmodified, in a cgroup",)),
    Box(340, 56, 210, 70, "edge", ("host, bounds, request id,", "problems, access log")),
    Box(340, 158, 210, 62, "handler", ("one file per resource",)),
    Box(340, 254, 210, 62, "write path", ("decide, evolve, react, project",)),
    Box(340, 400, 210, 82, "live", ("directives of sessions,", "waits, event streams")),
    Box(655, 78, 190, 56, "event log", ("hash chain, one position",)),
    Box(655, 146, 190, 56, "read models", ("workspaces, snapshots, …",)),
    Box(655, 214, 190, 102, "lanes and queue", ("head task, fence, lease,", "link pending")),
    Box(655, 400, 190, 82, "sessions and freezes", ("required set, answers",)),
    Box(950, 78, 210, 56, "write path", ("the same code, under the fence",)),
    Box(950, 236, 210, 62, "slot", ("lock, lease, claim watch",)),
    Box(950, 330, 210, 46, "operation", ("init, create, set, drop",)),
    Box(950, 412, 210, 58, "freeze", ("opened, confirmed, closed",)),
    Box(950, 530, 210, 58, "engine and volume", ("stamp, clone, sync, retire",)),
    Box(40, 690, 320, 54, "live tree", ("live/root, the same path for ever",)),
    Box(440, 690, 320, 54, "snapshots", ("trees/<name>/root, closed and sealed",)),
    Box(840, 690, 320, 54, "trash and quarantine", ("removed later; kept for a person",)),
)

TRANSACTION: Final = (641, 54, 218, 274)
"""The part of the database that one command changes together."""

ARROWS: Final = (
    Arrow(((250, 82), (340, 82)), _REQUEST, "1", (295, 82)),
    Arrow(((340, 108), (250, 108)), _REQUEST, "5", (295, 108)),
    Arrow(((445, 126), (445, 158)), _REQUEST, "2", (470, 141)),
    Arrow(((445, 220), (445, 254)), _REQUEST, "2", (470, 237)),
    Arrow(((550, 285), (641, 285)), _REQUEST, "3", (597, 285)),
    Arrow(((845, 250), (950, 250)), _REQUEST, "4", (900, 250), dashed=True),
    Arrow(((950, 282), (845, 282)), _TASK, "6", (900, 282)),
    Arrow(((1055, 298), (1055, 330)), _TASK),
    Arrow(((1160, 353), (1170, 353), (1170, 106), (1160, 106)), _TASK),
    Arrow(((950, 106), (859, 106)), _TASK, "6 12", (904, 106)),
    Arrow(((1055, 376), (1055, 412)), _TASK),
    Arrow(((950, 428), (845, 428)), _TASK, "7 11", (899, 428)),
    Arrow(((845, 458), (950, 458)), _TASK, "9 11", (899, 458), dashed=True),
    Arrow(((655, 428), (550, 428)), _TASK, "8 11", (602, 428), dashed=True),
    Arrow(((550, 458), (655, 458)), _TASK, "9 11", (602, 458)),
    Arrow(((340, 428), (250, 428)), _TASK, "8 11", (295, 428)),
    Arrow(((250, 458), (340, 458)), _TASK, "9 11", (295, 458)),
    Arrow(((145, 482), (145, 530)), _TASK, "8", (172, 506)),
    Arrow(((145, 588), (145, 690)), _INK),
    Arrow(((40, 441), (28, 441), (28, 717), (40, 717)), _TASK, "9", (28, 630)),
    Arrow(((1055, 470), (1055, 530)), _TASK, "10", (1085, 500)),
    Arrow(((1000, 588), (1000, 628), (600, 628), (600, 690)), _TASK, "10 12", (800, 628)),
    Arrow(((965, 588), (965, 606), (215, 606), (215, 690)), _TASK, "13", (600, 606)),
    Arrow(((1110, 588), (1110, 690)), _TASK, "13", (1110, 632)),
)

REQUEST_STEPS: Final = (
    ("1", "The client sends the request, a write with its idempotency key."),
    ("2", "Edge and handler check it; the write path decides on the cached workspace."),
    ("3", "One transaction: events, rows, queue, idempotent answer."),
    ("4", "After the commit a hint wakes an executor; it also polls."),
    ("5", "The API answers 202; with Prefer: wait, when the task is final."),
)

TASK_STEPS: Final = (
    ("6", "A slot claims the lane, raises the fence, and commits task.started."),
    ("7", "The executor opens a freeze and fixes the required set."),
    ("8", "Each session gets the directive freeze and stops its program."),
    ("9", "It flushes to the volume and answers frozen with its token."),
    ("10", "The executor stamps the source, clones it, and stamps it again."),
    ("11", "Each session is asked again and confirms that it stayed frozen."),
    ("12", "The clone is synced; one transaction under the fence names its tree."),
    ("13", "After the event the path follows by an exchange, and obsolete trees go to the trash."),
)


def picture() -> str:
    """The whole of `architecture.svg`."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="{_FONT}">',
            "<title>What a request and a task pass through in WVS</title>",
            *_markers(),
            _rectangle((0, 0, WIDTH, HEIGHT), 0, "#ffffff", "none"),
            *(line for zone in ZONES for line in _zone(zone)),
            *_transaction(),
            *(line for box in BOXES for line in _box(box)),
            *(_path(arrow) for arrow in ARROWS),
            *(line for arrow in ARROWS if arrow.number for line in _badge(arrow.number, arrow.at, arrow.color)),
            *_legend(40, "A request", REQUEST_STEPS, _REQUEST),
            *_legend(600, "A task", TASK_STEPS, _TASK),
            "</svg>",
            "",
        ]
    )


def _markers() -> list[str]:
    heads = [
        f'<marker id="{_head(color)}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{color}"/></marker>'
        for color in (_REQUEST, _TASK, _INK)
    ]
    return ["<defs>", *heads, "</defs>"]


def _head(color: str) -> str:
    return "head-" + color.removeprefix("#")


def _zone(zone: Zone) -> list[str]:
    return [
        _rectangle(zone[:4], 10, zone.fill, "#c9ced6"),
        _text(zone.x + zone.title_at, zone.y + 24, zone.title, size=13, weight="bold", fill="#52606d"),
    ]


def _transaction() -> list[str]:
    x, y, width, height = TRANSACTION
    return [
        _rectangle(TRANSACTION, 8, "none", "#7b5ea7", ' stroke-width="1.5" stroke-dasharray="5 4"'),
        _text(x + width // 2, y + height + 17, "one transaction per command", size=12, fill="#6b4f97", anchor="middle"),
    ]


def _box(box: Box) -> list[str]:
    center = box.x + box.width // 2
    top = box.y + (box.height - 17 * len(box.lines) - 18) // 2 + 15
    return [
        _rectangle(box[:4], 6, "#ffffff", "#7b8794"),
        _text(center, top, box.title, size=14, weight="bold", anchor="middle"),
        *(_text(center, top + 17 * n, line, size=12, anchor="middle") for n, line in enumerate(box.lines, 1)),
    ]


def _path(arrow: Arrow) -> str:
    points = "L".join(f"{x} {y}" for x, y in arrow.points)
    dash = ' stroke-dasharray="6 4"' if arrow.dashed else ""
    return (
        f'<path d="M{points}" fill="none" stroke="{arrow.color}" stroke-width="1.8"{dash} '
        f'marker-end="url(#{_head(arrow.color)})"/>'
    )


def _badge(number: str, at: Point, color: str) -> list[str]:
    width = 12 + 8 * len(number)
    x, y = at
    return [
        _rectangle((x - width // 2, y - 10, width, 20), 10, color, "#ffffff"),
        _text(x, y + 4, number, size=12, weight="bold", fill="#ffffff", anchor="middle"),
    ]


def _legend(x: int, title: str, steps: Sequence[tuple[str, str]], color: str) -> list[str]:
    lines = [_text(x, 796, title, size=14, weight="bold", fill=color)]
    for n, (number, text) in enumerate(steps):
        y = 821 + 22 * n
        lines += [*_badge(number, (x + 13, y - 4), color), _text(x + 36, y, text, size=12)]
    return lines


def _rectangle(frame: tuple[int, int, int, int], radius: int, fill: str, stroke: str, more: str = "") -> str:
    x, y, width, height = frame
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" stroke="{stroke}"{more}/>'
    )


def _text(
    x: int, y: int, text: str, *, size: int, weight: str = "normal", fill: str = _INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(text, quote=False)}</text>'
    )


if __name__ == "__main__":
    sys.stdout.write(picture())
