"""Everything that a text of the repository cites exists: sections of the design, decisions, pages, runbooks, links."""

from pathlib import Path

import pytest

from tests.unit.citations import Repository, anchors_of, sections_of

_ROOT = Path(__file__).parents[2]

_DESIGN = """\
# The design

## 3. Rules

1. The first rule.

## 7. Quiesce

1. Open.
2. Freeze.

### 7.4 More of it
"""

_BAD = {
    "section": "(design §8)",
    "subsection": "(design §7.5)",
    "step": "(design §7, step 3)",
    "step of a broken comment": "# as design\n    # §7, step 3, has it",
    "second of two sections": "(design §3 and §8)",
    "section of nothing": "(§7)",
    "rule": "(rule 2)",
    "decision by number": "see ADR 0099",
    "decision by name": "docs/adr/0001-another-name says why",
    "page": "docs/nothing.md",
    "runbook": "runbooks/nothing.md",
    "anchor": "docs/page.md#nothing",
    "document without a path": "as facts.md has it",
    "migration": "as 20200101000000_nothing.sql has it",
}

_GOOD = [
    "(design §7)",
    "(design §7.4)",
    "(design §7.2)",
    "(design §7, step 2)",
    "# as design\n    # §7, step 2, has it",
    "(design §3 and §7)",
    "RFC 9110 §15.2",
    "(rule 1)",
    "ADR 0001 and docs/adr/0001-first",
    "docs/page.md#a-heading-with-code",
    "as page.md has it",
    "as 20200101000000_first.sql has it",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository in which every good citation has a target."""
    for path, text in {
        "docs/design.md": _DESIGN,
        "docs/page.md": "# Page\n\n## A heading, with `code`\n",
        "docs/adr/0001-first.md": "# First\n",
        "runbooks/night.md": "# Night\n",
        "db/migrations/20200101000000_first.sql": "-- migrate:up\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "src").mkdir()
    return tmp_path


def test_every_citation_of_the_repository_resolves():
    assert Repository(_ROOT).broken() == []


def test_the_finder_finds_the_citations_that_are_known_to_be_there():
    found = {(citation.file, citation.text) for citation in Repository(_ROOT).citations()}
    assert len([text for file, text in found if file.startswith("src/") and text.startswith("§")]) >= 20
    assert ("docs/adr/0021-worker-processes.md", "docs/engines.md") in found
    assert ("src/wvs/agent/flushing.py", "§7, step 3") in found
    assert ("README.md", "](docs/events.md)") in found


@pytest.mark.parametrize("kind", _BAD)
def test_a_citation_of_what_does_not_exist_is_reported_with_its_place(root: Path, kind: str):
    (root / "src/cites.py").write_text(f'"""A module.\n\n{_BAD[kind]}"""\n')
    broken = Repository(root).broken()
    assert broken
    assert all(fault.startswith("src/cites.py:") for fault in broken)


@pytest.mark.parametrize("text", _GOOD)
def test_a_citation_of_what_exists_is_found_and_good(root: Path, text: str):
    (root / "src/cites.py").write_text(text)
    repository = Repository(root)
    assert repository.broken() == []
    if not text.startswith("RFC"):
        assert [c for c in repository.citations() if c.file == "src/cites.py"]


@pytest.mark.parametrize(
    ("link", "is_good"),
    [
        ("(page.md)", True),
        ("(page.md#a-heading-with-code)", True),
        ("(#links)", True),
        ("(../runbooks/night.md)", True),
        ("(https://example.org/page.md)", True),
        ("(nothing.md)", False),
        ("(page.md#nothing)", False),
        ("(#nothing)", False),
    ],
)
def test_a_link_of_a_page_is_followed_from_that_page(root: Path, link: str, *, is_good: bool):
    (root / "docs/links.md").write_text(f"# Links\n\n[a link]{link}\n")
    assert (Repository(root).broken() == []) == is_good


def test_a_section_or_step_that_occurs_twice_is_an_error():
    with pytest.raises(ValueError, match="two sections 7"):
        sections_of(_DESIGN + "\n## 7. Again\n")
    with pytest.raises(ValueError, match="two steps 1"):
        sections_of("## 3. Rules\n\n1. One.\n\nOr:\n\n1. Other.\n")


def test_anchors_are_made_as_github_makes_them():
    assert anchors_of("# A\n\n## 7. Quiesce\n\n### `a_b` and [c](d.md), e-f\n") == {"a", "7-quiesce", "a_b-and-c-e-f"}
