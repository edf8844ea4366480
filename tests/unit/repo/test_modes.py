"""A mode is one object: each has all that a mode needs, and nothing else asks for a mode by its name."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from planned import REPOSITORY, planned

from rollout_bench.contracts.modes import (
    MESSAGE_ROWS,
    MODES,
    SCORE_ROWS,
    SEQUENCES,
    TRACES,
    Mode,
    named,
)
from rollout_bench.contracts.record import Launched, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import Config
from rollout_bench.report.figure_names import DRAWINGS
from rollout_bench.report.parts import Findings, SummaryPart

PACKAGE = REPOSITORY / "src" / "rollout_bench"

OTHER_MEANINGS = {
    "core/secrets.py": {"messages"},  # of a trainer's key for them
    "llmd/guidellm_scenario.py": {"profile"},  # a section of guidellm's scenarios
    "llmd/profiled.py": {"online", "profile"},  # keys of a workload
    "llmd/vllm_benchmark.py": {"profile"},  # an option of vLLM's benchmark
    "measure/launch/recorder.py": {"placement", "startup"},  # fields of a record: where it ran, and how it started
    "measure/server/guidellm.py": {"profile"},  # guidellm's word for how requests arrive
    "measure/server/stream.py": {"messages"},  # what a chat is made of
    "measure/server/vllm_command.py": {"messages"},  # those of a chat
    "plan/config_file.py": {"online", "profile"},  # keys of a workload
    "report/figure_names.py": {"cycle", "placement", "startup", "messages", "drift"},  # figures
    "trainers/verl.py": {"rollout"},  # a section of verl's settings
}
"""Module -> names of modes that mean something else in it."""


def functions(path: Path) -> set[str]:
    """Return names of the functions that a module defines; it is not imported, since it may need an engine."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
class TestEachMode:
    def test_has_a_worker(self, mode: Mode):
        module, _, function = mode.worker.partition(":")
        found = find_spec(module)
        assert found is not None
        assert found.origin is not None
        assert function in functions(Path(found.origin))

    def test_has_a_record_and_a_place_for_each_side_file(self, mode: Mode):
        assert issubclass(mode.record, Launched)
        names = {
            SEQUENCES: "sequences_file",
            TRACES: "traces_folder",
            MESSAGE_ROWS: "messages_file",
            SCORE_ROWS: "scores_file",
        }
        assert {names[ending] for ending in mode.side_files} <= set(mode.record.model_fields)
        assert mode.generates == (mode.record is Record)

    def test_has_settings_where_it_names_some(self, mode: Mode):
        if mode.settings:
            assert {mode.settings} <= set(Config.model_fields) & set(Spec.model_fields)

    def test_has_a_part_of_the_summary(self, mode: Mode):
        assert get_type_hints(named(mode.tables)) == {"findings": Findings, "return": SummaryPart}

    def test_has_figures(self, mode: Mode):
        assert mode.figures
        assert set(mode.figures) <= set(DRAWINGS)

    def test_is_planned_by_its_example(self, mode: Mode):
        text = "{}" if mode.example == "config.yaml" else (REPOSITORY / mode.example).read_text()
        assert mode.name in {experiment.spec.mode for experiment in planned(text).experiments}
        assert yaml.safe_load((REPOSITORY / mode.example).read_text())

    def test_has_a_page_that_the_index_links(self, mode: Mode):
        assert (REPOSITORY / "docs" / mode.page).is_file()
        assert f"]({mode.page})" in (REPOSITORY / "docs" / "index.md").read_text()


def literals(path: Path) -> set[str]:
    """Return names of modes that stand as text in a module."""
    constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in MODES}


def test_no_module_asks_for_a_mode_by_a_literal():
    found = {str(path.relative_to(PACKAGE)): literals(path) for path in PACKAGE.rglob("*.py")}
    assert found.pop("contracts/modes.py") == set(MODES)
    assert {module: names for module, names in found.items() if names} == OTHER_MEANINGS
    commands = REPOSITORY.glob("workflow/scripts/*.py")
    assert {path.name: literals(path) for path in commands if literals(path)} == {}
