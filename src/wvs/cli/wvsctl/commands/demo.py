"""`wvsctl demo`."""

from cyclopts import App

app = App(name="demo")


@app.default
def demo() -> int:
    """Tell and show a workspace's whole life on real files, with a service of its own, in under a minute.

    Every step is printed with its proof; exits with 1 if one comes out other than told. Leaves nothing behind.
    """
    from wvs.cli.wvsctl.demo.run import perform  # noqa: PLC0415  # nothing else needs it

    return perform()
