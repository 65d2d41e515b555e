"""The registry of failpoints: what can be armed, what is refused, and that every call names a known one."""

import ast
from pathlib import Path

import pytest

import wvs
from wvs.failpoints import NAMES, OF_UPGRADES, InjectedFault, UnknownFailpoint, arm, failpoint, passes

ALL = (*NAMES, *OF_UPGRADES)
SOURCES = Path(wvs.__file__).parent


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm("")


def test_an_unarmed_failpoint_does_nothing_whatever_its_name():
    arm("")
    failpoint("create.cloned")
    failpoint("no.such.point")


def test_an_armed_failpoint_raises_an_error_that_names_it():
    arm("create.cloned=error")
    failpoint("create.stamped")
    with pytest.raises(InjectedFault, match=r"create\.cloned"):
        failpoint("create.cloned")


def test_an_action_with_a_number_acts_at_that_pass_only():
    arm("set.switched=error@2")
    failpoint("set.switched")
    with pytest.raises(InjectedFault):
        failpoint("set.switched")
    failpoint("set.switched")
    assert passes() == {"set.switched": 3}


def test_arming_replaces_what_was_armed():
    arm("create.cloned=error")
    arm("create.stamped=sleep:0")
    failpoint("create.cloned")
    assert passes() == {"create.stamped": 0}


@pytest.mark.parametrize(
    "bad", ["create.cloned", "create.cloned=explode", "no.such.point=kill", "create.cloned=kill@x"]
)
def test_a_specification_that_means_nothing_is_refused(bad: str):
    with pytest.raises(ValueError, match=r"."):
        arm(bad)


def test_a_call_with_an_unknown_name_is_found_out_as_soon_as_anything_is_armed():
    arm("create.cloned=sleep:0")
    with pytest.raises(UnknownFailpoint):
        failpoint("no.such.point")


def called_names() -> set[str]:
    """The names in all calls; `{point}` in an f-string is one of the two operations that share the code."""
    found: set[str] = set()
    for source in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call):
                for argument in node.args:
                    found |= _names(argument, of_failpoint=getattr(node.func, "id", "") == "failpoint")
    return found


def _names(argument: ast.expr, *, of_failpoint: bool) -> set[str]:
    match argument:
        case ast.Constant(value=str(name)) if of_failpoint or name in ALL:
            return {name}
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id="point")), ast.Constant(value=str(rest))]):
            return {f"{operation}{rest}" for operation in ("create", "set")}
        case _:
            return set()


def test_every_call_names_a_known_failpoint_and_every_failpoint_is_called():
    assert called_names() == set(ALL)


def test_names_are_unique():
    assert len(set(ALL)) == len(ALL)
