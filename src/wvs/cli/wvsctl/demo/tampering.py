"""A step of the demo: it verifies the log, exports it, forges the export and shows that the forgery is detected."""

from base64 import b64decode, b64encode
from pathlib import Path

import msgspec

from wvs.cli.wvsctl.demo.context import WORKSPACE, DemoContext
from wvs.cli.wvsctl.demo.narrator import CheckFailed

FORGED_TYPE = "snapshot.drop_requested.v1"
"""The forger wants to hide who dropped the snapshot."""


def detect_forgery(demo: DemoContext) -> None:
    """Verifies the log, exports it, forges one event of the export, and checks that the verification names it."""
    with demo.narrator.step("Verify the log, and detect a forged copy of it"):
        verdict = demo.wvsctl("audit", "verify").document
        demo.narrator.check(
            f"the log is intact: the hashes of all {verdict['events']} events were recomputed", holds=verdict["intact"]
        )
        copy = demo.directory / "audit.jsonl"
        demo.wvsctl("audit", "export", "--output", str(copy))
        compared = demo.wvsctl("audit", "verify", WORKSPACE, "--against", str(copy)).document
        demo.narrator.check("the log matches the exported copy", holds=compared["intact"])
        version = _forge(copy)
        demo.narrator.explain(f'now a forger replaces the actor of event {version} in the copy with "nobody"')
        found = demo.wvsctl("audit", "verify", "--file", str(copy), expected_exit=1).document
        for fault in found["faults"]:
            demo.narrator.show_output(fault["what"])
        named = [fault["version"] for fault in found["faults"] if fault["version"]]
        demo.narrator.check(
            "the verification rejects the copy and names the forged event", holds=set(named) == {version}
        )


def _forge(copy: Path) -> int:
    """Replaces the actor of one event, in its stored bytes and in the column; returns the event's version."""
    lines = copy.read_bytes().splitlines()
    for number, line in enumerate(lines):
        document = msgspec.json.decode(line)
        event = document.get("event")
        if event is None or event["type"] != FORGED_TYPE:
            continue
        state = b64decode(event["state"])
        event["state"] = b64encode(state.replace(b'"actor":"demo"', b'"actor":"nobody"')).decode()
        event["actor"] = "nobody"
        lines[number] = msgspec.json.encode(document)
        copy.write_bytes(b"\n".join([*lines, b""]))
        return event["version"]
    raise CheckFailed(f"the export has no event {FORGED_TYPE}")
