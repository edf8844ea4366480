"""What lies in a results folder: the passes and machine time of each block, and the summary's verdicts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from copies import Copy
from noise import Array

from rollout_bench.analysis.timed.pairs import TRIMMED
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.store import read_record


class Reported(Strict):
    """What summary.csv says of one configuration: its speed-up over the baseline, None where there is none yet."""

    speedup: float | None
    low: float | None
    high: float | None
    verdict: str
    pairs: int
    invalid: int
    failed: int

    @property
    def found(self) -> bool:
        """Whether a difference was found, relevant or not."""
        return self.verdict in ("faster", "slower", "irrelevant")

    @property
    def half_width(self) -> float | None:
        """By which fraction the interval reaches beyond the speed-up, on a logarithmic scale."""
        if not self.low or not self.high:
            return None
        return float((self.high / self.low) ** 0.5 - 1)

    def __str__(self) -> str:
        interval = f" {self.speedup:.3f}x [{self.low:.3f}, {self.high:.3f}]" if self.low and self.high else ""
        return f"{self.verdict}{interval}"


class MeasuredBlock(Strict):
    """One launch of each configuration.

    `seconds` go from the first start to the last end. `passes_s` holds the seconds of the passes that count, by
    configuration, in the order of the rounds; `startup_s` what each start took.
    """

    launch: int
    seconds: float
    interleaved: bool
    invalid: list[str]
    startup_s: dict[str, float]
    passes_s: dict[str, list[float]]


def read_reported(results: Path) -> dict[str, Reported]:
    """Quant -> what `results`/summary.csv says of it.

    Raises:
        SystemExit: there is no summary.
    """
    path = results / "summary.csv"
    if not path.exists():
        raise SystemExit(f"{path} is missing\nsee what snakemake printed above, then run the same command again")
    with path.open(newline="") as file:
        return {row["quant"]: _reported(row) for row in csv.DictReader(file)}


def _reported(row: dict[str, str]) -> Reported:
    speedup, low, high = (
        float(row[name]) if row[name] else None for name in ("speedup", "speedup_low", "speedup_high")
    )
    pairs, invalid, failed = (int(row[name] or 0) for name in ("pairs", "launches_invalid", "launches_failed"))
    return Reported(
        speedup=speedup,
        low=low,
        high=high,
        verdict=row["verdict"] or "unknown",
        pairs=pairs,
        invalid=invalid,
        failed=failed,
    )


def read_blocks(results: Path) -> list[MeasuredBlock]:
    """Return what was measured offline, in the order of the launches' indices."""
    records = [read_record(path) for path in results.glob("offline/*/launch-*.json")]
    return [
        _block([record for record in records if record.launch == launch])
        for launch in sorted({record.launch for record in records})
    ]


def _block(records: Sequence[Record]) -> MeasuredBlock:
    records = sorted(records, key=lambda record: record.spec.quant.name)
    began = [datetime.fromisoformat(record.started_at).timestamp() for record in records]
    ended = [start + record.wall_s for start, record in zip(began, records, strict=True)]
    ids = {record.block.id if record.block else None for record in records}
    return MeasuredBlock(
        launch=records[0].launch,
        seconds=round(max(ended) - min(began), 2),
        interleaved=len(ids) == 1 and None not in ids,
        invalid=[
            record.spec.quant.name for record in records if any(flag.severity == "invalid" for flag in record.validity)
        ],
        startup_s={
            record.spec.quant.name: round(record.startup.import_s + record.startup.init_s, 2) for record in records
        },
        passes_s={record.spec.quant.name: _passes_s(record) for record in records},
    )


def _passes_s(record: Record) -> list[float]:
    counted = [iteration for iteration in record.iterations if not iteration.warmup]
    if record.block:
        counted.sort(key=lambda iteration: -1 if iteration.round is None else iteration.round)
    return [round(iteration.elapsed_s, 5) for iteration in counted]


def rounds_of(block: MeasuredBlock, names: Iterable[str]) -> Array:
    """Logarithms of the seconds of each round [K, k], as many rounds as all of `names` have."""
    columns = [block.passes_s[name] for name in names]
    return np.log(np.array([column[: min(map(len, columns))] for column in columns])).T


def trimmed_mean(values: Array) -> Array:
    """Mean along the first axis [K, ...] of the middle, floor(0.2 K) left out at each end."""
    cut = int(TRIMMED * len(values))
    return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0))


def log_speedups(block: MeasuredBlock, baseline: str, others: Sequence[str]) -> Array:
    """Trimmed mean over rounds of the log ratio of rates to `baseline`, for each of `others` [k - 1]."""
    logs = rounds_of(block, [baseline, *others])
    return trimmed_mean(logs[:, :1] - logs[:, 1:])


def run_or_end(copy: Copy, *arguments: str) -> None:
    """Run snakemake up to the summary in `copy`.

    Raises:
        SystemExit: something failed.
    """
    if not copy.run("results/summary.txt", *arguments):
        raise SystemExit("a launch failed\nsee the lines above, then run the same command again")


def set_aside(copy: Copy, place: Path) -> None:
    """Move the results of `copy` to `place`, so that the next run begins with none; the weights stay."""
    place.parent.mkdir(parents=True, exist_ok=True)
    (copy.path / "results").rename(place)
