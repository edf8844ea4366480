"""`launches: auto` on records: the first stage, what it asks for, and what is told."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_records import make_block, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.analysis.stats.blocks import critical_value
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.contracts.record import Flag
from rollout_bench.plan.config import Precision
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.summary import summarise

BASE, ONE, TWO = make_spec(quant="bf16"), make_spec(quant="w8a8"), make_spec(quant="w8a16")
NOISE = np.array([0.3, -1.1, 0.9, 0.2, -0.6, 1.2, 0.1, -1.4, 0.7, -0.2, 0.5, -0.9])
"""Of the launches of `ONE`, those of `TWO` have it backwards."""
BUSY = Flag(code="cpu_shared", severity="invalid", sentence="Others used the cores.")


def plan(*specs, half_width: float = 0.02, most: int = 12) -> PlanFile:
    precision = Precision(half_width=half_width, max_launches=most)
    return make_plan(specs or (BASE, ONE, TWO), most).model_copy(update={"precision": precision})


def put(results: Path, spec, launches, factor: float = 1.0, spread: float = 0.0, **more) -> None:
    noise = NOISE[::-1] if spec is TWO else NOISE
    for launch in launches:
        record = make_record(spec, launch, [400 * factor * math.exp(spread * noise[launch])] * 3, **more)
        save(results, record)


def put_block(results: Path, launch: int, *specs) -> None:
    """Put the records of one block of three rounds."""
    rates = []
    for number, spec in enumerate(specs):
        noise = (NOISE[::-1] if spec is TWO else NOISE) * (number > 0)
        rates.append([400 * math.exp(noise[launch] * (0.025 if spec is TWO else 0.001))] * 3)
    save(results, *make_block(specs, launch, rates))


def wanted(results: Path, selected: PlanFile) -> dict[str, int | None]:
    return {e.quant: e.planned for e in collect(results, selected).experiments}


def compared(results: Path, selected: PlanFile) -> dict[str, Comparison]:
    return {row.experiment.quant: row.comparison for row in rows_of(collect(results, selected))}


def told(results: Path, selected: PlanFile) -> str:
    return " ".join(summarise(collect(results, selected)).markdown.replace("\\", "").split())


def asked(*series: np.ndarray, half_width: float = 0.02) -> list[int]:
    """Return the blocks that the first stage of whole blocks asks for, reckoned another way: residuals by hand."""
    d = np.stack(series, axis=-1)
    m, k = len(d), d.shape[1] + 1
    y = np.concatenate([np.zeros((m, 1)), d], axis=1)
    residuals = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean()
    pooled = 2 * (residuals**2).sum() / ((m - 1) * (k - 1))
    critical = stats.t.ppf(0.975, m - 1) if k == 2 else critical_value(k - 1, (m - 1) * (k - 1), 0.05)
    own = d.var(axis=0, ddof=1)
    # Of two, one is compared with the other; above this it is judged by its own spread.
    more = (k == 3) & (own > stats.f.ppf(0.9, m - 1, m - 1) * own[::-1])
    alone = np.where(more, stats.t.ppf(1 - 0.05 / 2 / (k - 1), m - 1) * np.sqrt(own), 0)
    reach = np.maximum(critical * np.sqrt(np.maximum(pooled, own)), alone)
    return [math.ceil((each / math.log1p(half_width)) ** 2) for each in reach]


def test_the_first_stage_is_longer_for_a_single_comparison(tmp_path: Path):
    (tmp_path / "offline").mkdir()
    assert wanted(tmp_path, plan()) == {"bf16": 3, "w8a8": 3, "w8a16": 3}
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": 4, "w8a8": 4}
    assert wanted(tmp_path, plan(BASE, ONE, most=3)) == {"bf16": 3, "w8a8": 3}
    assert wanted(tmp_path, plan(ONE)) == {"w8a8": 3}


def test_the_spread_of_the_first_stage_sets_all_further_launches(tmp_path: Path):
    put(tmp_path, BASE, range(4))
    put(tmp_path, ONE, range(4), 1.2, 0.015)
    (number,) = asked(0.015 * NOISE[:4])
    assert 4 < number < 12
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": number, "w8a8": number}
    missing = {e.missing for e in collect(tmp_path, plan(BASE, ONE)).experiments}
    assert missing == {tuple(range(4, number))}


def test_each_has_its_own_number_and_the_baseline_the_most(tmp_path: Path):
    put(tmp_path, BASE, range(3))
    put(tmp_path, ONE, range(3), 1.2, 0.001)
    put(tmp_path, TWO, range(3), 0.9, 0.025)
    one, two = asked(0.001 * NOISE[:3], 0.025 * NOISE[::-1][:3])
    assert 3 < one < two < 48
    assert wanted(tmp_path, plan(most=48)) == {"bf16": two, "w8a8": one, "w8a16": two}


def test_quants_in_blocks_with_their_baseline_get_equal_launches(tmp_path: Path):
    for launch in range(3):
        put_block(tmp_path, launch, BASE, ONE, TWO)
    one, two = asked(0.001 * NOISE[:3], 0.025 * NOISE[::-1][:3])
    assert 3 < one < two < 48
    assert wanted(tmp_path, plan(most=48)) == {"bf16": two, "w8a8": two, "w8a16": two}
    save(tmp_path, make_failure(ONE, one))
    assert wanted(tmp_path, plan(most=48)) == {"bf16": two, "w8a8": two, "w8a16": two}


def test_later_launches_widen_an_interval_and_change_no_number(tmp_path: Path):
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    for results, spread in ((calm, 0.0), (wild, 0.05)):
        put(results, BASE, range(12))
        put(results, ONE, range(4), 1.2, 0.015)
        put(results, ONE, range(4, 12), 1.2, spread)
    (number,) = asked(0.015 * NOISE[:4])
    for results in (calm, wild):
        assert wanted(results, plan(BASE, ONE)) == {"bf16": number, "w8a8": number}
        assert collect(results, plan(BASE, ONE)).beyond_planned == 2 * (12 - number)
    one, other = (compared(results, plan(BASE, ONE))["w8a8"] for results in (calm, wild))
    half = stats.t.ppf(0.975, 3) * np.std(0.015 * NOISE[:4], ddof=1) / math.sqrt(number)
    assert math.log(one.high / one.speedup) == pytest.approx(half)
    t = math.log(one.speedup) / half * stats.t.ppf(0.975, 3)
    assert one.p_value == pytest.approx(2 * stats.t.sf(t, 3))
    assert one.high / one.speedup <= 1.02
    later = np.concatenate([0.015 * NOISE[:4], 0.05 * NOISE[4:number]])
    fixed = stats.ttest_1samp(later + math.log(1.2), 0)
    assert other.low == pytest.approx(math.exp(fixed.confidence_interval(0.95).low))
    assert other.p_value >= fixed.pvalue


def test_an_invalid_launch_of_the_first_stage_is_replaced(tmp_path: Path):
    put(tmp_path, BASE, range(4))
    put(tmp_path, ONE, range(1), 1.2, 0.015, flags=(BUSY,))
    put(tmp_path, ONE, range(1, 4), 1.2, 0.015)
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": 5, "w8a8": 5}
    put(tmp_path, BASE, range(4, 5))
    put(tmp_path, ONE, range(4, 5), 1.2, 0.015)
    (number,) = asked(0.015 * NOISE[1:5])
    assert 4 < number < 11
    assert wanted(tmp_path, plan(BASE, ONE)) == {"bf16": number + 1, "w8a8": number + 1}


def test_a_quant_that_cannot_start_holds_up_no_other(tmp_path: Path):
    put(tmp_path, BASE, range(4))
    save(tmp_path, *(make_failure(ONE, launch) for launch in range(3)))
    put(tmp_path, TWO, range(3), 0.9, 0.02)
    # alone with its baseline it has a first stage of four
    assert wanted(tmp_path, plan()) == {"bf16": 4, "w8a8": 3, "w8a16": 4}
    put(tmp_path, TWO, range(3, 4), 0.9, 0.02)
    (number,) = asked(0.02 * NOISE[::-1][:4])
    assert 4 < number < 12
    assert wanted(tmp_path, plan()) == {"bf16": number, "w8a8": 3, "w8a16": number}
