"""Every flag has a meaning, a limit and a remedy."""

import re
from pathlib import Path

from rollout_bench.contracts import flags

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"


def rows(page: str, heading: str) -> set[str]:
    """Return the codes in the table below `heading` of a page."""
    text = (DOCS / page).read_text().partition(f"{heading}\n")[2]
    lines = [line for line in text.split("\n## ")[0].splitlines() if line.startswith("| `")]
    return {code for line in lines for code in re.findall(r"`(\w+)`", line.split("|")[1])}


def test_pages_and_meanings_name_the_same_flags():
    assert rows("trust.md", "### Flags") == flags.MEANINGS.keys()
    assert rows("troubleshoot.md", "## A launch is flagged") <= flags.MEANINGS.keys()
    assert flags.MEANINGS.keys() >= flags.DISTURBED | flags.IF_ALL.keys()


def test_every_code_that_a_launch_can_raise_has_a_meaning():
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    raised = re.findall(r'(?:Flag\(\s*code=|invalid\(\s*|warning\(\s*|"code": )"([a-z_]+)"', sources)
    assert set(raised) <= flags.MEANINGS.keys()
    assert len(set(raised)) > 10
