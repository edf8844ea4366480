"""The pages of results say what the records in studies/results say, by today's rules."""

import re
from pathlib import Path

import numpy as np
import pytest
from aa_tables import components
from docs_pages import REPOSITORY, pages
from figures import drawn
from kept import RESULTS, Share
from results_page import PAGE, README, predictions
from results_page import pages as rendered

INTERVAL = re.compile(r"\d\.\d+x? \[[\d.]+, [\d.]+\]")
PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")
SHARE = re.compile(r"\d \[\d|\d\.\d+ %|\d\.\d+x|\b\d+ of \d+\b")


def test_the_pages_are_what_the_records_say():
    differing = [path.name for path, text in rendered().items() if path.read_text() != text]
    assert differing == [], "python studies/results_page.py writes them"


def test_images_and_the_example_are_what_the_records_say():
    differing = [path.name for path, content in drawn().items() if path.read_bytes() != content]
    assert differing == [], "python studies/figures.py writes them"


def test_rows_without_records_come_last_and_the_others_name_theirs():
    (rows,) = re.findall(r"^\| Question .*?\n\|[-|]+\n(.*?)\n\n", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    sources = [row.strip("| ").rpartition(" | ")[2] for row in rows.splitlines()]
    named = [re.findall(r"`([\w.-]+)`", source) for source in sources]
    assert [names for names in named if not any((RESULTS / f"{n}{end}").exists() for n in names for end in KINDS)] == []


KINDS = (".tar.xz", ".json")


def test_a_template_has_no_interval_of_records_that_are_kept():
    lines = [
        line
        for template in ("results.md.j2", "readme.md.j2", "trust.md.j2")
        for line in (REPOSITORY / "studies" / template).read_text().splitlines()
    ]
    assert [line for line in lines if INTERVAL.search(line)] == []


def test_other_pages_quote_intervals_that_the_results_have():
    quoted = [
        interval
        for page in pages()
        for line in page.read_text().splitlines()
        if page == README or "results.md#" in line
        for interval in INTERVAL.findall(line)
    ]
    assert quoted
    assert [interval for interval in quoted if interval not in PAGE.read_text()] == []


def test_the_template_of_trust_has_no_share_of_its_own():
    """Numbers that no study gives say that they are not kept, or are settings, which the second half explains."""
    text, _, _ = (REPOSITORY / "studies" / "trust.md.j2").read_text().partition("## The verdict\n")
    typed = [line for line in text.splitlines() if SHARE.search(PLACEHOLDER.sub("", line)) and "not kept" not in line]
    assert typed == []


def test_components_of_two_machines_are_those_that_were_drawn():
    """The spread of rounds, which differs between machines, is in neither component."""
    rng = np.random.default_rng(1)
    between, within = 0.05, 0.02
    logs = [
        rng.normal(0, rounds_sd, (30, 1, 1)) + rng.normal(0, between, (30, 3, 1)) + rng.normal(0, within, (30, 3, 8))
        for rounds_sd in (0.1, 1.0)
    ]
    found, alone = components(logs), components(logs[:1])
    assert found.launches == 180
    for sd, (value, low, high) in ((between, found.between), (within, found.within)):
        assert low < sd < high
        assert value == pytest.approx(sd, rel=0.15)
    assert found.between[2] - found.between[1] < alone.between[2] - alone.between[1]


@pytest.mark.parametrize("archive", sorted(RESULTS.glob("predictions-*.tar.xz")), ids=lambda path: path.name)
def test_the_shares_of_predictions_are_those_of_their_rows(archive: Path):
    found = predictions(archive.name.removeprefix("predictions-").removesuffix(".tar.xz"))
    near, nearer = (Share(count=found.within(percent), of=len(found.errors)) for percent in (5, 8))
    held = Share(count=found.held, of=len(found.errors))
    line = f"{archive.name}: within 5 % {near}, within 8 % {nearer}, intervals hold {held}."
    assert line in (RESULTS / "predictions.md").read_text().splitlines()
