"""The table of steps mode: times of steps, and how well the model of their times predicts those left out of its fit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rollout_bench.analysis.timed.experiments import ResultSet, ValidExperiment
from rollout_bench.contracts.mode import Mode
from rollout_bench.contracts.steps import StepRow, Steps, read_steps
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import count, number
from rollout_bench.modes.steps import MODE
from rollout_bench.modes.steps.predict.calibrations import Calibration
from rollout_bench.modes.steps.predict.model import LARGEST_ERROR, StepModel
from rollout_bench.report.parts import Findings, SummaryPart
from rollout_bench.report.prose import Section, definitions, sections
from rollout_bench.report.views import LAUNCHES, Column, Entry, view


@dataclass(frozen=True)
class Calibrated:
    """A steps experiment: its valid launches, all their steps, and the model of their times."""

    valid: ValidExperiment
    launches: tuple[Steps, ...]
    rows: tuple[StepRow, ...]
    model: StepModel

    @property
    def fewest(self) -> int:
        """Return the smallest number of sequences that decoded at once."""
        return min(row.decodes for row in self.rows if not row.prefills)

    @property
    def most(self) -> int:
        """Return the largest number of sequences that decoded at once."""
        return max(row.decodes for row in self.rows if not row.prefills)

    def decode_ms(self, sequences: int) -> float | None:
        """Return the median time of a decode step with this number of sequences, in milliseconds; None without one."""
        times_s = [row.elapsed_s for row in self.rows if not row.prefills and row.decodes == sequences]
        return 1e3 * median(times_s) if times_s else None

    @property
    def prefill_tokens_per_s(self) -> float:
        """Return the speed of the largest steps without decoding sequences."""
        alone = [row for row in self.rows if not row.decodes]
        most = max(row.prefill_tokens for row in alone)
        return most / median(row.elapsed_s for row in alone if row.prefill_tokens == most)


COLUMNS: tuple[Column[Calibrated], ...] = (
    LAUNCHES,
    Column("timed steps", "Number of measured steps.", lambda calibration: count(len(calibration.rows))),
    Column(
        "decode ms, 1",
        "A decode step of one sequence; median.",
        lambda calibration: number(calibration.decode_ms(1), 3),
    ),
    Column("batch", "Most sequences that decoded at once.", lambda calibration: count(calibration.most)),
    Column(
        "decode ms, batch",
        "A decode step of that many sequences; median.",
        lambda calibration: number(calibration.decode_ms(calibration.most), 3),
    ),
    Column(
        "prefill tok/s",
        "Prompt tokens per second in the largest steps without decoding sequences.",
        lambda calibration: number(calibration.prefill_tokens_per_s),
    ),
    Column(
        "error p50 %",
        "Error of predicted times of a kind of steps that was left out of the fit: median over kinds, each a batch "
        "size or a number of prompt tokens.",
        lambda calibration: number(100 * calibration.model.error(0.5), 3),
    ),
    Column(
        "error p90 %",
        "Its 90th percentile.",
        lambda calibration: number(100 * calibration.model.error(0.9), 3),
    ),
    Column("worst", "The kind with the largest error.", lambda calibration: calibration.model.worst.name, words=True),
)


def analyse(
    results: Path, inside: Sequence[ValidExperiment], collection: ResultSet
) -> tuple[list[Calibrated], list[str]]:
    """Return the calibrations among the experiments `inside`, and messages about unreadable files."""
    problems: list[str] = []
    return list(_calibrated(results, inside, problems)), problems


def _calibrated(results: Path, inside: Sequence[ValidExperiment], problems: list[str]) -> Iterator[Calibrated]:
    for each in (one for one in inside if one.experiment.mode == MODE.name and one.experiment.records):
        experiment = each.experiment
        try:
            read = [
                read_steps(record_path(results, experiment.mode, experiment.experiment, each.launch))
                for each in experiment.records
            ]
        except UserError as error:
            problems.append(str(error).replace("\n", "; "))
            continue
        launches, rows = zip(*read, strict=True)
        flat = tuple(row for launch in rows for row in launch)
        yield Calibrated(each, launches, flat, Calibration(launches, rows).model())


def part_of(findings: Findings, mode: Mode) -> SummaryPart:
    """Return the answer and the table."""
    nothing: tuple[list[Calibrated], list[str]] = [], []
    calibrated, problems = findings.results_of_mode(mode.name, nothing)
    warnings = [Section("Calibrations that can't be read", tuple(problems))] if problems else []
    platforms = dict.fromkeys(each.valid.experiment.platform for each in calibrated)
    tables = [
        view(
            "Steps: ",
            platform,
            COLUMNS,
            [
                Entry(findings.texts_of(each.valid), each)
                for each in calibrated
                if each.valid.experiment.platform == platform
            ],
        )
        for platform in platforms
    ]
    return SummaryPart(
        tables=tables,
        answers=sections(f"{mode.name}/report", found=calibrated, most=LARGEST_ERROR),
        definitions=definitions("Definitions, steps", tables),
        warnings=warnings,
    )
