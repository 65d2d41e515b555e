"""The story's proof of the record: the chains are recomputed, a copy is kept, and a forged copy is found out."""

from base64 import b64decode, b64encode
from pathlib import Path

import msgspec

from wvs.cli.wvsctl.demo.context import WORKSPACE, Stage
from wvs.cli.wvsctl.demo.narrator import NotAsTold

FORGED = "snapshot.drop_requested.v1"
"""Somebody wants it to have been somebody else who had the snapshot dropped."""


def forgery_found_out(stage: Stage) -> None:
    """Verify the log, export it, forge one event of the copy, and have the event named."""
    with stage.teller.step("The record is intact, and a forged copy of it is found out"):
        verdict = stage.wvsctl("audit", "verify").document
        stage.teller.proves(f"{verdict['events']} events, every hash recomputed: intact", holds=verdict["intact"])
        copy = stage.directory / "audit.jsonl"
        stage.wvsctl("audit", "export", "--output", str(copy))
        kept = stage.wvsctl("audit", "verify", WORKSPACE, "--against", str(copy)).document
        stage.teller.proves("the copy, kept elsewhere, says the same as the log", holds=kept["intact"])
        version = _forge(copy)
        stage.teller.does(f"event {version} of the copy now says that nobody did it")
        found = stage.wvsctl("audit", "verify", "--file", str(copy), told=1).document
        for fault in found["faults"]:
            stage.teller.shows(fault["what"])
        named = [fault["version"] for fault in found["faults"] if fault["version"]]
        stage.teller.proves("the copy is not believed, and the event is named", holds=set(named) == {version})


def _forge(copy: Path) -> int:
    """Another actor in the stored bytes of one event, and in the column beside them."""
    lines = copy.read_bytes().splitlines()
    for number, line in enumerate(lines):
        document = msgspec.json.decode(line)
        event = document.get("event")
        if event is None or event["type"] != FORGED:
            continue
        state = b64decode(event["state"])
        event["state"] = b64encode(state.replace(b'"actor":"demo"', b'"actor":"nobody"')).decode()
        event["actor"] = "nobody"
        lines[number] = msgspec.json.encode(document)
        copy.write_bytes(b"\n".join([*lines, b""]))
        return event["version"]
    raise NotAsTold(f"the export has a {FORGED}: no")
