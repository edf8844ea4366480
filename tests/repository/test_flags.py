"""Every flag and failure that code names is in its registry, from which pages are made, and the other way round."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout_bench.contracts.failure_kinds import FAILURES
from rollout_bench.contracts.flags import FLAGS
from rollout_bench.measure.launch.failures import KNOWN_CAUSES
from rollout_bench.report.reference import with_table

SOURCES = Path(__file__).resolve().parents[2] / "src" / "rollout_bench"
REGISTRIES = ("flags.py", "failure_kinds.py", "problems.py")


def words_in_code() -> Iterator[str]:
    """Yield every text of the package that may be a code, outside of the registries."""
    for path in SOURCES.rglob("*.py"):
        if path.name not in REGISTRIES or path.parent.name == "launch":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_what_the_registries_name_is_raised():
    assert {*FLAGS, *FAILURES} - set(words_in_code()) == set()


def test_every_flag_that_a_launch_can_raise_is_in_the_registry():
    sources = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    raised = re.findall(r'(?:Flag\(\s*code=|invalid\(\s*|warning\(\s*|"code": )"([a-z_]+)"', sources)
    assert set(raised) <= FLAGS.keys()
    assert len(set(raised)) > 10


def test_every_category_of_a_failure_is_in_the_registry():
    sources = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    raised = re.findall(r'(?:[^n]Cause|impossible|MeasuringFailed|DeviceError)\(\s*"([a-z_]+)"', sources)
    assert {*raised, *(known.category for known in KNOWN_CAUSES)} <= FAILURES.keys()
    assert len(set(raised)) > 20


def test_a_table_of_a_page_is_replaced_and_the_rest_stays():
    page = "# A\n\n| flag | b |\n|---|---|\n| old | x |\n\nrest\n"
    assert with_table(page, "| flag |", "| flag | c |\n") == "# A\n\n| flag | c |\n\nrest\n"
    with pytest.raises(ValueError, match="no table"):
        with_table(page, "| category |", "")
