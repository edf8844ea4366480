"""The tables of placements: costs of a step for each placement, and activities of each device."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rollout_bench.analysis.proofs import failed_proofs, proven
from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.axes import AXES
from rollout_bench.contracts.mode import Mode
from rollout_bench.core.numbers import MISSING, number, several
from rollout_bench.modes.placement.costs import (
    ACTIVITIES,
    DeviceCosts,
    Placed,
    device_table,
    placed_of,
    unlike_work,
)
from rollout_bench.modes.placement.numbers import PARTS, STEP
from rollout_bench.modes.placement.record import Activity, AsleepMemory, placed_engines
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import definitions, sections
from rollout_bench.report.timed import GENERATED, OF_LAUNCH, number_views
from rollout_bench.report.views import Column, Entry, view

MOST = 8
"""Maximum number of experiments with a sentence; the table has all."""

ACTIVITY: Mapping[Activity, str] = {
    "generate": "Generating. This column and the next ones are shares of the whole step.",
    "sleep": "Putting the device's engine to sleep, which frees memory.",
    "gather": "Handing over generated sequences and receiving sequences to train on. If devices that train share an "
    "engine, they also hand each other prompts. Waiting for others beforehand is idle time.",
    "train": "Forward and backward of the trainer's stand-in; with fsdp2 also gathering its weights and adding up its "
    "gradients.",
    "reduce": "Adding up the gradients of all devices that train, except with fsdp2.",
    "optimize": "The optimizer's step.",
    "wake": "Waking the device's engine: weights before the update, KV cache after it.",
    "update": "Loading the new weights into the engine, or sending them.",
    "reset": "Emptying the prefix cache of the old weights.",
}
"""Activity of a device -> definition of its column."""


def _asleep(bytes_of: Callable[[AsleepMemory], int]) -> Callable[[Placed], str]:
    return lambda placed_step: (
        MISSING if placed_step.asleep is None else number(bytes_of(placed_step.asleep) / 2**30, 3)
    )


def _percent(share: float) -> str:
    return number(100 * share, 3)


def placement_name(spec: PlacementSpec) -> str:
    """Return the name of a placement in sentences, as a noun."""
    if spec.generators is None:
        return "engine and trainer colocated" + _additions_text(spec)
    how = "generating a step ahead" if spec.overlap else "only generating"
    return f"{spec.generators} of {spec.devices} devices {how}{_additions_text(spec)}"


def name_with_devices(spec: PlacementSpec) -> str:
    """Return the name of a placement among others with other numbers of devices, as a noun."""
    if spec.generators is None:
        return f"{several(spec.devices, 'device')} colocated{_additions_text(spec)}"
    ahead = ", a step ahead" if spec.overlap else ""
    return f"{len(spec.training)} + {spec.generators} devices apart{ahead}{_additions_text(spec)}"


def _additions_text(spec: PlacementSpec) -> str:
    additions = {
        f" in {spec.waves} waves": spec.waves,
        f" with sleep level {spec.sleep}": spec.sleep,
        " over HTTP": spec.through,
        ", trainer sharded": spec.strategy,
    }
    return "".join(text for text, holds in additions.items() if holds)


def _spec(row: Row) -> PlacementSpec:
    return row.experiment.records[0].spec.of(PlacementSpec)


def _shards(row: Row) -> str:
    if not row.used:
        return MISSING
    each = len(_spec(row).generating) // len(placed_engines(row.experiment.records[0].spec))
    return str(each) if each > 1 else MISSING


LIVING: tuple[Column[Row], ...] = (
    Column(
        "engine and trainer",
        "Placement of engine and trainer. Colocated: each device alternately generates and trains. A step ahead: "
        "devices train on the sequences of the previous step, while others generate the next sequences with "
        "weights that are one step old.",
        lambda row: placement_name(_spec(row)).removeprefix("engine and trainer ") if row.used else MISSING,
        words=True,
    ),
    Column(
        "devices",
        "Devices that share a step, whether they generate or train; on a CPU, blocks of cores.",
        lambda row: str(_spec(row).devices) if row.used else MISSING,
    ),
    Column(
        "devices per engine",
        "Devices that hold the shards of an engine and generate together: its tensor_parallel_size.",
        _shards,
    ),
)
ASLEEP: tuple[Column[Placed], ...] = (
    Column(
        "sleep level",
        "Sleep level of an engine while its device trains. 1: it moves the weights to the host's memory; 2: it "
        "discards them. At both levels it discards the KV cache.",
        lambda placed_step: placed_step.spec.sleep or MISSING,
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


def _activities_text(device: DeviceCosts) -> str:
    return "both" if device.generates and device.trains else "generates" if device.generates else "trains"


def _activity(name: Activity, text: str) -> Column[DeviceCosts]:
    return Column(f"{name} %", text, lambda each: _percent(each.shares[name]) if name in each.shares else MISSING)


BY_DEVICE: tuple[Column[DeviceCosts], ...] = (
    Column("device", "Number of the device, from 0.", lambda device: str(device.rank)),
    Column("is for", "Work of the device in a step: generates, trains, or both.", _activities_text, words=True),
    *(_activity(name, ACTIVITY[name]) for name in ACTIVITIES),
    Column(
        "idle %",
        "Share of the whole step outside all these activities.",
        lambda device: _percent(device.idle_share),
    ),
)


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the costs of a step for each placement, as text and tables; each device's activities; placement.csv."""
    rows = [row for row in findings.rows if row.experiment.mode == mode.name]
    placements = {row.experiment.place: placed for row in rows if (placed := placed_of(row))}
    measured = {row.experiment.place: row for row in rows if row.experiment.place in placements}
    tables = number_views(findings, mode, (STEP, PARTS, *GENERATED, *OF_LAUNCH), {STEP: LIVING})
    for title, entries in findings.entries(mode):
        known = [
            Entry(entry.texts, placed)
            for entry in entries
            if entry.of and (placed := placements.get(entry.of.experiment.place))
        ]
        devices = [Entry(entry.texts, device) for entry in known if entry.of for device in entry.of.devices]
        asleep = [entry for entry in known if entry.of and entry.of.spec.sleep]
        tables.append(view("Engines asleep: ", title, ASLEEP, asleep))
        tables.append(view("What each device does: ", title, BY_DEVICE, devices))
    pairs = [
        (row, measured[row.against.other.place])
        for row in measured.values()
        if row.against.other is not None and row.against.other.place in measured
    ]
    work = [unlike_work(*(row.experiment.records[0].spec for row in pair)) for pair in pairs]
    decided = [pair for pair, unlike in zip(pairs, work, strict=True) if unlike is None]
    names, groups = _names(rows), {_group(row) for row in measured.values()}
    reported = {row.experiment.place for pair in decided for row in pair}
    return SummaryPart(
        answers=sections(
            f"{mode.name}/report",
            decisions=decided,
            unlike=[(*pair, *unlike) for pair, unlike in zip(pairs, work, strict=True) if unlike is not None],
            alone=[r for r in measured.values() if r.against.other is None and r.experiment.place not in reported],
            measured=list(measured.values()),
            placements=placements,
            names=names,
            placed={row.experiment.place: placement_name(_spec(row)) for row in measured.values()},
            proven=[(names[row.experiment.place], proven(row)) for row in rows if proven(row)],
            where=lambda row: f"{_group(row)}: " if len(groups) > 1 else "",
            unfit=[(row, placed) for row in rows for placed in failed_proofs(row)],
            most=MOST,
        ),
        tables=tables,
        definitions=definitions("Definitions, placements", tables),
        files={"placement.csv": device_table(rows)} if placements else {},
    )


def _group(row: Row) -> str:
    return " ".join(getattr(row.experiment, axis) for axis in AXES if axis != "setting")


def _names(rows: Sequence[Row]) -> dict[str, str]:
    """Return the name of each measured row in sentences: its placement, or its label where two share one."""
    known = [row for row in rows if row.experiment.records]
    named = placement_name if len({_spec(row).devices for row in known}) < 2 else name_with_devices
    named_rows = {row.experiment.place: (named(_spec(row)), row) for row in known}
    alike = Counter((name, row.experiment.model, row.experiment.workload) for name, row in named_rows.values())
    by_label = max(alike.values(), default=0) > 1
    return {place: row.label if by_label else name for place, (name, row) in named_rows.items()}
