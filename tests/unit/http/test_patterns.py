from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from wvs.domain.errors import Refused
from wvs.domain.values import WorkspaceName
from wvs.http.problems.patterns import explain_mismatch
from wvs.http.requests.strict_json import decode_strictly
from wvs.http.resources.current import NewCurrent
from wvs.http.resources.workspaces import NewWorkspace

NAME = "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end"
KEY = "must be 1 to 63 letters, digits and any of . _ / -, with a letter or digit at either end"


class Nested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    things: list[NewWorkspace]


@pytest.mark.parametrize(
    ("wanted", "body", "field", "problem"),
    [
        (NewWorkspace, {"name": "My Project"}, "name", f"{NAME}, not 'My Project'"),
        (NewWorkspace, {"name": "-a"}, "name", f"{NAME}, not '-a'"),
        (NewWorkspace, {"name": "x" * 64}, "name", f"{NAME}, not '{'x' * 40}'… (64 characters)"),
        (NewWorkspace, {"name": "'\"\n"}, "name", f"""{NAME}, not '\\'"\\n'"""),
        (
            NewWorkspace,
            {"name": "a", "labels": {"ok": "", "k=": "v"}},
            "labels",
            f"a key of the object: {KEY}, not 'k='",
        ),
        (
            NewCurrent,
            {"snapshot_id": "latest"},
            "snapshot_id",
            "must be an id of the form snap_<26 characters>, not 'latest'",
        ),
        (Nested, {"things": [{"name": "a"}, {"name": "B"}]}, "things[1].name", f"{NAME}, not 'B'"),
    ],
)
def test_a_mismatch_is_explained_with_the_value(wanted: type, body: object, field: str, problem: str) -> None:
    with pytest.raises(Refused) as refused:
        decode_strictly(msgspec.json.encode(body), wanted)
    [error] = refused.value.fields["errors"]
    assert (error.place, error.field, error.problem) == ("body", field, problem)
    assert "regex" not in refused.value.detail


def test_a_known_pattern_has_an_explanation_and_another_one_keeps_its_message() -> None:
    with pytest.raises(msgspec.ValidationError) as unknown:
        msgspec.convert("b", Annotated[str, Meta(pattern="^a$")])
    assert explain_mismatch(str(unknown.value), ["b"]).endswith(", not 'b'")
    with pytest.raises(msgspec.ValidationError) as known:
        msgspec.convert("B", WorkspaceName)
    assert explain_mismatch(str(known.value)) == NAME
    assert explain_mismatch("Expected `str`, got `int`", [7]) == "Expected `str`, got `int`"
