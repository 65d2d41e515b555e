"""One invocation of the console: its options, its screen and its API client. Every command receives one."""

from functools import cached_property
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from msgspec import Struct

from wvs.cli.wvsctl.api.client import Client
from wvs.cli.wvsctl.api.failures import Declined, UsageFailure
from wvs.cli.wvsctl.api.transport import DEFAULT_URL, Transport
from wvs.cli.wvsctl.output.screen import Screen


class Options(Struct, frozen=True, kw_only=True):
    """The options of all commands."""

    url: str = DEFAULT_URL
    headers: tuple[str, ...] = ()
    as_json: bool = False
    actor: str | None = None
    no_wait: bool = False
    wait_timeout_s: float | None = None
    idempotency_key: str | None = None
    yes: bool = False


class Invocation:
    """The options, the screen and the API client that a command uses."""

    def __init__(self, options: Options, screen: Screen) -> None:
        if options.no_wait and options.wait_timeout_s is not None:
            raise UsageFailure("--no-wait and --wait-timeout cannot be used together")
        self.options = options
        self.screen = screen

    @cached_property
    def client(self) -> Client:
        """The API client; it connects at its first request."""
        transport = Transport(self.options.url, self.options.headers)
        return Client(transport, actor=self.options.actor, notify=self.screen.notify)

    def confirm(self, consequence: str) -> None:
        """Asks the user to confirm `consequence`, unless `--yes` was given.

        Raises `Declined` for any answer but yes, and `UsageFailure` if stdin or stderr is not a terminal.
        """
        if self.options.yes:
            return
        if not self.screen.is_interactive:
            raise UsageFailure(
                f"no terminal to ask for a confirmation: {consequence}",
                "to confirm: --yes",
            )
        print(f"{consequence}. Continue? [y/N] ", end="", file=self.screen.err, flush=True)
        try:
            answer = input()
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise Declined("cancelled; nothing was changed")


Run: TypeAlias = Annotated[Invocation, Parameter(parse=False)]
