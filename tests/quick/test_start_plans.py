"""Starts are planned with every combination of caches, pages and load formats, each an experiment of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from planned import REPOSITORY, planned
from synthetic_starts import start_spec

from rollout_bench.contracts.modes import STARTUP
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.launch import preflight
from rollout_bench.measure.launch.preflight import FILLED, check_before_start, engine_environment, warm_folder

BASE = "modes: [startup], quants: [bf16]"


def specs(overlay: str) -> list[Spec]:
    return [experiment.spec for experiment in planned(f"{{{BASE}, {overlay}}}").experiments]


def test_by_itself_caches_are_compared() -> None:
    assert [spec.setting for spec in specs("")] == ["caches-cold", "caches-warm"]


def test_a_start_is_of_one_prompt_and_one_token_whatever_the_workload() -> None:
    first, second = specs("workload_settings: {demo: {prompts: 8, output_tokens: 9}}, startup: {caches: [cold, warm]}")
    for spec in (first, second):
        load = spec.workload
        assert (load.prompts, load.samples_per_prompt, load.output_tokens) == (1, 1, 1)
        assert (spec.measuring.warmup_iterations, spec.measuring.iterations) == (0, 1)


def test_weights_that_are_made_up_have_no_pages() -> None:
    matrix = planned(f"{{{BASE}, startup: {{caches: [cold], pages: [cold, warm], load_formats: [auto, dummy]}}}}")
    found = [e.spec.startup for e in matrix.experiments if e.spec.startup is not None]
    assert [(one.load_formats, one.pages) for one in found] == [("auto", "cold"), ("dummy", None), ("auto", "warm")]
    (twin,) = matrix.skipped
    assert twin.reason == "it is the same as under pages-cold+load-formats-dummy"


def test_a_warm_launcher_is_one_more_value_and_none_leaves_keys_as_they_were() -> None:
    first, second = specs("startup: {caches: [cold], launchers: [none, warm]}")
    assert [spec.setting for spec in (first, second)] == ["launchers-none", "launchers-warm"]
    assert "launchers" not in first.model_dump(mode="json")["startup"]
    assert second.startup is not None
    assert second.startup.launchers == "warm"


def test_made_up_weights_take_a_config_alone() -> None:
    matrix = planned(f"{{{BASE}, startup: {{caches: [cold], load_formats: [auto, dummy]}}}}")
    checkpoints = [experiment.checkpoint for experiment in matrix.experiments]
    assert [one.config_only for one in checkpoints if one is not None] == [False, True]


def test_other_modes_have_none_of_it() -> None:
    (offline,) = specs("modes: [offline], startup: {caches: [cold, warm]}")
    assert offline.startup is None
    assert "startup" not in offline.canonical_json()
    assert offline.load_format == "auto"


def test_warm_caches_are_shared_by_all_starts_of_the_same_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in preflight.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    auto, dummy = start_spec("warm"), start_spec("warm", "dummy", None, "other")
    folders = [warm_folder(spec, engine_environment(spec, "m/m")) for spec in (auto, dummy)]
    assert folders[0] is not None
    assert folders[0] == folders[1]
    assert folders[0].is_relative_to(tmp_path)
    assert not (folders[0] / FILLED).exists()
    cold = start_spec("cold")
    assert warm_folder(cold, engine_environment(cold, "m/m")) is None


def test_a_format_whose_package_is_missing_fails_before_the_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    spec = start_spec(loads="runai_streamer")
    installed = preflight.version(spec.engine.name)
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"version": installed})})
    cause = check_before_start(spec, "m/m", None)
    assert cause is not None
    assert cause.category == "load_format_missing"
    assert "runai_model_streamer" in cause.cause
    assert "requirements/loading.in" in cause.fix
    assert (REPOSITORY / "requirements" / "loading.in").is_file()


def test_its_config_has_each_combination_once_and_as_many_launches_as_it_says() -> None:
    text = (REPOSITORY / STARTUP.example).read_text()
    experiments = planned(text).experiments
    starts = [e.spec.startup for e in experiments if e.spec.startup is not None]
    assert {(one.caches, one.pages, one.load_formats) for one in starts} == {
        *((caches, pages, "auto") for caches in ("cold", "warm") for pages in ("cold", "warm")),
        *((caches, None, "dummy") for caches in ("cold", "warm")),
    }
    assert f"{len(experiments) * yaml.safe_load(text)['launches']} launches" in text
    assert all(e.spec.engine.args["enforce_eager"] is False for e in experiments)
