"""A step of the demo: the log alone is enough to rebuild everything that the API shows."""

from typing import Any

from wvs.cli.wvsctl.demo.context import WORKSPACE, DemoContext


def rebuild_read_models(demo: DemoContext) -> None:
    """Rebuilds the read models while the service runs, and compares what the API shows before and after."""
    with demo.narrator.step("Rebuild everything that the API shows from the log, while the service runs"):
        demo.narrator.explain("the log of events is the only truth; the API shows read models that WVS derives from it")
        before = _shown(demo)
        demo.narrator.show_output(demo.wvs("projections", "verify"))
        demo.narrator.show_output(demo.wvs("projections", "rebuild"))
        demo.narrator.check("the workspace, its snapshots and its tasks look as before", holds=_shown(demo) == before)
        verdict = demo.wvs("projections", "verify")
        demo.narrator.check("and no row differs from a replay of the log", holds=verdict.startswith("equal:"))


def _shown(demo: DemoContext) -> list[dict[str, Any]]:
    return [
        demo.wvsctl("workspace", "get", WORKSPACE).document,
        demo.wvsctl("snapshot", "list", WORKSPACE, "--include-deleted").document,
        demo.wvsctl("task", "list", "--workspace", WORKSPACE).document,
    ]
