"""The simulation of drift's verdicts: it has no difference where it says so, and counts the project's own verdicts."""

from __future__ import annotations

from pathlib import Path

import drift_section
import numpy as np
import pytest
from drift_verdicts import (
    FEW,
    HEAVY_FLOOR,
    NORMAL,
    PAGES,
    PROMISED,
    SIDES,
    DriftVerdicts,
    FalseDrifts,
    SizeCovered,
    detected,
    drifts,
    engine_floors,
    false_drifts,
    size_covered,
    table,
)
from kept import Share, kept

from rollout_bench.analysis.stats.divergence import divergence, mean_size


@pytest.mark.parametrize("noise", SIDES)
def test_no_line_of_a_simulated_table_truly_drifts(noise: str) -> None:
    rng = np.random.default_rng(1)
    for sequences, count in ((4, 5000), (64, 1500)):
        tables = [table(rng, noise, sequences, 1) for _ in range(count)]
        for side in ([floor for floor, _ in tables], [line for _, (line,) in tables]):
            d = np.concatenate([each for sequence in side for each in sequence])
            assert np.abs(d).mean() == pytest.approx(1, abs=0.06)


def test_sequences_have_unequal_lengths_and_tokens_that_depend_on_each_other() -> None:
    floor, (line,) = table(np.random.default_rng(1), NORMAL, 4000, 1)
    lengths = [len(each) for each in floor]
    assert lengths == [len(each) for each in line]
    assert (min(lengths), max(lengths)) == (5, 128)
    first, second = np.array([each[:2] for each in floor]).T
    assert np.corrcoef(first, second)[0, 1] > 0.3
    assert abs(np.corrcoef(first, [each[0] for each in line])[0, 1]) < 0.1


def test_verdicts_are_those_of_the_project() -> None:
    floor, (line, other) = table(np.random.default_rng(1), NORMAL, 16, 2)
    assert drifts(floor, [floor, floor]) == [False, False]
    assert drifts(floor, [[9 * d for d in line], other]) == [True, False]
    # with more lines the same one must be further off
    high = max(ratio for ratio in np.linspace(1, 9, 200) if drifts(floor, [[ratio * d for d in line]]) == [False])
    assert drifts(floor, [[1.01 * high * d for d in line], *[floor] * 9])[0] is False


def test_the_interval_of_mean_d_is_the_one_that_tables_show() -> None:
    floor, _ = table(np.random.default_rng(1), NORMAL, 8, 0)
    shown = divergence(floor, 0.95).size
    assert vars(mean_size(floor, 0.95)) == pytest.approx(vars(shown))


def test_a_floor_whose_large_values_are_rare_gives_more_false_verdicts_and_others_no_more_than_promised() -> None:
    normal, heavy = (false_drifts(noise, 32, 1, 1200, 2).false for noise in (NORMAL, HEAVY_FLOOR))
    assert normal.interval[0] <= PROMISED < heavy.interval[0]
    for noise, sequences, unknown in ((NORMAL, 8, 0.0), (NORMAL, 64, 0.0), (FEW, 16, 0.1)):
        one = size_covered(noise, sequences, 300, 2)
        assert one.covered.interval[1] > 0.95
        assert one.unknown.value >= unknown
    assert false_drifts(NORMAL, 4, 4, 20, 2) == false_drifts(NORMAL, 4, 4, 20, 2)


def test_more_sequences_find_less_drift_and_more_lines_need_more() -> None:
    ratios = [detected(NORMAL, sequences, lines, 60, 1).ratio for sequences, lines in ((64, 1), (16, 1), (16, 10))]
    assert None not in ratios
    assert ratios == sorted(ratios)
    assert detected(NORMAL, 4, 10, 20, 1).ratio is None


def test_floors_of_real_engines_are_the_lines_that_a_floor_is_taken_from(tmp_path: Path) -> None:
    lines = [
        "| bf16 | 2/2/2 | while generating | 0.0119 \\[0.0109, 0.0129\\] | (reference) | 0 |",
        "| bf16 | 2/2/2 | 64 at once | 0 \\[0, 0\\] | (reference) | 0 |",
        "| bf16 | 2/2/2 | 1 at once, other launches | 0.002 \\[0, 0.003\\] | (reference) | 0 |",
        "| fp8 | 2/2/2 | 1 at once | 0 \\[0, 0\\] | drifts | 0 |",
    ]
    for page in PAGES:
        (tmp_path / f"{page}.md").write_text("\n".join(lines))
    assert [(one.lines, one.nothing) for one in engine_floors(tmp_path)] == [(2, 1)] * len(PAGES)


def test_the_kept_floors_are_what_the_pages_of_results_show() -> None:
    result = kept("drift_verdicts", DriftVerdicts)
    assert result is not None
    assert result.floors == engine_floors(), "run: python validation/drift_verdicts.py"
    assert all(one.lines for one in result.floors)


@pytest.mark.parametrize(("false", "covered", "said"), [(25, 950, "wide enough"), (80, 700, "TOO NARROW")])
def test_the_section_begins_with_how_it_came_out_and_names_the_worst(false: int, covered: int, said: str) -> None:
    share = Share(count=covered, of=1000)
    result = DriftVerdicts(
        seed=1,
        comparisons=1000,
        confidence=0.95,
        promised=PROMISED,
        false=[
            FalseDrifts(noise=noise, sequences=64, lines=1, false=Share(count=count, of=1000))
            for noise, count in (("calm", 20), ("odd", false))
        ],
        covered=[SizeCovered(noise="odd", sequences=64, covered=share, below=share, unknown=share)],
        detected=[],
        floors=engine_floors(),
    )
    text = drift_section.drift_verdicts(result)
    assert text.startswith(f"**`drifts` keeps its promise under {2 if false == 25 else 1} of 2 kinds of noise**")
    assert f"At worst {Share(count=false, of=1000)} of simulated tables" in text
    assert "odd; 64 sequences, 1 line." in text
    assert f"**The interval of mean |d| is {said}.**" in text
    assert f"At worst {share} of these intervals hold the truth" in text
