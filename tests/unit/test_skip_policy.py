"""The plugin that judges skips, in pytest runs of their own."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.skip_policy import ALLOWED_SKIPS, read_allowed, untested
from wvs.agent import cgroup_placement as placement
from wvs.agent.errors import NoFreezer

pytest_plugins = ["pytester"]
_ROOT = Path(__file__).parents[2]
_CONFTEST = """
import re
from tests.skip_policy import SkipPolicy

def pytest_configure(config):
    policy = SkipPolicy.of_this_run()
    policy._allowed = [re.compile("no moon tonight")]
    config.pluginmanager.register(policy)
"""
_LACKING = """
import pytest
from tests.skips import need_program, not_root

def test_sound(): pass
def test_program(): need_program("no-such-program")
def test_program_too(): need_program("no-such-program")
@pytest.mark.skipif(True, reason=not_root("mounting filesystems"))
def test_root(): pass
"""
_SENTENCE = (
    "Left untested: 2 tests without no-such-program (`make test-deps` installs what is missing); "
    "1 test without root (run as root to include them)."
)


@pytest.fixture(autouse=True)
def own_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a third of the time
    pytester.makeconftest(_CONFTEST)


def ran(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-rs")


def ran_by_workers(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-p", "xdist", "-p", "no:cacheprovider", "-rs", "-n", "2")


either = pytest.mark.parametrize("run", [ran, ran_by_workers])
Run = Callable[[pytest.Pytester, str], pytest.RunResult]


@either
def test_in_ci_a_test_without_its_program_or_without_root_fails(pytester: pytest.Pytester, run: Run) -> None:
    result = run(pytester, _LACKING)
    result.assert_outcomes(passed=1, failed=2, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    failure = "skipped in CI, where that is a failure:"
    result.stdout.fnmatch_lines([f"{failure} not installed: no-such-program", "Run `make test-deps`*"])
    result.stdout.fnmatch_lines([f"{failure} not root: mounting filesystems", "Run the tests as root."])


@either
def test_elsewhere_the_run_passes_and_ends_with_what_it_left_untested(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.delenv("CI")
    result = run(pytester, _LACKING)
    result.assert_outcomes(passed=1, skipped=3)
    assert result.ret == pytest.ExitCode.OK
    assert [line for line in result.outlines if line.strip()][-2] == _SENTENCE


def test_in_ci_only_a_reason_of_the_list_may_be_given(pytester: pytest.Pytester) -> None:
    test = """
        import pytest
        def test_allowed(): pytest.skip("no moon tonight")
        def test_more_than_allowed(): pytest.skip("no moon tonight, nor tomorrow")
        def test_unknown(): pytest.skip("no reason")
    """
    result = ran(pytester, test)
    result.assert_outcomes(skipped=1, failed=2)
    result.stdout.fnmatch_lines(["*where that is a failure: no reason", "*explain the skip in allowed_skips.toml."])


def test_in_ci_a_module_that_skips_itself_fails_the_run(pytester: pytest.Pytester) -> None:
    result = ran(pytester, "import pytest\npytest.skip('no reason', allow_module_level=True)\ndef test(): pass")
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_in_ci_an_expected_failure_is_no_skip(pytester: pytest.Pytester) -> None:
    result = ran(pytester, "import pytest\n@pytest.mark.xfail\ndef test(): assert False")
    result.assert_outcomes(xfailed=1)


def test_no_entry_can_allow_a_missing_program(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(_CONFTEST.replace("no moon tonight", ".*"))
    ran(pytester, _LACKING).assert_outcomes(passed=1, failed=2, errors=1)


def test_a_run_that_could_test_all_says_nothing() -> None:
    assert untested(Counter({"the clone was faster than the cancel": 3})) == ""


def test_every_entry_of_the_list_is_explained_and_short(tmp_path: Path) -> None:
    assert 0 < len(read_allowed()) < 20
    unexplained = tmp_path / "list.toml"
    unexplained.write_text('[[skip]]\nreason = "x"\nwhy = " "\n')
    with pytest.raises(ValueError, match=re.escape(str(unexplained))):
        read_allowed(unexplained)
    assert ALLOWED_SKIPS.parent == _ROOT / "tests"


def test_the_reason_of_a_host_without_the_old_freezer_is_the_allowed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "mounts", list)
    with pytest.raises(NoFreezer) as missing:
        placement.own_cgroup_v1()
    with pytest.raises(NoFreezer) as main:
        placement.own_cgroup_v2()
    reasons = [f"no cgroup can be used here: {error.value}" for error in (missing, main)]
    allowed = [any(pattern.fullmatch(reason) for pattern in read_allowed()) for reason in reasons]
    assert allowed == [True, False], "every CI machine has v2"
