"""A mode is one object: each has all that a mode needs, and nothing else asks for a mode by its name."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from planned import REPOSITORY, planned

from rollout_bench.contracts.modes import MESSAGE_ROWS, MODES, SEQUENCES, SERVER, TRACES, Mode, named
from rollout_bench.contracts.record import Launched, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import Config
from rollout_bench.report.reference import MODELS

PACKAGE = REPOSITORY / "workflow" / "scripts" / "rollout_bench"

OTHER_MEANINGS = {
    "measure/server/vllm_bench.py": {"profile"},  # an argument of vLLM's benchmark
    "plan/config_file.py": {"online"},  # the key of a workload that says how requests arrive
    "plan/load_checks.py": {"online"},  # the same
    "report/figures/save.py": {"operators", "messages"},  # figures
    "report/online_tables.py": {"offline", "online"},  # fields of a line in the table that compares the two
    "report/rendering.py": {"operators", "messages"},  # figures
}
"""Module -> names of modes that mean something else in it."""


def functions(path: Path) -> set[str]:
    """Names of the functions that a module defines; it is not imported, since it may need an engine."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
class TestEachMode:
    def test_has_a_worker(self, mode: Mode):
        module, _, function = mode.worker.partition(":")
        found = find_spec(module)
        assert found is not None
        assert found.origin is not None
        assert function in functions(Path(found.origin))

    def test_has_a_record_with_a_schema_and_a_place_for_each_side_file(self, mode: Mode):
        assert issubclass(mode.record, Launched)
        assert mode.record in MODELS.values()
        names = {
            SEQUENCES: "sequences_file",
            SERVER: "server_file",
            TRACES: "traces_folder",
            MESSAGE_ROWS: "messages_file",
        }
        assert {names[ending] for ending in mode.side_files} <= set(mode.record.model_fields)
        assert mode.generates == (mode.record is Record)

    def test_has_settings_where_it_names_some(self, mode: Mode):
        if mode.settings:
            assert {mode.settings} <= set(Config.model_fields) & set(Spec.model_fields)

    def test_has_tables_and_figures_with_captions(self, mode: Mode):
        assert callable(named(mode.tables))
        captions = {path.stem for path in (REPOSITORY / "workflow" / "report").glob("*.rst")}
        assert mode.figures
        assert set(mode.figures) <= captions

    def test_is_planned_by_its_example(self, mode: Mode):
        text = "{}" if mode.example == "config.yaml" else (REPOSITORY / mode.example).read_text()
        assert mode.name in {experiment.spec.mode for experiment in planned(text).experiments}
        assert yaml.safe_load((REPOSITORY / mode.example).read_text())

    def test_has_a_page_that_the_index_links(self, mode: Mode):
        assert (REPOSITORY / "docs" / mode.page).is_file()
        assert f"]({mode.page})" in (REPOSITORY / "docs" / "index.md").read_text()


def literals(path: Path) -> set[str]:
    """Names of modes that stand as text in a module."""
    constants = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in MODES}


def test_no_module_asks_for_a_mode_by_a_literal():
    found = {str(path.relative_to(PACKAGE)): literals(path) for path in PACKAGE.rglob("*.py")}
    assert found.pop("contracts/modes.py") == set(MODES)
    assert {module: names for module, names in found.items() if names} == OTHER_MEANINGS
    commands = REPOSITORY.glob("workflow/scripts/*.py")
    assert {path.name: literals(path) for path in commands if literals(path)} == {}
