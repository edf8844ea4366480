"""What is shown of operators mode: tables, notes and the figure, from records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn import assert_texts_are_apart
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_operators import BF16, SHAPES, TOKENS, W8A8, Kernel, make_operators, make_operators_spec, selected
from synthetic_records import make_record, make_spec, save

from rollout_bench.analysis.inside.curves import OperatorsRun, runs_of
from rollout_bench.analysis.inside.predictions import ProfiledStep, passes_of, steps_of
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import chosen
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.report.figures.inside.operator_figures import operators_figure
from rollout_bench.report.figures.style import image, settings
from rollout_bench.report.headings import View
from rollout_bench.report.tables.operator_tables import operators_notes, operators_views

PLACE = ("cpu", "qwen3-90m", "small")


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with settings():
        yield


def runs(
    launches: int = 3, quants: Sequence[tuple[str, Kernel]] = (("bf16", BF16), ("w8a8", W8A8))
) -> list[OperatorsRun]:
    experiments = [
        selected(*(make_operators(make_operators_spec(quant=quant), launch, kernel) for launch in range(launches)))
        for quant, kernel in quants
    ]
    return runs_of(chosen(experiments), {"quant": "bf16"}, 0.95)


def lines(table: View) -> list[dict[str, str]]:
    headers = [column.header for column in table.columns]
    return [dict(zip(headers, line, strict=True)) for line in table.cells]


def test_each_role_has_its_break_even_with_an_interval_around_the_true_one() -> None:
    bf16, w8a8 = runs()
    assert bf16.against is None
    assert w8a8.against is not None
    assert list(w8a8.against) == list(SHAPES)
    for against in w8a8.against.values():
        found = against.break_even
        assert found.kind == "from"
        assert found.low is not None
        assert found.high is not None
        assert found.low < 6 < found.high
        assert 1 in found.slower
        assert 1024 in found.faster


def test_tables_tell_break_even_time_and_speedup_by_role() -> None:
    first, second, third = operators_views(steps_of(runs()))
    assert first.title == "Linear layers, break-even: operators, cpu, model qwen3-90m, workload small"
    qkv = lines(first)[0]
    assert (qkv["quant"], qkv["layer"], qkv["K x N"], qkv["layers"]) == ("w8a8", "qkv", "768 x 1280", "12")
    assert qkv["break-even M"].startswith(">= ")
    assert qkv["faster at M"].endswith("1024")
    assert len(lines(second)) == 2 * len(SHAPES)
    assert {line["M"] for line in lines(second)} == {"32"}
    own_us = (BF16.call_s + 32 * BF16.token_s) * 768 * 1280
    assert float(lines(second)[0]["us per call"].split()[0]) == pytest.approx(own_us, rel=0.05)
    assert [line["speed-up"] for line in lines(second)][: len(SHAPES)] == ["(baseline)"] * len(SHAPES)
    step = lines(third)
    total = sum(layers * (BF16.call_s + 32 * BF16.token_s) * k * n / 1e6 for k, n, layers in SHAPES.values())
    assert float(step[0]["decode ms"].split()[0]) == pytest.approx(1e3 * total, rel=0.05)
    assert "predicted end to end" not in step[0]


def test_prefill_leaves_lm_head_out_and_is_per_token() -> None:
    (step, _) = steps_of(runs())
    assert step.prefill is not None
    weights = sum(layers * k * n / 1e6 for role, (k, n, layers) in SHAPES.items() if role != "lm_head")
    per_token = weights * (BF16.call_s / 1024 + BF16.token_s)
    assert step.prefill.tokens == 1024
    assert step.prefill.seconds.value == pytest.approx(per_token, rel=0.05)


def test_a_profiles_share_tells_what_the_whole_step_would_gain() -> None:
    profiled = {(*PLACE, "bf16"): ProfiledStep(0.040, 0.020), (*PLACE, "w8a8"): ProfiledStep(0.030, 0.015)}
    found = steps_of(runs(), profiled)
    gain = found[1].decode.speedup.value  # type: ignore[union-attr]
    assert gain == pytest.approx((50 + 320) / (80 + 160), rel=0.05)
    assert found[1].end_to_end is not None
    assert found[1].end_to_end.value == pytest.approx(1 / (0.5 + 0.5 / gain))
    assert found[0].end_to_end is None
    table = lines(operators_views(found)[2])
    assert table[1]["share %"] == "50.0"
    assert table[1]["predicted decode step"].startswith(f"{found[1].end_to_end.value:.3f}x [")


def test_what_a_pass_would_gain_stands_beside_what_it_gained(tmp_path: Path) -> None:
    rates = (200.0, 205.0, 210.0)
    save(tmp_path, *(make_record(make_spec(), launch, rates) for launch in range(3)))
    save(tmp_path, *(make_record(make_spec(quant="w8a8"), n, (240.0, 250.0 + n, 253.0)) for n in range(3)))
    steps = steps_of(runs())
    base, own = passes_of(steps, rows_of(collect(tmp_path, None)))
    # 32 sequences of 32 tokens: 31 decode steps of the whole batch, and 32 prompts of 64 tokens
    decode_s, prefill_s = (phase.seconds.value for phase in (steps[0].decode, steps[0].prefill) if phase)
    assert base.linear_s == pytest.approx(31 * decode_s + 32 * 64 * prefill_s)
    elapsed_s = float(np.mean([1024 / rate for rate in rates]))
    assert base.share == pytest.approx(base.linear_s / elapsed_s)
    assert own.predicted is not None
    assert own.measured is not None
    changed_s = elapsed_s - base.linear_s + own.linear_s
    assert own.predicted.value == pytest.approx(elapsed_s / changed_s, rel=0.001)
    assert own.predicted.low < own.predicted.value < own.predicted.high
    assert own.measured.value == pytest.approx(248 / 205, rel=0.02)
    table = lines(operators_views(steps, [base, own])[3])
    assert table[0]["predicted"] == "(baseline)"
    assert table[1]["measured"].startswith(f"{own.measured.value:.3f}x [")


def test_linear_layers_that_take_longer_than_the_pass_predict_nothing(tmp_path: Path) -> None:
    save(tmp_path, make_record(make_spec(), 0, (4000.0,)), make_record(make_spec(quant="w8a8"), 0, (4000.0,)))
    base, own = passes_of(steps_of(runs()), rows_of(collect(tmp_path, None)))
    assert base.share > 1
    assert own.predicted is None


def test_a_pass_of_several_replicas_is_none_of_one_engine(tmp_path: Path) -> None:
    save(tmp_path, make_record(make_spec(args={"data_parallel_size": 2})))
    assert passes_of(steps_of(runs()), rows_of(collect(tmp_path, None))) == []


def test_a_single_launch_is_compared_over_its_rounds_and_says_so() -> None:
    single = runs(launches=1)
    assert single[1].against is not None
    assert {against.speedup.over for against in single[1].against.values()} == {"rounds"}
    assert "rounds" in operators_notes(single, 0.95)[0].items[1]
    assert "rounds" not in operators_notes(runs(), 0.95)[0].items[1]


def test_what_does_not_compare_says_why() -> None:
    w8a8 = make_operators_spec(quant="w8a8")
    alone = runs_of(chosen([selected(make_operators(w8a8, 0, W8A8))]), {"quant": "bf16"}, 0.95)
    assert alone[0].reason == "bf16 is not measured for it"
    bf16 = selected(make_operators(make_operators_spec()))
    other = make_operators(w8a8, 0, W8A8).model_copy(update={"threads": 8})
    assert "another machine" in runs_of(chosen([bf16, selected(other)]), {}, 0.95)[1].reason
    assert "nothing to compare" in words(operators_figure(runs_of(chosen([bf16]), {}, 0.95), "here", ""))
    assert "bf16 is not measured" in words(operators_figure(alone, "here", ""))
    assert operators_notes([], 0.95) == []


def test_points_that_a_launch_lacks_are_left_out_of_all() -> None:
    spec = make_operators_spec()
    short = selected(make_operators(spec), make_operators(spec, 1, tokens=TOKENS[:-1]))
    run = runs_of(chosen([short]), {}, 0.95)[0]
    assert {curve.tokens for curve in run.curves.values()} == {TOKENS[:-1]}
    assert steps_of([run])[0].prefill.tokens == 512  # type: ignore[union-attr]


def test_shapes_of_one_role_stand_apart() -> None:
    shapes = {"gate_up": (768, 4096, 11)}
    record = make_operators(make_operators_spec(), shapes=shapes)
    second = make_operators(make_operators_spec(), shapes={"gate_up": (768, 1024, 1)})
    mixed = record.model_copy(
        update={"linears": record.linears + second.linears, "points": record.points + second.points}
    )
    run = runs_of(chosen([selected(mixed)]), {}, 0.95)[0]
    assert list(run.curves) == ["gate_up 768x4096", "gate_up 768x1024"]


def words(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())  # type: ignore[attr-defined]


def test_the_figure_has_a_panel_for_each_role_a_line_at_one_and_the_batch() -> None:
    figure = operators_figure(runs(), "vllm on a machine", "")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown] == [f"{r}, {k} x {n}" for r, (k, n, _) in SHAPES.items()]
    for axes in shown:
        flat = [line for line in axes.lines if set(line.get_ydata()) == {1}]  # type: ignore[arg-type]
        assert flat
        assert any(set(line.get_xdata()) == {32} for line in axes.lines)  # type: ignore[arg-type]
        curve = next(line for line in axes.lines if len(line.get_xdata()) == len(TOKENS))  # type: ignore[arg-type]
        assert list(curve.get_xdata()) == list(TOKENS)
        assert axes.collections
    assert "interval over launches" in words(figure)


@pytest.mark.parametrize("quants", [1, 3])
def test_labels_of_the_figure_do_not_overlap(quants: int) -> None:
    kernels = [(f"w8a8-{number}", Kernel(80e-6, (5 - 1.4 * number) * 1e-6)) for number in range(quants)]
    figure = operators_figure(runs(quants=[("bf16", BF16), *kernels]), "vllm 0.32.0 on AMD EPYC", "")
    assert_texts_are_apart(figure)


def test_the_same_records_make_the_same_figure() -> None:
    assert image(operators_figure(runs(), "here", "")) == image(operators_figure(runs(), "here", ""))
