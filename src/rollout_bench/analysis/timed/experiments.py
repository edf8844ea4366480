"""Input of a summary as data: experiments with their records and failures, and the launches that count.

All tables and figures of these modes are made from `ValidExperiment`. Flags list the launches that are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from rollout_bench.contracts.axes import DEFAULT_SETTING, label_of, names_of, title_of, with_key
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Failure, Flag, Launched, Record
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.core.errors import UserError
from rollout_bench.core.model_files import differing_files
from rollout_bench.core.numbers import first_few
from rollout_bench.plan.config import ComparisonSettings, Precision
from rollout_bench.plan.planfile import Skipped
from rollout_bench.plan.serving import Slo

if TYPE_CHECKING:
    from rollout_bench.analysis.timed.service import Requests


def invalid_codes(flags: Iterable[Flag]) -> list[str]:
    """Return the distinct codes of `flags` that make a launch invalid; empty if it is valid."""
    return sorted({flag.code for flag in flags if flag.severity == "invalid"})


def no_valid_launch(records: Sequence[Launched]) -> str:
    """Return the reason why no launch of `records` is valid: `no valid launch: cpu_shared, token_count`.

    Empty if a launch is valid, and for no records.
    """
    if not records or any(record.valid for record in records):
        return ""
    return f"no valid launch: {', '.join(invalid_codes(flag for record in records for flag in record.validity))}"


def with_one_model(records: Sequence[Launched]) -> tuple[Launched, ...]:
    """Return the `records` of one experiment; those that loaded another model than the newest are marked invalid.

    Records that are invalid for another reason are not compared.
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
    if record.environment.device_model == newest.environment.device_model:  # other devices may store a model otherwise
        theirs = _facts(newest)
        differing = [(name, value) for name, value in _facts(record).items() if theirs.get(name, value) != value]
        doubts += [f"{name}: {value}, in launch {newest.launch} {theirs[name]}" for name, value in differing]
    if not doubts:
        return record
    sentence = f"It loaded another model than a newer launch: {'; '.join(doubts)}. So it is no part of the same number."
    flag = Flag(code="other_model_files", severity="invalid", sentence=sentence)
    return record.model_copy(update={"validity": [*record.validity, flag]})


def _facts(record: Launched) -> dict[str, str]:
    weights, cache = record.engine.weights_bytes_by_dtype, record.engine.kv_cache
    amounts_of: dict[str, Mapping[str, int]] = {}
    if weights is not None:
        amounts_of |= {"bytes of linear layers": weights.linear, "bytes of other weights": weights.other}
    if cache is not None:
        amounts_of |= {
            "layers of the KV cache": cache.layers,
            "bytes that it takes": {"a token": cache.bytes_per_token},
        }
    return {
        name: " + ".join(f"{n:,} {of}" for of, n in sorted(amounts.items())) for name, amounts in amounts_of.items()
    }


@dataclass(frozen=True)
class Damaged:
    """A launch with an unusable record or failure: `error` names the file, the problem and the remedy."""

    launch: int
    error: UserError


@dataclass(frozen=True)
class SideFile:
    """The side file of sequences of one launch, at `path`. It is read when its content is first needed."""

    path: Path
    record: Record

    @cached_property
    def content(self) -> Requests | UserError:
        """The requests of all iterations, or the error if the file is not usable."""
        # Not at the top: without side files, planning needs no numpy.
        from rollout_bench.analysis.timed.service import requests_of

        try:
            return requests_of(read_sequences(self.path, self.record))
        except UserError as error:
            return error.with_traceback(None)

    @property
    def requests(self) -> Requests | None:
        """The requests of all iterations; None if the file is not usable."""
        return None if isinstance(self.content, UserError) else self.content


@dataclass(frozen=True)
class LoadPart:
    """The load of a sweep to which an experiment was reduced: `point`, the `number`-th from 0 of `whole`."""

    whole: TimedExperiment
    point: LoadPoint
    number: int


AnyRecord = TypeVar("AnyRecord", bound=Launched, covariant=True)


@dataclass(frozen=True)
class ExperimentResults(Generic[AnyRecord]):
    """One experiment, of any mode, with the outcome of its launches.

    `planned` is the number of planned launches, or None without a plan. `records` and `failures` are in the order of
    their launches; a launch has at most one of the two. `missing` launches have neither, and `damaged` launches have
    an unusable one.
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
class TimedExperiment(ExperimentResults[Record]):
    """One experiment that generates, offline or online.

    `side_files` has the side file of each launch with a record, by its index.

    Each load of a sweep is a separate experiment. `part` identifies it, `workload` names it, and its records have only
    its iterations. Launches that failed, are missing or damaged belong to no load, so the first load lists them.
    """

    side_files: Mapping[int, SideFile] = field(default_factory=dict)
    part: LoadPart | None = None

    @property
    def whole(self) -> TimedExperiment:
        """The experiment that was launched: itself, or the whole sweep."""
        return self.part.whole if self.part else self

    @property
    def point(self) -> LoadPoint | None:
        """The load of its first iteration; None offline, and without a record."""
        return next((i.point for record in self.records for i in record.iterations), None)

    def measured_requests(self, record: Record) -> Requests | None:
        """Return the requests of the iterations of one of its records without warm-up; None without a side file."""
        requests = self.side_files[record.launch].requests
        return requests and requests.of_iterations(i for i in record.iterations if not i.warmup)

    @property
    def point_label(self) -> str:
        """Name of its load in tables; empty unless the launch had several loads."""
        return self.part.point.label if self.part else ""

    @property
    def place(self) -> str:
        """Unique place: mode, folder, and the load of a sweep."""
        return f"{self.mode}/{self.experiment}" + (f" @ {self.point_label}" if self.part else "")


def launched(experiments: Iterable[TimedExperiment]) -> list[TimedExperiment]:
    """Return the distinct launched experiments, each once even if several of its loads are among `experiments`."""
    return list({(e.mode, e.experiment): e.whole for e in experiments}.values())


@dataclass(frozen=True)
class Earlier:
    """Experiments that the selected ones are compared with although they were not interleaved.

    `name` and `of` are the names of these and of the selected ones in messages. Only the groups in `differ`, engine or
    machine, may differ; if empty, either one may.
    """

    name: str
    experiments: tuple[TimedExperiment, ...]
    of: str
    differ: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResultSet:
    """All input of one summary or figure.

    `precision` decides when an experiment has enough launches; None if their number is fixed. `beyond_planned` counts
    records of selected experiments with an unplanned launch index. `not_selected` counts records of other experiments.
    Neither are read. `earlier` is the baseline if two folders are compared. `slo` has the limits of a good request.
    `others` are the experiments of the modes profile, messages and drift. `files` are the config files of the call.
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
    others: tuple[ExperimentResults[Launched], ...] = ()
    files: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    @property
    def launched(self) -> list[ExperimentResults[Launched]]:
        """Every experiment, of all modes, each once."""
        return [*launched(self.experiments), *self.others]

    @property
    def damaged(self) -> list[UserError]:
        """The error of each unusable file."""
        return [damaged.error for experiment in self.launched for damaged in experiment.damaged]

    @property
    def complete(self) -> bool:
        """Whether no launch is missing, failed or damaged."""
        return not any(each.missing or each.failures or each.damaged for each in self.launched)


@dataclass(frozen=True)
class ValidExperiment:
    """A measured experiment with its valid launches.

    `experiment` has only the records of valid launches. `reason` explains why there is none, else it is empty. `label`
    is its quantization and setting, with the key if another measured experiment has the same names.
    """

    experiment: ExperimentResults[Launched]
    label: str
    reason: str = ""

    @property
    def place(self) -> str:
        """Unique place: mode and folder."""
        return f"{self.experiment.mode}/{self.experiment.experiment}"

    @property
    def name(self) -> str:
        """Name in sentences: model, quantization and workload."""
        return title_of(self.experiment, self.label)


def measured_experiments(experiments: Iterable[ExperimentResults[Launched]]) -> list[ValidExperiment]:
    """Return the measured ones of `experiments`, in their order, reduced to their valid launches."""
    measured = [experiment for experiment in experiments if experiment.records]
    named = Counter((each.mode, *names_of(each)) for each in measured)
    return [
        ValidExperiment(
            experiment=replace(each, records=tuple(record for record in each.records if record.valid)),
            label=label_of(each) if named[each.mode, *names_of(each)] == 1 else with_key(label_of(each), each.key),
            reason=no_valid_launch(each.records),
        )
        for each in measured
    ]
