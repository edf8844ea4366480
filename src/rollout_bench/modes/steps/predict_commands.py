"""Predict rollouts from a calibration, and recommend settings: both plan the config as `rollout-bench plan` does.

A calibration is a launch of mode steps: `rollout-bench run --config modes=[steps]`. Every experiment of mode rollout is
predicted for any lengths, batch sizes and numbers of engines; measured ones stand beside.
"""

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rollout_bench.analysis.stats.intervals import mean
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.commands.run import planned_call
from rollout_bench.contracts.axes import with_setting
from rollout_bench.contracts.forecasts import Expected, Forecast, keep, same_but_engine_version
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_record
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import MISSING, number, percent, several
from rollout_bench.modes.steps import MODE
from rollout_bench.modes.steps.predict.calibrations import calibration_of, calibrations, same_model
from rollout_bench.modes.steps.predict.prediction import PREDICTED, TIMES, Prediction, Predictor, Replays, expected
from rollout_bench.plan.config import DEFAULT_LAUNCHES, PredictionSettings
from rollout_bench.plan.schedule import RESULTS
from rollout_bench.report.figures.charts import Chart, Line, Lines, colours_of, draw, figure_settings, image
from rollout_bench.report.figures.drawings import range_of

CONFIRM = Path("confirm.yaml")
"""Config that measures the recommended settings."""

FIGURE = RESULTS / "prediction.svg"

MARKS = "Line: prediction. Band: its 95 % interval. Circle: measured. Hollow: beyond the calibration."

TIED = 0.95
"""Chance that the truly best setting is among the best and those tied with it."""

BESIDE = ("measured s", "error %", "interval held")
"""Headings of what was measured."""


@dataclass(frozen=True)
class Predicted:
    """An experiment with its prediction, and what was measured.

    Attributes:
        name: its title.
        made: the prediction.
        measured_s: mean time of its iterations; None without any.
        transitions_s: times of transitions of its engine, with sleep and weight sync, in seconds.
    """

    name: str
    made: Prediction
    measured_s: float | None
    transitions_s: Sequence[float] = ()

    @property
    def held(self) -> bool:
        """Whether the interval has the measured time."""
        return self.measured_s is not None and self.made.step.holds(self.measured_s)

    @property
    def whole(self) -> Expected | None:
        """The step with a transition after it; None without any."""
        if not self.transitions_s:
            return None
        draws = self.made.complete_s[100]
        drawn = np.random.default_rng(0).choice(self.transitions_s, len(draws))
        return expected(self.made.step.value + mean(self.transitions_s), draws + drawn)


def predict(argv: Sequence[str]) -> int:
    """Predict each experiment's step from calibrations, with 95 % intervals, and draw its time over the length.

    First measure a calibration: rollout-bench run --configfile config/steps.yaml
    """
    predicted, _ = _predicted("predict", argv, predict.__doc__)
    _print_table(predicted)
    chart = chart_of(predicted)
    with figure_settings():
        write_whole(FIGURE, image(draw(chart)))
    _print_line(f"{FIGURE}: {chart.title}")
    return 0


def chart_of(experiments: Sequence[Predicted]) -> Chart:
    """Chart predicted steps over the length of their sequences, with intervals, and measured ones."""
    order = sorted(experiments, key=lambda each: each.made.length)
    kinds = grouped((_label(each.made), each) for each in order)
    lines = [
        Line(
            label,
            [(each.made.length, each.made.step.value) for each in predicted],
            [(each.made.length, each.made.step.low, each.made.step.high) for each in predicted],
            [(each.made.length, each.measured_s) for each in predicted if each.measured_s is not None],
            [(each.made.length, each.made.step.value) for each in predicted if each.made.beyond],
        )
        for label, predicted in kinds.items()
    ]
    steps_s, lengths = [each.made.step.value for each in experiments], [each.made.length for each in experiments]
    title = f"A step of {range_of(lengths, 3)} output tokens a sequence takes {range_of(steps_s, 3)} s"
    panel = Lines("", "output tokens of a sequence, mean", "s", lines)
    return Chart(title, "", MARKS, [panel], colours_of(kinds))


def _label(made: Prediction) -> str:
    """Return the engine and the number of sequences."""
    spec, sequences = made.spec, round(made.output_tokens / made.length)
    engine = f"{spec.model.name} {with_setting(spec.quant.name, spec.axes['setting'])}"
    return f"{engine}, {several(sequences, 'sequence')}"


def recommend(argv: Sequence[str]) -> int:
    """Name the settings with each workload's shortest predicted step, and write the config that confirms them."""
    predicted, made = _predicted("recommend", argv, recommend.__doc__)
    _print_table(predicted)
    bounds = made.config.prediction
    drifts = _drifts_nats() if bounds.drift_nats is not None else []
    broken = {each.name: broken_bounds(each, bounds, drifts) for each in predicted}
    allowed = [each for each in predicted if not broken[each.name]]
    if not allowed:
        raise UserError(
            f"{predicted[0].name}: {broken[predicted[0].name]}", "raise the bound in prediction, or add settings"
        )
    kept: list[Predicted] = []
    for candidates in grouped(
        ((each.made.spec.model.name, each.made.spec.workload.name), each) for each in allowed
    ).values():
        best, rest = ranked(candidates)
        kind, cost = ("device-seconds", "device-seconds") if _by_device(candidates) else ("s", "time")
        _print_line(f"best: {best.name}: {_cost_text(best, candidates)} {kind} a step")
        for each, (ratio, tied) in rest:
            _print_line(
                f"{'tied with it' if tied else 'worse'}: {each.name}: {_text(ratio)}x its {cost}: {_steps(each, best)}"
            )
        kept += [best, *[each for each, (_, tied) in rest if tied]]
    for each in (each for each in predicted if each not in allowed):
        _print_line(f"left out: {each.name}: {broken[each.name]}")
    baseline = made.config.baseline.axes.get("setting")
    settings = [each.made.spec.axes["setting"] or "default" for each in kept]
    confirming = {"settings": list(dict.fromkeys([*settings, *([baseline] if baseline else [])]))}
    confirming |= {"quants": list(dict.fromkeys(each.made.spec.quant.name for each in kept))}
    confirming["modes"] = list(dict.fromkeys(each.made.spec.mode for each in kept))
    write_whole(CONFIRM, yaml.safe_dump(confirming, sort_keys=False).encode())
    out = f"; {len(allowed) - len(kept)} left out" if len(kept) < len(allowed) else ""
    _print_line(
        f"{CONFIRM}: {several(len(kept), 'engine')}; the best is among them with {100 * TIED:.0f} % confidence{out}"
    )
    _print_line(f"next: rollout-bench run with the same config files and {CONFIRM} as the last one; then predict again")
    return 0


def ranked(candidates: Sequence[Predicted]) -> tuple[Predicted, list[tuple[Predicted, tuple[Expected, bool]]]]:
    """Return the best candidate, and the others in order, each with its cost / the best's and whether they are tied.

    The cost is the time of a step, or its device-seconds if numbers of devices differ. Predictions from one calibration
    share its draws, so that its errors cancel in the ratio. One is tied if it may be the best: its cost exceeds the
    least by no more than the `TIED` quantile of the largest excess that errors alone make, max over j of e_i - e_j of
    the draws' logarithms. So the true best is among best and ties with this chance, however many settings there are
    (multiple comparisons with the best: J. C. Hsu, Multiple Comparisons, 1996, chapter 4).
    """
    costs = {each.name: _costs(each, candidates) for each in candidates}
    order = sorted(candidates, key=lambda each: costs[each.name][0])
    best, *others = order
    value, draws = costs[best.name]
    logs = np.log([costs[each.name][1] for each in order])
    errors = logs - np.log([[costs[each.name][0]] for each in order])
    rest = []
    for place, each in enumerate(others, 1):
        cost, cost_draws = costs[each.name]
        excess = (errors[place] - np.delete(errors, place, axis=0)).max(axis=0)
        is_tied = math.log(cost / value) <= float(np.quantile(excess, TIED))
        rest.append((each, (expected(cost / value, cost_draws / draws), is_tied)))
    return best, rest


def _by_device(candidates: Sequence[Predicted]) -> bool:
    return len({each.made.devices for each in candidates}) > 1


def _costs(each: Predicted, among: Sequence[Predicted]) -> tuple[float, Any]:
    factor = each.made.devices if _by_device(among) else 1
    return factor * each.made.step.value, factor * each.made.complete_s[100]


def _steps(each: Predicted, best: Predicted) -> str:
    """Return the reason for a difference: more steps of the engine, longer ones, or preemptions."""
    own, other = (
        f"{number(made.steps, 3)} engine steps of {number(1e3 * made.step.value / made.steps, 3)} ms"
        for made in (each.made, best.made)
    )
    again = f", {number(each.made.preemptions, 3)} preemptions" if each.made.preemptions else ""
    return f"{own}{again}, in place of {other}"


def broken_bounds(each: Predicted, bounds: PredictionSettings, drifts_nats: Sequence[tuple[Spec, float]]) -> str:
    """Return the bound that an experiment breaks, in words; empty if it keeps all."""
    late = each.made.complete(90)
    if bounds.t90_s is not None and late.value > bounds.t90_s:
        return f"90 % of its sequences take {_text(late)} s; prediction.t90_s is {bounds.t90_s:g}"
    if bounds.drift_nats is None:
        return ""
    drifts = [nats for spec, nats in drifts_nats if same_model(spec, each.made.spec)]
    if not drifts:
        modes = ", ".join(mode.name for mode in MODES.values() if mode.drifts_nats)
        return f"its drift is not known: rollout-bench run --config modes=[{modes}]"
    if math.isinf(max(drifts)):
        return "its mean |d| has no upper end: too few sequences differ; score more (drift.prompts)"
    return f"its mean |d| reaches {number(max(drifts), 3)} nats per token" if max(drifts) > bounds.drift_nats else ""


def _drifts_nats() -> list[tuple[Spec, float]]:
    """Return specs whose drift was measured, each with the upper end of its mean |d|, in nats per token."""
    collection = collect(RESULTS, None)
    return [one for mode in MODES.values() if mode.drifts_nats for one in mode.drifts_nats.get()(RESULTS, collection)]


def _cost_text(each: Predicted, among: Sequence[Predicted]) -> str:
    return _text(expected(*_costs(each, among)))


def _predicted(command: str, argv: Sequence[str], purpose: str | None) -> tuple[list[Predicted], Any]:
    """Return the experiments of the call with their predictions, and the plan."""
    _, state, engine = planned_call(command, argv, purpose)
    made = state.schedule
    known = calibrations(RESULTS)
    predicted = []
    with Replays(engine.python) as replays:
        predictor = Predictor(replays)
        for each in (one for one in made.matrix.experiments if one.spec.mode in PREDICTED):
            calibration = calibration_of(each.spec, known)
            measured_s = _measured_s(each.spec)
            planned = made.config.launches_of(each.spec.mode) if made.config.launches != "auto" else DEFAULT_LAUNCHES
            launches = measured_s or range(planned)
            prediction = predictor.predict(each.spec, calibration, launches, each.model_path, each.dataset_path)
            if prediction.beyond and not made.config.prediction.extrapolate:
                raise UserError(
                    f"{each.spec.title}: {prediction.beyond[0]}",
                    "calibrate further (steps.context_tokens, max_num_seqs), or set prediction: {extrapolate: true}",
                )
            mean_s = mean([*measured_s.values()]) if measured_s else None
            predicted.append(Predicted(each.spec.title, prediction, mean_s, _transitions_s(each.spec)))
    if not predicted:
        modes = ", ".join(PREDICTED)
        raise UserError(f"modes: {modes} is not among them", f"name it: --config modes=[{modes}]")
    keep(
        RESULTS,
        (Forecast(spec=m.spec, step_s=m.step, extrapolated=bool(m.beyond)) for m in (f.made for f in predicted)),
    )
    if any(each.made.launches == 1 for each in predicted):
        _print_line(
            "intervals: a calibration has one launch, so they lack the spread between starts; add launches: --config "
            f"modes=[{MODE.name}] launches=3"
        )
    for model in predictor.models.values():
        _print_line(
            f"fit: half of {len(model.kinds)} kinds of steps are predicted within {percent(model.error(0.5))} by the "
            f"others, 90 % within {percent(model.error(0.9))}; worst, {percent(model.worst.error)}: {model.worst.name}"
        )
    return predicted, made


def _measured_s(spec: Spec) -> dict[int, float]:
    """Return valid launch -> mean time of its iterations, in seconds."""
    records = (
        each for each in valid_records(f"{spec.mode}/{spec.names}-*") if same_but_engine_version(each.spec, spec)
    )
    return {one.launch: mean([each.elapsed_s for each in one.iterations if not each.warmup]) for one in records}


def _transitions_s(spec: Spec) -> list[float]:
    """Return the time of each measured transition of the engine of `spec`, in seconds."""
    return [
        mode.transition_s.get()(iteration)
        for mode in MODES.values()
        if mode.transition_s
        for record in valid_records(f"{mode.name}/{spec.model.name}_{spec.quant.name}_*")
        if same_model(record.spec, spec)
        for iteration in record.iterations
        if not iteration.warmup
    ]


@functools.cache  # loads of an engine share its cycles
def valid_records(folders: str) -> tuple[Record, ...]:
    paths = sorted(RESULTS.glob(f"{folders}/launch-*.json"))
    return tuple(record for record in map(read_record, paths) if record.valid)


def _text(shown: Expected) -> str:
    return f"{number(shown.value)} [{number(shown.low)}, {number(shown.high)}]"


def _print_table(predicted: Sequence[Predicted]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("experiment", overflow="fold")
    whole = ["with transition s"] if any(each.whole for each in predicted) else []
    times = [f"t{each} s" for each in TIMES]
    for heading in ("step s", *whole, "output tok/s", *times, "preempted", "KV peak %", *BESIDE):
        table.add_column(heading, justify="right")
    for each in predicted:
        made = each.made
        measured = [MISSING] * len(BESIDE)
        if each.measured_s is not None:
            error = made.step.value / each.measured_s - 1
            measured = [number(each.measured_s), f"{100 * error:+.1f}", "yes" if each.held else "no"]
        mark = " (extrapolated)" if made.beyond else ""
        table.add_row(
            f"{each.name}{mark}",
            _text(made.step),
            *(MISSING if each.whole is None else _text(each.whole) for _ in whole),
            _text(made.tokens_per_s),
            *(number(made.complete(percent).value) for percent in TIMES),
            number(made.preemptions),
            number(100 * made.kv_peak, 3),
            *measured,
        )
    _console().print(table)
    judged = [each for each in predicted if each.measured_s is not None]
    if judged:
        held = sum(each.held for each in judged)
        _print_line(f"the interval held the measured time of {held} of {several(len(judged), 'experiment')}")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True, highlight=False)


def _print_line(line: str) -> None:
    _console().print(escape(line))
