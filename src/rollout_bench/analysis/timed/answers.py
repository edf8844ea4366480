"""Answers from several rows together: the best configuration, and trends over a swept number."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rollout_bench.analysis.stats.blocks import may_be_best
from rollout_bench.analysis.timed.comparison import Stop, estimated, log_ratios
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import DEFAULT_SETTING, UNKNOWN, with_setting
from rollout_bench.contracts.spec import (
    config_text,
    differing,
    number_of,
    settable_values,
    swept_number,
    values_in_name,
)
from rollout_bench.core.mappings import grouped
from rollout_bench.plan.config import ComparisonSettings

FEWEST = 3
"""Minimum configurations for a best one; for two, the verdict is enough."""


@dataclass(frozen=True)
class BestAndTies:
    """Configurations that share a baseline, including the baseline, by the first metric.

    `best` has the best mean of the configurations that may be the best. `ties` are not distinguishable from it, the
    best of them first. `complete` is whether every compared configuration is included.
    """

    best: Row
    ties: tuple[Row, ...]
    complete: bool


def compared_rows(rows: Iterable[Row]) -> list[tuple[Row, list[Row]]]:
    """Return each baseline's row with the rows that are compared with it."""
    rows = list(rows)
    by_place = {row.experiment.place: row for row in rows}
    groups = grouped((row.against.other.place, row) for row in rows if row.against.other is not None)
    return [(by_place[place], others) for place, others in groups.items()]


def best_and_ties(
    baseline: Row, others: Sequence[Row], settings: ComparisonSettings, stop: Stop = None
) -> BestAndTies | None:
    """Return the standing of the configurations that are compared pair by pair with `baseline`; None if undetermined.

    It is undetermined for fewer than `FEWEST` configurations, and if their pairs were computed in different
    ways. `stop` determined the number of launches, as in `comparison.judge`.
    """
    judged = [row for row in others if row.comparison.p_value is not None and not row.comparison.sides]
    if len(judged) + 1 < FEWEST or len({row.comparison.ways for row in judged}) > 1:
        return None
    logs = log_ratios([row.comparison for row in judged])
    estimates = estimated(logs, stop)[0]  # a conclusion must hold for each of them
    if not all(np.isfinite(estimate.error).all() for estimate in estimates):
        return None
    by_each = [
        may_be_best(
            logs,
            spread=float(estimate.pooled_error[0]) * math.sqrt(int(estimate.pairs[0]) / 2),
            freedom=int(estimate.freedom),
            level=1 - settings.confidence,
            correlation=float(estimate.correlation),
        )
        for estimate in estimates
    ]
    may_be = [any(each) for each in zip(*by_each, strict=True)]
    means = [0.0, *np.nanmean(logs, axis=0)]
    everyone = [baseline, *judged]
    order = sorted(range(len(everyone)), key=lambda place: (not may_be[place], -means[place]))
    best, *rest = order
    if not may_be[best]:  # each configuration is ruled out by another, in blocks that not all share
        return None
    undetected = {place for place, row in enumerate(everyone) if row.comparison.verdict == "undetected"}
    # Verdicts are two-sided. To agree with them, the baseline stays with the rows that do not differ from it.
    together = undetected if best == 0 else {0} if best in undetected else set()
    ties = [place for place in rest if may_be[place] or place in together]
    return BestAndTies(
        best=everyone[best],
        ties=tuple(everyone[place] for place in ties),
        complete=len(judged) == len(others),
    )


@dataclass(frozen=True)
class SweepLine:
    """Rows that differ in one number only, by its value.

    `label` distinguishes the line from the others: the quantization, and other settings that not all lines share.
    """

    mode: str
    platform: str
    model: str
    workload: str
    label: str
    rows: tuple[tuple[float, Row], ...]


def lines_over(rows: Sequence[Row]) -> tuple[str, list[SweepLine]]:
    """Return the name of the swept number in the settings of `rows`, and the lines over it; both may be empty."""
    measured = [row for row in rows if row.used and row.experiment.part is None]
    specs = {row.experiment.place: row.experiment.records[0].spec for row in measured}
    name = swept_number(list(specs.values()))
    if name is None:
        return "", []
    others = [other for other in differing(specs.values()) if other != name]
    points_of: dict[tuple[str, str, str, str, str], list[tuple[float, Row]]] = {}
    for row in measured:
        spec = specs[row.experiment.place]
        value = number_of(spec, name)
        if value is not None:
            experiment, settings = row.experiment, settable_values(spec)
            fixed = " ".join(f"{other}={config_text(settings[other])}" for other in others if other in settings)
            label = with_setting(row.quant_label, fixed or DEFAULT_SETTING)
            points_of.setdefault(
                (experiment.mode, experiment.platform, experiment.model, experiment.workload, label), []
            ).append((value, row))
    lines = [SweepLine(*names, tuple(sorted(points, key=lambda each: each[0]))) for names, points in points_of.items()]
    return name, [line for line in lines if len({value for value, _ in line.rows}) > 1]


def shortly_named(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return `rows` with short labels for figures, and the names of the swept values in them.

    If only settings differ, the label is the setting's name, including `default`. A setting of a sweep over several
    names is labelled with its values, such as `8+true+fp8`. The names are empty if there is no such sweep.
    """
    specs = {row.experiment.setting: row.experiment.records[0].spec for row in rows if row.experiment.records}
    names_set = differing(specs.values())
    values_of = {
        setting: values_in_name(spec, names_set) for setting, spec in specs.items() if setting != DEFAULT_SETTING
    }
    keys = {tuple(values) for values in values_of.values()}
    names = keys.pop() if len(keys) == 1 else ()
    swept = len(names) > 1 and all(len(setting.split("+")) == len(names) for setting in values_of)
    short = {setting: "+".join(values.values()) for setting, values in values_of.items()} if swept else {}
    of_settings = len({row.quant_label for row in rows}) == 1 and len({row.experiment.setting for row in rows}) > 1
    labelled = []
    for row in rows:
        setting = short.get(row.experiment.setting, row.experiment.setting)
        label = setting if of_settings else with_setting(row.quant_label, setting)
        labelled.append(replace(row, label=row.experiment.model if label == UNKNOWN else label))
    return labelled, "+".join(names) if swept else ""
