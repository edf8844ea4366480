"""What a summary is made from, as data: experiments with their records and failures, and which launches count.

All that tables and figures show of these modes is made from `Chosen`. What is left out of them is seen in the flags.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from rollout_bench.contracts.axes import DEFAULT_SETTING, Table, label_of, names_of, table_of
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Failure, Flag, Launched, Record
from rollout_bench.core.errors import UserError
from rollout_bench.core.model_files import differing_files
from rollout_bench.core.numbers import first_few
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.plan.planfile import Skipped
from rollout_bench.plan.serving import Slo

if TYPE_CHECKING:
    from rollout_bench.analysis.stats.anatomy import PassTimes
    from rollout_bench.analysis.timed.service import Requests


def invalid_codes(flags: Iterable[Flag]) -> list[str]:
    """Return the codes of those of `flags` that make a launch invalid, each once; empty where it is valid."""
    return sorted({flag.code for flag in flags if flag.severity == "invalid"})


def no_valid_launch(records: Sequence[Launched]) -> str:
    """Return why `records` give no number: `no valid launch: cpu_shared, token_count`.

    Empty where one of them is valid, and where there is none.
    """
    if not records or any(record.valid for record in records):
        return ""
    return f"no valid launch: {', '.join(invalid_codes(flag for record in records for flag in record.validity))}"


def with_one_model(records: Sequence[Launched]) -> tuple[Launched, ...]:
    """Return `records`, which are of one experiment: invalid are those that loaded another model than the newest did.

    What is invalid for another reason says nothing of the others.
    """
    newest_first = sorted(records, key=lambda record: (record.started_at, record.launch), reverse=True)
    valid = [record for record in newest_first if record.valid]
    return tuple(_judged_by(record, valid) if record.valid else record for record in records)


def _judged_by(record: Launched, newest_first: Sequence[Launched]) -> Launched:
    doubts = []
    newest = next((other for other in newest_first if other.model_files), record)
    if record.model_files and (others := differing_files(record.model_files, newest.model_files or {})):
        words = "is another file" if len(others) == 1 else "are other files"
        doubts.append(f"{first_few(others)} {words} in launch {newest.launch}")
    newest = newest_first[0]
    if record.environment.device_model == newest.environment.device_model:  # another may hold a model in another way
        theirs = _facts(newest)
        differing = [(name, own) for name, own in _facts(record).items() if theirs.get(name, own) != own]
        doubts += [f"{name}: {own}, in launch {newest.launch} {theirs[name]}" for name, own in differing]
    if not doubts:
        return record
    sentence = f"It loaded another model than a newer launch: {'; '.join(doubts)}. So it is no part of the same number."
    flag = Flag(code="other_model_files", severity="invalid", sentence=sentence)
    return record.model_copy(update={"validity": [*record.validity, flag]})


def _facts(record: Launched) -> dict[str, str]:
    weights, cache = record.engine.weights_bytes_by_dtype, record.engine.kv_cache
    found: dict[str, Mapping[str, int]] = {}
    if weights is not None:
        found |= {"bytes of linear layers": weights.linear, "bytes of other weights": weights.other}
    if cache is not None:
        found |= {"layers of the KV cache": cache.layers, "bytes that it takes": {"a token": cache.bytes_per_token}}
    return {name: " + ".join(f"{n:,} {of}" for of, n in sorted(amounts.items())) for name, amounts in found.items()}


@dataclass(frozen=True)
class Damaged:
    """A launch whose record, or whose failure, can't be used: `error` names the file, what is wrong, what to do."""

    launch: int
    error: UserError


@dataclass(frozen=True)
class LoadPart:
    """Which of the loads of a sweep an experiment was cut down to: `point`, the `number`-th from 0 of `whole`."""

    whole: TimedExperiment
    point: LoadPoint
    number: int


AnyRecord = TypeVar("AnyRecord", bound=Launched, covariant=True)


@dataclass(frozen=True)
class Selected(Generic[AnyRecord]):
    """One experiment, of whatever mode, with what became of its launches.

    `planned` is the number of launches wanted, None where no plan says it. `records` and `failures`
    are in the order of their launch; a launch has at most one of the two; `missing` has neither, and `damaged` one that
    can't be used.
    """

    mode: str
    experiment: str
    key: str
    platform: str
    model: str
    quant: str
    workload: str
    planned: int | None
    records: tuple[AnyRecord, ...]
    failures: tuple[Failure, ...]
    missing: tuple[int, ...]
    damaged: tuple[Damaged, ...] = ()
    setting: str = DEFAULT_SETTING


@dataclass(frozen=True)
class TimedExperiment(Selected[Record]):
    """One experiment that generates, offline or online.

    `requests` are those of each launch index whose side file tells of them, `unread` says what it lacks; offline both
    are empty. `pass_times` are those of the sequences in the measured iterations of each launch index; offline only
    where they are compared.
    Of a sweep each load is an experiment of its own: `part` says which, `workload` names it, the records hold its
    iterations alone, and launches that failed, are missing or damaged, which are of no load, are with the first.
    """

    requests: Mapping[int, Requests] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    part: LoadPart | None = None
    pass_times: Mapping[int, tuple[PassTimes, ...]] = field(default_factory=dict)

    @property
    def whole(self) -> TimedExperiment:
        """The experiment that was launched: itself, or all loads of the sweep."""
        return self.part.whole if self.part else self

    @property
    def point_label(self) -> str:
        """How tables name its load; empty where the launch had no other."""
        return self.part.point.label if self.part else ""

    @property
    def place(self) -> str:
        """Where it lies and which load of a sweep it is; no other has the same."""
        return f"{self.mode}/{self.experiment}" + (f" @ {self.point_label}" if self.part else "")

    @property
    def has_replicas(self) -> bool:
        """Whether a launch had several engines side by side."""
        return any(len(i.replicas or ()) > 1 for record in self.records for i in record.iterations)


def launched(experiments: Iterable[TimedExperiment]) -> list[TimedExperiment]:
    """Return what was launched, each once, however many loads of it are among `experiments`."""
    return list({(e.mode, e.experiment): e.whole for e in experiments}.values())


@dataclass(frozen=True)
class Earlier:
    """Experiments that the selected ones are compared with though they did not take turns.

    `name` and `of` are what messages call these and the selected ones. Of the groups engine and machine those in
    `differ` may differ; empty: any one of them.
    """

    name: str
    experiments: tuple[TimedExperiment, ...]
    of: str
    differ: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collection:
    """Everything that one summary or figure is made from.

    `precision` says when an experiment has launches enough, None where their number is fixed.
    `beyond_planned` counts records of selected experiments whose launch index is not planned,
    `not_selected` those of other experiments; neither are read. `earlier` is what speed-ups refer to where two
    folders are compared. `slo` is what a request must keep to count as good. `others` are the experiments that
    look into the engine instead of timing it. `weights` has the folder of the weights of each experiment that reads
    some, `files` the configs that a call was given.
    """

    experiments: tuple[TimedExperiment, ...]
    baseline: dict[str, str]
    comparison: ComparisonSettings
    precision: Precision | None
    skipped: tuple[Skipped, ...]
    planned: bool
    beyond_planned: int
    not_selected: int
    earlier: Earlier | None = None
    slo: Slo = field(default_factory=Slo)
    others: tuple[Selected[Launched], ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @property
    def launched(self) -> list[Selected[Launched]]:
        """Every experiment, of all modes, each once."""
        return [*launched(self.experiments), *self.others]

    @property
    def damaged(self) -> list[UserError]:
        """What is wrong with each file that can't be used."""
        return [damaged.error for experiment in self.launched for damaged in experiment.damaged]

    @property
    def complete(self) -> bool:
        """True when no launch is missing, none has failed and none is damaged."""
        return not any(each.missing or each.failures or each.damaged for each in self.launched)


@dataclass(frozen=True)
class Chosen:
    """A measured experiment with those of its launches that count.

    `experiment` has the records of its valid launches alone. Where there is none, `reason` says why; else it is empty.
    `label` is its quant and its setting, with the key where another measured experiment has the same names.
    """

    experiment: Selected[Launched]
    label: str
    reason: str = ""

    @property
    def place(self) -> str:
        """Where it lies; no other has the same."""
        return f"{self.experiment.mode}/{self.experiment.experiment}"

    @property
    def table(self) -> Table:
        """Platform, model and workload: what stands side by side."""
        return table_of(self.experiment)


def chosen(experiments: Iterable[Selected[Launched]]) -> list[Chosen]:
    """Return those of `experiments` that were measured, in their order, cut down to their valid launches."""
    measured = [experiment for experiment in experiments if experiment.records]
    named = Counter((each.mode, *names_of(each)) for each in measured)
    return [
        Chosen(
            experiment=replace(each, records=tuple(record for record in each.records if record.valid)),
            label=label_of(each) if named[each.mode, *names_of(each)] == 1 else f"{label_of(each)} ({each.key})",
            reason=no_valid_launch(each.records),
        )
        for each in measured
    ]
