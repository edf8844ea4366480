"""Pages of results are copies of summaries, without what names the machine; their config is what they say it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import refresh_result
from planned import REPOSITORY, planned
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.summary import summarise

PAGE = REPOSITORY / "docs" / "results" / "cpu-sweep.md"
CONFIG = REPOSITORY / "configs" / "settings-sweep.yaml"
STARTS = ComparisonSettings(metrics=["output_tokens_per_s", "startup_s"])
RATES = (400.0, 402.0, 398.0, 401.0)


def specs() -> list[Spec]:
    return [make_spec().model_copy(update={"setting": name}) for name in (None, "few", "many")]


def summary(results: Path, found: Sequence[Spec], launches: int = 4) -> str:
    for place, spec in enumerate(found):
        save(results, *(make_record(spec, n, [rate * (1 + place / 5)] * 2) for n, rate in enumerate(RATES)))
    plan = make_plan(found, launches, baseline={"setting": "default"}, comparison=STARTS)
    return summarise(collect(results, plan), figures=True).markdown


def test_the_answer_comes_first_then_figures_then_tables(tmp_path: Path) -> None:
    text = refresh_result.found(summary(tmp_path, specs()), PAGE.stem, ["speedup", "pareto"])
    places = [
        text.index(words)
        for words in (
            "12 of 12 planned launches measured",
            "### Conclusion\n",
            "(../images/cpu-sweep-speedup.svg)",
            "(../images/cpu-sweep-pareto.svg)",
            "### Throughput: offline",
        )
    ]
    assert places == sorted(places)
    assert "figures/" not in text
    assert "\n## " not in text


def test_the_machine_s_name_and_its_kernel_s_version_stay_at_home(tmp_path: Path) -> None:
    whole = summary(tmp_path, specs())
    assert "host bench-1" in whole
    text = refresh_result.found(whole, PAGE.stem, [])
    assert "### Measured with" in text
    assert "bench-1" not in text
    assert "6.1.0" not in text


def test_a_page_can_be_filled_again_and_again(tmp_path: Path) -> None:
    text = refresh_result.found(summary(tmp_path, specs()), PAGE.stem, [])
    page = refresh_result.filled(PAGE.read_text(), text)
    assert page.count(text) == 1
    assert "Not measured yet." not in page
    assert refresh_result.filled(page, text) == page
    with pytest.raises(ValueError, match="no place"):
        refresh_result.filled("# A page\n", text)


def test_nothing_is_copied_from_what_is_incomplete_or_compares_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="INCOMPLETE"):
        refresh_result.found(summary(tmp_path / "incomplete", specs(), launches=5), PAGE.stem, [])
    with pytest.raises(ValueError, match="no conclusion"):
        refresh_result.found(summary(tmp_path / "alone", specs()[:1]), PAGE.stem, [])


def test_every_figure_that_is_copied_is_one_that_there_is() -> None:
    captions = {path.stem for path in (REPOSITORY / "workflow" / "report").glob("*.rst")}
    assert set(refresh_result.FIGURES) <= captions


def test_the_sweep_has_the_twelve_settings_of_its_page_one_of_them_the_default() -> None:
    matrix = planned(CONFIG.read_text())
    assert len(matrix.experiments) == 12
    (default,) = [experiment.spec for experiment in matrix.experiments if experiment.spec.setting is None]
    assert default.engine.args["max_num_seqs"] == 32
    assert [(skipped.setting, skipped.reason) for skipped in matrix.skipped] == [
        ("max-num-seqs-32+enforce-eager-true+kv-cache-dtype-auto", "it is the same as under default")
    ]
    kinds = {experiment.spec.engine.args.get("kv_cache_dtype", "auto") for experiment in matrix.experiments}
    assert kinds == {"auto", "fp8"}
