"""One run of the console: its options, its screen and the API it talks to; every command gets one."""

from functools import cached_property
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from msgspec import Struct

from wvs.cli.wvsctl.api.client import Client
from wvs.cli.wvsctl.api.failures import Declined, UsageFailure
from wvs.cli.wvsctl.api.transport import DEFAULT_URL, Transport
from wvs.cli.wvsctl.output.screen import Screen


class Options(Struct, frozen=True, kw_only=True):
    """The options of every command."""

    url: str = DEFAULT_URL
    as_json: bool = False
    actor: str | None = None
    no_wait: bool = False
    wait_timeout_s: float | None = None
    idempotency_key: str | None = None
    yes: bool = False


class Invocation:
    """What the commands work with."""

    def __init__(self, options: Options, screen: Screen) -> None:
        if options.no_wait and options.wait_timeout_s is not None:
            raise UsageFailure("--no-wait and --wait-timeout exclude each other")
        self.options = options
        self.screen = screen

    @cached_property
    def client(self) -> Client:
        """Connects when it is first used."""
        return Client(Transport(self.options.url), actor=self.options.actor, say=self.screen.say)

    def confirm(self, consequence: str) -> None:
        """Go on only with a person's yes, or `--yes`.

        Raises `Declined` for any other answer, and `UsageFailure` where nobody is there to answer.
        """
        if self.options.yes:
            return
        if not self.screen.is_interactive:
            raise UsageFailure(f"{consequence}, and nobody is here to ask", "say it is meant: --yes")
        print(f"{consequence}. Go on? [y/N] ", end="", file=self.screen.err, flush=True)
        try:
            answer = input()
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise Declined("nothing was done")


Run: TypeAlias = Annotated[Invocation, Parameter(parse=False)]
