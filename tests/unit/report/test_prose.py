"""Sentences of the summary come from templates, in which no value can be missing, and none can pass for a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from rollout_bench.report import prose
from rollout_bench.report.prose import Section, sections

TEMPLATES = sorted((Path(prose.__file__).parent / "templates").glob("*.md.j2"))


@pytest.fixture
def rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes sections of the text of a template."""
    prose.templates.cache_clear()
    monkeypatch.setattr(prose, "TEMPLATES", tmp_path)

    def make(text: str, **values: object) -> list[Section]:
        (tmp_path / "made.md.j2").write_text(text)
        prose.templates.cache_clear()
        return sections("made", **values)

    yield make
    prose.templates.cache_clear()


def test_an_item_ends_at_the_next_and_empty_headings_vanish(rendered):
    text = "## One\n- first {% if more %}and\n  more{% endif %}\n\n- second\n## None\n{% if not more %}{% endif %}\n"
    assert rendered(text, more=True) == [Section("One", ("first and more", "second"))]
    assert rendered(text, more=False) == [Section("One", ("first", "second"))]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("## Failed\n- {{ cause }}\n", "'cause' is undefined"),
        ("## Failed\n- {{ failure.caus }}\n", "no attribute 'caus'"),
        ("lost\n## Failed\n- item\n", "outside of an item: lost"),
        ("## Failed\nlost\n", "outside of an item: lost"),
    ],
)
def test_missing_values_and_text_outside_of_items_are_errors(rendered, text: str, error: str):
    with pytest.raises((jinja2.UndefinedError, ValueError), match=error):
        rendered(text, failure={"cause": "no memory"})


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x85", "\u2028", "\u2029"])
def test_a_value_begins_neither_an_item_nor_a_heading(rendered, end: str):
    value = f"a{end}- b{end}## c{end}{{{{ 7 * 7 }}}}"
    assert rendered("## Failed\n- {{ value }}\n", value=value) == [Section("Failed", ("a - b ## c {{ 7 * 7 }}",))]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_line_of_a_template_begins_with_a_value(path: Path):
    """Or the value could begin with what begins an item."""
    text = re.sub(r"{#.*?#}", "", path.read_text(), flags=re.DOTALL)
    assert [line for line in text.splitlines() if line.startswith("{{")] == []
