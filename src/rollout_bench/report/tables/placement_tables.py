"""The tables of placements: costs of a step for each placement, and activities of each device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout_bench.analysis.cycles.placed_costs import (
    ACTIVITIES,
    SLEEPING,
    DeviceCosts,
    PlacedCosts,
    placed_costs,
    placed_table,
    unlike_work,
)
from rollout_bench.analysis.cycles.proofs import unfit
from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import AXES
from rollout_bench.contracts.modes import PLACEMENT
from rollout_bench.contracts.placed_steps import Activity, AsleepMemory, PlacementSpec
from rollout_bench.core.numbers import MISSING, brief, count, number
from rollout_bench.report.contrasts import Contrast, contrast, engine_settings
from rollout_bench.report.headings import LAUNCHES, Column, Line, metric_columns, view
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.tables.offline_tables import compared_columns, throughput_views

MOST = 8
"""Maximum number of experiments with a sentence; the table has all."""

WHOLE_STEP = "placed_step_s"
"""The metric of the sentences, if it is compared."""

ACTIVITY: Mapping[Activity, str] = {
    "generate": "Generating. This column and the next ones are shares of the whole step.",
    "sleep": "Putting the device's engine to sleep, which frees memory.",
    "gather": "Handing over generated sequences and receiving sequences to train on. If devices that train share an "
    "engine, they also hand each other prompts. Waiting for others beforehand is idle time.",
    "train": "Forward and backward of the trainer's stand-in.",
    "reduce": "Adding up the gradients of all devices that train.",
    "optimize": "The optimizer's step.",
    "wake": "Waking the device's engine: weights before the update, KV cache after it.",
    "update": "Loading the new weights into the engine, or sending them.",
    "reset": "Emptying the prefix cache of the old weights.",
}
"""Activity of a device -> definition of its column."""


def _costs(cell: Callable[[PlacedCosts], str]) -> Callable[[Line], str]:
    return lambda line: MISSING if line["costs"] is None else cell(line["costs"])


def _seconds(field: str) -> Callable[[Line], str]:
    return _costs(lambda costs: number(getattr(costs, field), 3))


def _asleep(bytes_of: Callable[[AsleepMemory], int]) -> Callable[[Line], str]:
    return _costs(lambda costs: MISSING if costs.asleep is None else number(bytes_of(costs.asleep) / 2**30, 3))


def _percent(share: float) -> str:
    return number(100 * share, 3)


def placed(spec: PlacementSpec) -> str:
    """Return the name of a placement in sentences, as a noun."""
    if spec.generators is None:
        return "engine and trainer colocated" + (f" with sleep level {spec.sleep}" if spec.sleep else "")
    how = "generating a step ahead" if spec.overlap else "only generating"
    return f"{spec.generators} of {spec.devices} devices {how}"


WHERE = Column(
    "engine and trainer",
    "Placement of engine and trainer. Colocated: each device alternately generates and trains. A step ahead: "
    "devices train on the sequences of the previous step, while others generate the next sequences with "
    "weights that are one step old.",
    _costs(lambda costs: placed(costs.spec).removeprefix("engine and trainer ")),
    words=True,
)
DEVICES = Column(
    "devices",
    "Devices that share a step, whether they generate or train; on a CPU, blocks of cores.",
    _costs(lambda costs: str(costs.spec.devices)),
)
SHARDS = Column(
    "devices per engine",
    "Devices that hold the shards of an engine and generate together: its tensor_parallel_size.",
    _costs(lambda costs: str(costs.devices_per_engine)),
)
ASLEEP = (
    Column(
        "sleep level",
        "Sleep level of an engine while its device trains. 1: it moves the weights to the host's memory; 2: it "
        "discards them. At both levels it discards the KV cache.",
        _costs(lambda costs: costs.spec.sleep or MISSING),
    ),
    Column(
        "sleep and wake s",
        "Putting an engine to sleep and waking it, on the device that needs longest.",
        _seconds("sleep_s"),
    ),
    Column(
        "free awake GiB",
        "Free memory of a device after its engine generated, in the same step and on the same device as the next "
        "column.",
        _asleep(lambda memory: memory.awake_free_bytes),
    ),
    Column(
        "free asleep GiB",
        "Free memory of that device while its engine slept: the minimum for training, besides the trainer's own "
        "memory.",
        _asleep(lambda memory: memory.asleep_free_bytes),
    ),
    Column("device GiB", "Total memory of that device.", _asleep(lambda memory: memory.total_bytes)),
)
"""Columns for engines that sleep."""
DEVICE_SECONDS = Column(
    "device-seconds",
    "Devices x placed step s: the cost of a step if devices are paid for by time.",
    _seconds("device_s"),
)
PARTS = (
    Column(
        "generation s",
        "Generation time of the device that generates longest, in seconds; mean over iterations, then over "
        "launches, as in all columns here.",
        _seconds("generation_s"),
    ),
    Column(
        "training s",
        "Forward, backward, sum of gradients and optimizer, on the device that trains longest.",
        _seconds("training_s"),
    ),
    Column(
        "update s",
        "Loading new weights into the engines and resetting the engines, on the device that needs longest.",
        _seconds("update_s"),
    ),
    Column(
        "gather s",
        "Handing over sequences (and prompts, if devices that train share an engine), on the device that needs "
        "longest.",
        _seconds("gather_s"),
    ),
    Column(
        "generators idle %",
        "Share of a step in which a device that generates is idle; mean over these devices.",
        _costs(lambda costs: _percent(costs.generating_idle_share)),
    ),
    Column(
        "trainers idle %",
        "Share of a step in which a device that trains is idle; mean over these devices. If all devices are "
        "colocated, it equals generators idle %.",
        _costs(lambda costs: _percent(costs.training_idle_share)),
    ),
    Column(
        "sequences per engine",
        "Sequences per engine and step; mean over engines.",
        _costs(lambda costs: brief(costs.sequences_per_engine)),
    ),
    Column(
        "KV cache tokens",
        "Tokens that fit into the KV cache of one engine; minimum over launches.",
        _costs(lambda costs: count(costs.kv_cache_tokens)),
    ),
)


def _device(cell: Callable[[DeviceCosts], str]) -> Callable[[Line], str]:
    return lambda line: cell(line["device"])


def _does(device: DeviceCosts) -> str:
    return "both" if device.generates and device.trains else "generates" if device.generates else "trains"


def _activity(name: Activity, text: str) -> Column:
    cell = _device(lambda device: _percent(device.shares[name]) if name in device.shares else MISSING)
    return Column(f"{name} %", text, cell, known="slept" if name in SLEEPING else "")


BY_DEVICE = (
    Column("device", "Number of the device, from 0.", _device(lambda device: str(device.rank))),
    Column("is for", "Work of the device in a step: generates, trains, or both.", _device(_does), words=True),
    *(_activity(name, ACTIVITY[name]) for name in ACTIVITIES),
    Column(
        "idle %",
        "Share of the whole step outside all these activities.",
        _device(lambda device: _percent(device.idle_share)),
    ),
)


@dataclass(frozen=True)
class PlacementDecision:
    """Result for a placement.

    Attributes:
        place: of the experiment.
        verdict: on the whole step.
        costs: costs of its step.
        other: costs of the baseline's step.
    """

    place: str
    verdict: Contrast
    costs: PlacedCosts
    other: PlacedCosts


def placement_part(findings: Findings) -> SummaryPart:
    """Return the costs of a step for each placement, as text and tables; each device's activities; placement.csv."""
    tables, every = [], []
    costs = {row.experiment.place: placed_costs(row) for row in findings.rows}
    columns = compared_columns(findings, PLACEMENT, of_parts=True)
    for title, lines, rows in findings.tables_of(PLACEMENT):
        shown = [line | {"costs": costs[row.experiment.place]} for line, row in zip(lines, rows, strict=True)]
        shards = (SHARDS,) if any(line["costs"] and line["costs"].devices_per_engine > 1 for line in shown) else ()
        step = (LAUNCHES, WHERE, DEVICES, *metric_columns("placed"), *columns, DEVICE_SECONDS)
        tables.append(view("Where engine and trainer live: ", title, step, shown))
        asleep = [line for line in shown if line["costs"] and line["costs"].spec.sleep]
        tables.append(view("Parts of a step: ", title, (*PARTS, *shards), shown))
        if asleep:
            tables.append(view("Engines asleep: ", title, ASLEEP, asleep))
        devices = [
            line | {"device": device, "slept": line["costs"].spec.sleep}
            for line in shown
            if line["costs"]
            for device in line["costs"].devices
        ]
        if devices:
            tables.append(view("What each device does: ", title, BY_DEVICE, devices))
        every += rows
    names = _names(every)
    decided = list(decisions(findings, costs, names))
    tables += throughput_views(findings, PLACEMENT)
    return SummaryPart(
        answers=sections(
            PLACEMENT.name,
            decisions=decided,
            unlike=list(unlike(findings, costs, names)),
            alone=list(alone(every, costs, decided, names)),
            parted=[
                (_group(row.experiment), names[row.experiment.place], found)
                for row in every
                if (found := costs[row.experiment.place])
            ],
            unfit=[(names[row.experiment.place], found) for row in every for found in unfit(row)],
            most=MOST,
        ),
        tables=tables,
        definitions=definitions("Definitions, placements", tables),
        files={"placement.csv": placed_table(every)} if every else {},
    )


def decisions(
    findings: Findings, costs: Mapping[str, PlacedCosts | None], names: Mapping[str, str]
) -> Iterator[PlacementDecision]:
    """Yield the result of each placement that is compared with a placement of the same work."""
    metrics = findings.collection.comparison.metrics_of(PLACEMENT.name)
    metric = WHOLE_STEP if WHOLE_STEP in metrics else metrics[0]
    for row, own, theirs in _compared(findings, costs):
        other = row.against.other
        assert other is not None, "it is compared with something"
        if metric not in row.comparisons or unlike_work(row.experiment.records[0].spec, other.records[0].spec):
            continue
        yield PlacementDecision(
            place=row.experiment.place,
            verdict=contrast(
                row,
                metric,
                group=_group(row.experiment),
                own=names[row.experiment.place],
                other=names[other.place],
                of_time=metric == WHOLE_STEP,
                settings=tuple(engine_settings(row.experiment.records[0], other.records[0])),
                besides=placed(own.spec) != placed(theirs.spec),
            ),
            costs=own,
            other=theirs,
        )


def unlike(
    findings: Findings, costs: Mapping[str, PlacedCosts | None], names: Mapping[str, str]
) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield placements with other work than their baseline: both names, the difference, and both values."""
    for row, _, _ in _compared(findings, costs):
        other = row.against.other
        assert other is not None, "it is compared with something"
        found = unlike_work(row.experiment.records[0].spec, other.records[0].spec)
        if found is not None:
            yield names[row.experiment.place], names[other.place], *found


def _compared(
    findings: Findings, costs: Mapping[str, PlacedCosts | None]
) -> Iterator[tuple[Row, PlacedCosts, PlacedCosts]]:
    """Yield each measured placement that has a measured baseline, with the costs of both."""
    for row in findings.rows:
        other, own = row.against.other, costs[row.experiment.place]
        if row.experiment.mode != PLACEMENT.name or other is None or own is None:
            continue
        theirs = costs.get(other.place)
        if theirs is not None:
            yield row, own, theirs


def alone(
    rows: Sequence[Row],
    costs: Mapping[str, PlacedCosts | None],
    decided: Sequence[PlacementDecision],
    names: Mapping[str, str],
) -> Iterator[tuple[str, str, PlacedCosts, str]]:
    """Yield group, name, costs and setting of each measured row without a baseline and without a decision."""
    told = {id(side) for each in decided for side in (each.costs, each.other)}
    for row in rows:
        found = costs[row.experiment.place]
        if row.against.other is None and found is not None and id(found) not in told:
            yield _group(row.experiment), names[row.experiment.place], found, row.experiment.setting


def _group(experiment: TimedExperiment) -> str:
    return " ".join(getattr(experiment, axis) for axis in AXES if axis != "setting")


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """Return the name of each measured row in sentences, with its setting if two names would be equal."""
    found = {
        row.experiment.place: (placed(spec.placement), row)
        for row in rows
        if row.experiment.records and (spec := row.experiment.records[0].spec).placement is not None
    }
    alike = Counter((name, row.experiment.model, row.experiment.workload) for name, row in found.values())
    return {
        place: f"{name} ({row.label})" if alike[name, row.experiment.model, row.experiment.workload] > 1 else name
        for place, (name, row) in found.items()
    }
