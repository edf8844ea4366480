"""One configuration under three names on a GPU: the verdicts of its tables, and the spread of its launches.

`python studies/aa_tables.py studies/results/h200-aa-*.tar.xz` reads packs of studies/gpu/aa.yaml. A table is one model
under one load, judged as a run of it alone is. The tables of a model share its starts, so they are not independent.
Spreads are of logarithms of output tokens per second: of passes within a launch, and of launches of one round, within
minutes. The latter holds the effect of a start, and the drift of the machine meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from kept import SETTINGS, Share
from markdown_parts import percent, table
from measured_rounds import Reported, read_reported, trimmed_mean
from noise import Array
from scipy import stats

from rollout_bench.analysis.stats.blocks import contrasts, half_widths
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.flags import DISTURBED
from rollout_bench.contracts.record import Record
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.report.pack import opened
from rollout_bench.report.state import plan_of_summary
from rollout_bench.report.summary import summary_of

ALPHA = 1 - SETTINGS.confidence

EARLIER = Share(count=0, of=10)
"""Tables of interleaved engines: nine of block-aa-h100.md, and bf16 against itself in h200-interleaved.json."""

OTHERS_THERE = DISTURBED - {"throttled"}
"""Flags of something else on the machine. An engine lowers its clocks itself where it reaches the power limit."""


@dataclass(frozen=True)
class Table:
    """One model under one load.

    Attributes:
        model: its name.
        name: the names of pack, model and load.
        reported: what its summary says of each name but the baseline's.
        records: quant -> launch -> record, the baseline's first.
        whole: whether no planned launch is missing.
    """

    model: str
    name: str
    reported: dict[str, Reported]
    records: dict[str, dict[int, Record]]
    whole: bool

    @property
    def found(self) -> bool:
        """Whether its summary reports a difference."""
        return any(reported.found for reported in self.reported.values())

    @property
    def codes(self) -> Counter[str]:
        """The number of launches that have each flag."""
        return Counter(
            flag.code for by_launch in self.records.values() for each in by_launch.values() for flag in each.validity
        )

    @property
    def counts(self) -> bool:
        """Whether all its launches are there and valid, and nothing else used the machine."""
        valid = all(record.valid for by_launch in self.records.values() for record in by_launch.values())
        return self.whole and valid and not self.codes.keys() & OTHERS_THERE

    @cached_property
    def logs(self) -> Array:
        """Log of output tokens per second [rounds, k, passes] of the rounds that all names have."""
        sides = list(self.records.values())
        rounds = sorted(set.intersection(*map(set, sides)))
        return np.array([[_log_rates(side[number]) for side in sides] for number in rounds])

    def parts(self, launches: int) -> list[bool]:
        """Return whether each table of so many consecutive launches of this one finds a difference."""
        typical = trimmed_mean(np.moveaxis(self.logs, 2, 0))
        ratios = typical[:, 1:] - typical[:, :1]
        cuts = (contrasts(ratios[at : at + launches]) for at in range(0, len(ratios) - launches + 1, launches))
        return [bool((np.abs(one.log_ratio) > half_widths(one, ALPHA)).any()) for one in cuts]


def _log_rates(record: Record) -> list[float]:
    return [float(np.log(one.output_tokens / one.elapsed_s)) for one in record.iterations if not one.warmup]


def tables_of(path: Path) -> list[Table]:
    """Return the tables of a pack, by model and load.

    Raises:
        SystemExit: it has no plan.
    """
    folder = opened(path)
    plan = plan_of_summary(folder)
    if plan is None:
        raise SystemExit(f"{path}: has no plan\n  -> pack results/summaries/aa")
    names = dict.fromkeys((one.model, one.workload) for one in plan.experiments)
    return [_table(folder, plan, path.name.partition(".")[0], *each) for each in names]


def _table(folder: Path, plan: PlanFile, pack: str, model: str, workload: str) -> Table:
    chosen = [one for one in plan.experiments if (one.model, one.workload) == (model, workload)]
    collection = collect(folder, plan.model_copy(update={"experiments": chosen}))
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "summary.csv").write_text(summary_of(folder, collection).csv)
        reported = read_reported(Path(place))
    records = {one.whole.quant: {each.launch: each for each in one.records} for one in collection.experiments}
    return Table(
        model=model,
        name=f"{pack} {model} {workload}",
        reported={quant: reported[quant] for quant in reported if quant != plan.baseline["quant"]},
        records=records,
        whole=all(len(records[one.quant]) == one.launches for one in chosen),
    )


@dataclass(frozen=True)
class Components:
    """Variance of passes within launches and between launches of a round: analysis of variance without rounds' means.

    Intervals have 95 % and are exact for normal, white noise (Searle, Linear Models, 1971, section 9.8). Numbers are of
    logarithms.

    Attributes:
        launches: their number.
        within: standard deviation of the passes of a launch, and its interval.
        between: standard deviation between launches of a round without what their passes explain, and its interval.
        lag: correlation of a pass with the next, which is -1 / passes for white noise.
        f: mean square between launches over that within.
        p: chance of an `f` as large if launches did not differ.
    """

    launches: int
    within: tuple[float, float, float]
    between: tuple[float, float, float]
    lag: float
    f: float
    p: float


def components(tables: Sequence[Array]) -> Components:
    """Return the components of `tables` of logs [rounds, k, passes], whose variances are taken for the same."""
    passes = tables[0].shape[2]
    means = [logs.mean(axis=2) for logs in tables]
    rests = [logs - table_means[:, :, None] for logs, table_means in zip(tables, means, strict=True)]
    launches = sum(table_means.size for table_means in means)
    between, within = launches - sum(map(len, means)), launches * (passes - 1)
    square = sum(float((rest**2).sum()) for rest in rests)
    noise = square / within
    apart = sum(float(((table_means - table_means.mean(axis=1, keepdims=True)) ** 2).sum()) for table_means in means)
    f = passes * apart / between / noise
    ends = (0.975, 0.025)
    by_pass = [noise, *(square / float(stats.chi2.ppf(end, within)) for end in ends)]
    by_start = [
        max(0.0, f / point - 1) * noise / passes
        for point in (1.0, *(float(stats.f.ppf(end, between, within)) for end in ends))
    ]
    lag = sum(float((rest[:, :, 1:] * rest[:, :, :-1]).sum()) for rest in rests) / square
    p = float(stats.f.sf(f, between, within))
    return Components(launches, _roots(by_pass), _roots(by_start), lag, f, p)


def _roots(variances: list[float]) -> tuple[float, float, float]:
    value, low, high = map(math.sqrt, variances)
    return value, low, high


def in_per_cent(spread: tuple[float, float, float]) -> str:
    """Return a standard deviation of logarithms with its interval as pages show it."""
    value, low, high = (percent(each, 2) for each in spread)
    return f"{value} [{low}, {high}]"


def spreads(of: Components) -> list[str]:
    """Return the columns of a table's components."""
    within = percent(of.within[0], 2)
    return [str(of.launches), within, f"{of.lag:+.2f}", in_per_cent(of.between), f"{of.f:.2f}", f"{of.p:.1g}"]


def drift(of: Table, pack: list[Table]) -> list[object]:
    """Return the spread of all launches of `of`, that of consecutive starts in the `pack`, and a rank correlation.

    Consecutive starts are seconds apart. The correlation is that of the rate with the duration of the engine's start:
    a slow host makes both worse.
    """
    began: dict[tuple[str, str, int], str] = {}
    for one in pack:
        for quant, by_launch in one.records.items():
            for launch, record in by_launch.items():
                start = one.model, quant, launch
                began[start] = min(began.get(start, "9"), record.started_at)
    order = sorted(began, key=lambda start: began[start])
    rates = {
        (of.model, quant, launch): float(np.mean(_log_rates(record)))
        for quant, by_launch in of.records.items()
        for launch, record in by_launch.items()
    }
    pairs = [(rates[a], rates[b]) for a, b in itertools.pairwise(order) if a in rates and b in rates]
    near = float(np.sqrt(np.mean([(a - b) ** 2 / 2 for a, b in pairs])))
    starts = [of.records[quant][launch].startup.init_s for _, quant, launch in rates]
    found = stats.spearmanr(list(rates.values()), starts)
    everything = percent(float(np.std(list(rates.values()), ddof=1)), 2)
    return [everything, f"{percent(near, 2)} ({len(pairs)})", f"{found.statistic:+.2f}"]


def shared(tables: list[Table]) -> float:
    """Return the mean correlation between a model's loads of the distances of launches from their round's mean."""
    means = [one.logs.mean(axis=2) for one in tables]
    rounds = min(map(len, means))
    found = np.corrcoef([(each - each.mean(axis=1, keepdims=True))[:rounds].ravel() for each in means])
    return float(found[np.triu_indices(len(found), 1)].mean())


def page(packs: list[list[Table]]) -> str:
    """Return the page of all packs."""
    tables = [one for pack in packs for one in pack]
    counted = [one for one in tables if one.counts]
    false = Share(count=sum(one.found for one in counted), of=len(counted))
    parts = [part for one in counted for part in one.parts(3)]
    few = Share(count=sum(parts), of=len(parts))
    together = Share(count=false.count + EARLIER.count, of=false.of + EARLIER.of)
    verdicts = [
        [one.name, *map(str, one.reported.values()), "yes" if one.counts else "no", _counted(one.codes)]
        for one in tables
    ]
    measured = [[one.name, *spreads(components([one.logs])), *drift(one, pack)] for pack in packs for one in pack]
    models = [
        f"- {model_tables[0].name.rpartition(' ')[0]}: {shared(model_tables):+.2f}"
        for pack in packs
        for model_tables in (
            [one for one in pack if one.model == model] for model in dict.fromkeys(one.model for one in pack)
        )
    ]
    names = list(tables[0].reported)
    columns = ["starts", "within", "lag 1", "between", "F", "p", "all starts", "next starts (pairs)", "start-up"]
    return f"""\
{table(["table", *names, "quiet and whole", "flags"], verdicts)}

- False verdicts in tables that are quiet and whole: {false.count} of {false.of}, {false}.
- With the earlier ones, of interleaved engines: {together.count} of {together.of}, {together}.
- The same launches in tables of three: {few.count} of {few.of}, {few}.

{table(["table", *columns], measured)}

Correlation of a launch's distance from its round between the loads of a model, which share its starts:

{chr(10).join(models)}
"""


def _counted(codes: Counter[str]) -> str:
    return ", ".join(f"{code} {count}" for code, count in codes.most_common()) or "-"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", type=Path, nargs="+", metavar="PACK", help="a pack of studies/gpu/aa.yaml")
    print(page([tables_of(path) for path in parser.parse_args().packs]), end="")


if __name__ == "__main__":
    main()
