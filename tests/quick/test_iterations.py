"""How many iterations a launch should have: the formula, its uncertainty, and what `snakemake plan` says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic_records import make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.iterations import best_iterations, relative_time, variances
from rollout_bench.analysis.timed.advice import FEWEST, MOST, advise_iterations
from rollout_bench.analysis.timed.launches import measure
from rollout_bench.commands import plan as plan_command
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.store import record_path
from rollout_bench.report.plan_advice import iteration_lines

COSTS = st.floats(0.1, 1000)
RATIOS = st.floats(0.001, 100)
BF16, W8A8 = make_spec(), make_spec(quant="w8a8")
INVALID = Flag(code="quant_not_proven", severity="invalid", sentence="linear weights are bfloat16.")
TRIALS = 4_000


def simulated(trials: int, launches: int, iterations: int, between: float, within: float, seed: int = 0) -> np.ndarray:
    """Values [trials, launches, iterations] with the standard deviations between and within launches."""
    rng = np.random.default_rng(seed)
    level = between * rng.normal(size=(trials, launches, 1))
    return np.asarray(level + within * rng.normal(size=(trials, launches, iterations)))


def test_both_variances_are_found_without_bias() -> None:
    found = [variances(values) for values in simulated(TRIALS, 3, 4, between=0.02, within=0.03)]
    assert np.mean([one.within for one in found]) == pytest.approx(0.03**2, rel=0.03)
    assert np.mean([one.between for one in found]) == pytest.approx(0.02**2, rel=0.1)
    assert min(one.between for one in found) < 0


@pytest.mark.parametrize(("between", "launches"), [(0.02, 3), (0.1, 2), (0.005, 6)])
def test_the_interval_of_their_ratio_covers_the_truth_as_often_as_promised(between: float, launches: int) -> None:
    truth = (between / 0.03) ** 2
    found = [variances(values) for values in simulated(TRIALS, launches, 4, between, 0.03)]
    hits = sum(one.ratio_low <= truth <= one.ratio_high for one in found)
    assert stats.binomtest(hits, TRIALS, 0.95).pvalue > 1e-4


@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_variances_follow_the_unit_and_ignore_the_level(level: float, factor: float) -> None:
    values = simulated(1, 3, 5, 0.5, 0.3)[0]
    one, other = variances(values), variances(level + factor * values)
    assert (other.within, other.between) == pytest.approx((factor**2 * one.within, factor**2 * one.between))
    assert (other.ratio_low, other.ratio_high) == pytest.approx((one.ratio_low, one.ratio_high))


@given(COSTS, COSTS, RATIOS)
def test_no_number_of_iterations_takes_less_time_than_the_best(launch_s: float, once_s: float, ratio: float) -> None:
    best = best_iterations(launch_s, once_s, ratio)
    around = {max(1, int(np.floor(best))), max(1, int(np.ceil(best)))}
    least = min(relative_time(n, 1, launch_s, once_s, ratio) for n in around)
    others = {1, 2, 5, 20, 100, max(1, round(best / 2)), round(2 * best) + 1}
    assert all(relative_time(n, 1, launch_s, once_s, ratio) >= least * (1 - 1e-12) for n in others)


@given(COSTS, COSTS, RATIOS, st.floats(1.01, 10))
def test_costly_launches_and_alike_launches_ask_for_more_iterations(
    launch_s: float, once_s: float, ratio: float, factor: float
) -> None:
    here = best_iterations(launch_s, once_s, ratio)
    assert best_iterations(factor * launch_s, once_s, ratio) > here
    assert best_iterations(launch_s, factor * once_s, ratio) < here
    assert best_iterations(launch_s, once_s, factor * ratio) < here


def test_the_best_number_has_the_least_variance_in_a_given_time() -> None:
    launch_s, once_s, between, within, budget_s = 20.0, 2.0, 0.01, 0.03, 2400.0
    best = round(best_iterations(launch_s, once_s, (between / within) ** 2))
    assert best == 9  # sqrt(10 x 9)

    def spread(iterations: int) -> float:
        launches = round(budget_s / (launch_s + iterations * once_s))
        return float(simulated(TRIALS, launches, iterations, between, within).mean(axis=(1, 2)).var())

    assert spread(best) < min(spread(2), spread(50))
    promised = relative_time(best, 2, launch_s, once_s, (between / within) ** 2)
    assert spread(best) / spread(2) == pytest.approx(promised, rel=0.15)


def test_launches_that_do_not_differ_ask_for_no_end_of_iterations() -> None:
    assert best_iterations(20, 2, 0.0) == best_iterations(20, 2, -0.5) == np.inf


@pytest.mark.parametrize(
    "values", [[], [1.0, 2.0], [[1.0, 2.0]], [[1.0], [2.0]], [[1, 2], [1, np.nan]], [[1, 1], [2, 2]]]
)
def test_what_allows_no_variances_is_an_error(values: object) -> None:
    with pytest.raises(ValueError, match=r"two|finite|differ"):
        variances(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("launch_s", "once_s", "ratio"), [(0, 1, 1), (1, -1, 1), (np.inf, 1, 1), (1, 1, np.nan)])
def test_costs_that_are_none_are_an_error(launch_s: float, once_s: float, ratio: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        best_iterations(launch_s, once_s, ratio)


def launches(*rates: list[float], flags: list[Flag] | None = None) -> list[Record]:
    return [make_record(BF16, launch, one, flags=flags or []) for launch, one in enumerate(rates)]


def test_noisy_iterations_in_launches_that_agree_ask_for_more_and_steady_ones_in_launches_that_do_not_for_fewer() -> (
    None
):
    noisy = advise_iterations(launches([400, 440, 420], [441, 402, 419], [420, 399, 439]))
    steady = advise_iterations(launches([400, 401, 402], [441, 442, 440], [480, 481, 482]))
    assert noisy is not None
    assert steady is not None
    assert (noisy.set, noisy.launches, noisy.best) == (3, 3, MOST)
    assert noisy.low <= noisy.best <= noisy.high
    assert noisy.relative_time < 1
    assert (steady.low, steady.best, steady.high) == (FEWEST, FEWEST, FEWEST)


def test_the_cost_of_a_launch_is_all_that_is_not_measured() -> None:
    records = launches([400, 412, 405, 409, 402], [405, 416, 404, 410, 409])
    measured_s = [sum(i.elapsed_s for i in record.iterations if not i.warmup) for record in records]
    costly = [r.model_copy(update={"wall_s": 100 + s}) for r, s in zip(records, measured_s, strict=True)]
    found = variances([np.log(measure(record).iteration_output_tokens_per_s) for record in records])
    advice = advise_iterations(costly)
    assert advice is not None
    assert advice.best == round(best_iterations(100, np.mean(measured_s) / 5, found.between / found.within))


def test_there_is_no_advice_without_two_valid_launches_of_two_iterations_that_differ() -> None:
    assert advise_iterations([]) is None
    assert advise_iterations(launches([400, 410])) is None
    assert advise_iterations(launches([400, 410], [405, 420], flags=[INVALID])) is None
    assert advise_iterations(launches([400], [410])) is None
    assert advise_iterations(launches([400, 400], [410, 410])) is None


def test_plan_says_what_would_save_time_and_what_it_costs_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan([BF16, W8A8])
    save(tmp_path, *launches([400, 440, 420], [441, 402, 419], [420, 399, 439]), make_record(W8A8))
    plan_command.show(plan, tmp_path)
    said = capsys.readouterr().out
    assert f"iterations: qwen3-90m bf16 small: 3 set, {MOST} [" in said
    assert f"{MOST} or more] best: same precision in " in said
    assert "% of the time" in said
    assert "(rough: 3 launches)" in said
    assert "w8a8 small: " not in said
    assert "`iterations` in the config" in said
    assert "measured anew" in said


def test_an_optimum_that_the_launches_cannot_tell_from_what_is_set_says_so(tmp_path: Path) -> None:
    save(tmp_path, *launches([400, 412, 405, 409, 402], [405, 416, 404, 410, 409]))
    assert "but 5 may be the best too (rough: 2 launches)" in next(iteration_lines(make_plan([BF16]), tmp_path))


@pytest.mark.parametrize(("iterations", "said"), [(4, "4 set, 4 [4, 4] best: saves no time"), (3, "3 set, 4 [4, 4] ")])
def test_no_time_is_saved_where_the_least_is_set(tmp_path: Path, iterations: int, said: str) -> None:
    rates = [[level + step for step in range(iterations)] for level in (400.0, 441.0, 480.0)]
    save(tmp_path, *launches(*rates))
    line = next(iteration_lines(make_plan([BF16]), tmp_path))
    assert said in line
    assert "saves no time" in line


def test_a_damaged_record_gives_no_advice_and_no_error(tmp_path: Path) -> None:
    save(tmp_path, *launches([400, 412, 405], [410, 421, 409]))
    record_path(tmp_path, "offline", BF16.experiment(), 1).write_text("{")
    assert list(iteration_lines(make_plan([BF16]), tmp_path)) == []
