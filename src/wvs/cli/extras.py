"""The extras of this distribution (pyproject.toml): what a program says if the packages of one are not installed."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

Extra = Literal["server", "up", "ui"]


class MissingExtra(Exception):
    """`program` cannot run, because `module`, a package of `extra`, is not installed. The text says what to install."""

    def __init__(self, program: str, extra: Extra, module: str) -> None:
        super().__init__(f"{program} needs the {extra} extra: pip install 'wvs[{extra}]' (no module named {module})")


@contextmanager
def needs(program: str, extra: Extra) -> Generator[None]:
    """For the imports of `program`: raises `MissingExtra` if a package that they need is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "wvs"):
            raise  # not a package that an extra installs: a defect
        raise MissingExtra(program, extra, module) from error


def require_module(program: str, extra: Extra, module: str) -> None:
    """Raises `MissingExtra` if `module`, which `program` does not import itself, is not installed."""
    if find_spec(module) is None:
        raise MissingExtra(program, extra, module)
