"""The numbers of docs/trust.md: what the page says of each study, from the study's file in studies/results."""

import functools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from aa_tables import EARLIER, Components, Table, components, in_per_cent, shared, tables_of
from block_aa import BlockAA, StartEffect, start_effect
from block_tables import BlockTables
from drift_section import kept_under, worst
from drift_verdicts import DriftVerdicts
from false_verdict_shares import FalseVerdicts
from fidelity import COMMAND, GPU_RESULT, OURS, THEIRS, Fidelity
from fidelity_sections import CRITERIA, against
from interval_coverage import Coverage
from kept import RESULTS, Share, kept
from online_fidelity import GPU_RESULT as ONLINE_ON_GPU
from online_fidelity import RESULT, OnlineFidelity
from online_sections import TOLERANCE
from outcomes import by_noise, covered_by_noise
from outcomes import fidelity as throughput_words
from outcomes import power as power_words
from percentile_coverage import PercentileCoverage, most_missed_of_shown
from power import Power, promised
from repeats import Launches
from scipy import optimize

from rollout_bench.analysis.stats.intervals import RatioInterval
from rollout_bench.contracts.fields import Strict
from rollout_bench.core.mappings import grouped

T = TypeVar("T", bound=Strict)

NUMBER = re.compile(r"\d+\.\d+")

FOUND = 0.8
"""Chance to find the difference that `detectable` returns."""


def result(name: str, kind: type[T]) -> T:
    """Return a kept result.

    Raises:
        ValueError: it is missing.
    """
    found = kept(name, kind)
    if found is None:
        raise ValueError(f"studies/results/{name}.json is missing")
    return found


def interval(ratio: RatioInterval | None) -> str:
    """Return a ratio as pages show it."""
    if ratio is None:
        raise ValueError("a page has no word for a ratio without an interval")
    return f"{float(ratio.ratio):.3f} [{float(ratio.low):.3f}, {float(ratio.high):.3f}]"


def span(values: Sequence[float], digits: int = 0) -> str:
    """Return `3 to 5` of fractions, in per cent without its sign; one number if both ends are the same."""
    least, most = (f"{100 * value:.{digits}f}" for value in (min(values), max(values)))
    return least if least == most else f"{least} to {most}"


class Trust:
    """Everything that the page says of studies with engines on two cores, and of simulations."""

    def __init__(self) -> None:
        tables = result("block_aa", BlockAA)
        self.real: Share = tables.false
        self.start: StartEffect = start_effect(tables.blocks)
        self.apart: Share = result("false_verdicts", FalseVerdicts).marked
        self.launches = len(result("launches", Launches).launches)
        self.simulated = by_noise(result("block_tables", BlockTables))
        self.covered = covered_by_noise(result("coverage", Coverage))
        self.drifts = result("drift_verdicts", DriftVerdicts)
        self.percentiles = result("percentile_coverage", PercentileCoverage)
        self.power = result("power", Power)
        self.throughput = result("fidelity", Fidelity)
        self.on_gpu = result(GPU_RESULT, Fidelity)
        self.server = result(RESULT, OnlineFidelity)
        self.server_on_gpu = result(ONLINE_ON_GPU, OnlineFidelity)

    def false_with(self, launches: int) -> str:
        """Return how many per cent of tables with the worst noise are false, over numbers of configurations."""
        cells = result("block_tables", BlockTables).simulated
        return span([c.false.value for c in cells if (c.noise, c.blocks) == (self.simulated.noise, launches)])

    @property
    def kinds_of_drift(self) -> str:
        """How many kinds of noise keep the promise of `drifts`."""
        return kept_under(self.drifts)

    @property
    def worst_drift(self) -> Any:
        """The simulated tables whose share of false `drifts` is surely the highest."""
        return worst(self.drifts.false)

    @property
    def worst_size(self) -> Any:
        """The simulated tables whose intervals of mean |d| hold the truth least often."""
        return min(self.drifts.covered, key=lambda one: one.covered.value)

    @property
    def worst_percentile(self) -> Share:
        """The largest share of all experiments that show an interval without the truth."""
        return max((one.missed for one in self.percentiles.cells), key=lambda share: share.value)

    @property
    def worst_shown(self) -> Any:
        """The same among the experiments that show an interval."""
        return most_missed_of_shown(self.percentiles)

    @property
    def bench(self) -> str:
        """Throughput here over that of `vllm bench throughput`."""
        return interval(self.throughput.ratio(OURS, THEIRS))

    @property
    def command(self) -> str:
        """Throughput here over that of the command `vllm bench throughput` on a GPU."""
        return interval(self.on_gpu.ratio(OURS, COMMAND))

    @property
    def command_words(self) -> str:
        """The outcome of that comparison, by half of a relevant difference."""
        found = self.on_gpu.ratio(OURS, COMMAND)
        assert found is not None
        limit = CRITERIA[1]
        outcome = against(float(found.low), float(found.high), limit)
        words = {"held": "Yes, to within", "FAILED": "No, not to within", "not decided": "Undecided to within"}
        return f"{words[outcome]} {100 * limit:g} %"

    def serve(self, measure: str, server: OnlineFidelity, client: str = "ours") -> str:
        """Return a measure of an own client over that of `vllm bench serve`."""
        return interval(server.ratio(measure, client, "bench"))

    @property
    def bench_words(self) -> str:
        """The outcome of the comparison with `vllm bench throughput`."""
        return throughput_words(self.throughput)[0].strip("*.")

    def serve_words(self, server: OnlineFidelity) -> str:
        """Return the outcome of the comparison with `vllm bench serve` in both measures."""
        ratios = [server.ratio(measure, "ours", "bench") for measure in ("ttft_ms", "output_tokens_per_s")]
        held = {against(float(ratio.low), float(ratio.high), TOLERANCE) for ratio in ratios}
        return {"held": "Yes", "FAILED": "No"}.get(held.pop(), "Undecided") if len(held) == 1 else "In part"

    @property
    def as_computed(self) -> str:
        """Whether known differences are found as often as computed."""
        return power_words(self.power)[0].strip("*.")

    @property
    def found(self) -> str:
        """In how many comparisons a known difference was found."""
        each = self.power.differences
        return f"{sum(one.found.count for one in each)} of {sum(one.found.of for one in each)}"

    @property
    def more_tokens(self) -> str:
        """How many more output tokens they have, in per cent."""
        return span([one.more_tokens for one in self.power.differences])

    def spread(self) -> str:
        """Return by how much pairs spread, in per cent."""
        return span([one.log_sd for one in self.power.differences])

    def detectable(self, launches: int) -> str:
        """Return the difference that so many pairs find with a chance of `FOUND`, at the least spread, in per cent."""
        log_sd = min(one.log_sd for one in self.power.differences)
        found = optimize.brentq(lambda size: promised(size, log_sd, launches) - FOUND, 0.001, 3.0)
        return f"{100 * np.expm1(found):.0f}"


def size(model: str) -> str:
    """Return the size in a model's name: `8B` of qwen3-8b."""
    return model.rpartition("-")[2].upper()


class OnGpu:
    """Tables of one configuration under three names, a pack of each H200, of five to nine launches."""

    def __init__(self) -> None:
        self.packs: list[list[Table]] = [tables_of(RESULTS / f"h200-aa-{number}.tar.xz") for number in range(1, 10)]
        self.tables = self.packs[0]
        self.every = [table for pack in self.packs for table in pack]
        self.false = Share(count=sum(one.found for one in self.every), of=len(self.every))
        self.together = Share(count=self.false.count + EARLIER.count, of=self.false.of + EARLIER.of)
        parts = [part for one in self.every for part in one.parts(3)]
        self.of_three = Share(count=sum(parts), of=len(parts))
        if not all(one.counts for one in self.every):
            raise ValueError("h200-aa: a table is not quiet and whole: change the words of trust.md.j2")

    def ratios(self, table: Table) -> list[str]:
        """Return the ratios of both other names."""
        return [str(reported).partition(" ")[2] for reported in table.reported.values()]

    def reach(self, model: str) -> str:
        """Return how far intervals of a model with nine launches reach above the ratio, in per cent."""
        nine = [one for one in self.every if one.model == model and len(one.logs) == 9]
        found = [NUMBER.findall(text) for one in nine for text in self.ratios(one)]
        return span([float(high) / float(ratio) - 1 for ratio, _, high in found], 1)

    @functools.cached_property
    def components(self) -> dict[tuple[str, str], Components]:
        """Components of variance of the launches of all H200s, by model and load."""
        by_name = grouped(((one.model, one.name.rpartition(" ")[2]), one.logs) for one in self.every)
        return {name: components(logs) for name, logs in sorted(by_name.items())}

    def spreads(self) -> list[list[str]]:
        """Return the rows of the table of components: name, launches, within a launch and between, in per cent."""
        return [
            [
                f"{size(model)} {load}",
                str(of.launches),
                *(in_per_cent(each).replace(" %", "") for each in (of.within, of.between)),
            ]
            for (model, load), of in self.components.items()
        ]

    def most_by_start(self, model: str) -> str:
        """Return the upper end of what a start decides, over the loads of a model, in per cent."""
        return f"{100 * max(of.between[2] for (name, _), of in self.components.items() if name == model):.1f}"

    def shared(self) -> str:
        """Return the least and the largest correlation of a model's loads on an H200."""
        by_model = (tables for pack in self.packs for tables in grouped((one.model, one) for one in pack).values())
        found = sorted(map(shared, by_model))
        return f"{found[0]:.2f} to {found[-1]:.2f}"

    def throttled(self) -> int:
        """Return in how many tables all launches are `throttled`."""
        return sum(one.codes["throttled"] == sum(map(len, one.records.values())) for one in self.every)

    def named(self, table: Table) -> str:
        """Return the size of a model and the load, as in `8B step`."""
        return f"{size(table.model)} {table.name.rpartition(' ')[2]}"

    def differences(self) -> str:
        """Return each reported difference with its H200's number: `8B step c / a 0.985x [0.973, 0.997] on H200 5`."""
        names = dict(zip(self.every[0].reported, ("b / a", "c / a"), strict=True))
        found = [
            f"{self.named(one)} {names[quant]} {str(reported).partition(' ')[2]} on H200 {number}"
            for number, pack in enumerate(self.packs, 1)
            for one in pack
            for quant, reported in one.reported.items()
            if reported.found
        ]
        return ", ".join(found)

    @property
    def white(self) -> str:
        """Correlation of a pass with the next for white noise."""
        return f"{-1 / self.tables[0].logs.shape[2]:+.2f}"

    def lags(self, model: str) -> str:
        """Return the correlations of a pass with the next of a model's tables on all H200s."""
        found = sorted(components([one.logs]).lag for one in self.every if one.model == model)
        return f"{found[0]:+.2f} to {found[-1]:+.2f}"

    def passes(self, model: str, digits: int = 1) -> str:
        """Return by how much passes of a launch spread, over the launches of a model on all H200s, in per cent."""
        logs = np.concatenate([one.logs.reshape(-1, one.logs.shape[2]) for one in self.every if one.model == model])
        return span(logs.std(axis=1, ddof=1).tolist(), digits)

    def widest(self) -> tuple[str, str]:
        """Return the least and the largest tok/s of a pass in the launch whose passes are the furthest apart."""
        launches = [launch for one in self.tables for launch in one.logs.reshape(-1, one.logs.shape[2])]
        rates = np.exp(max(launches, key=np.ptp))
        return f"{rates.min():,.0f}", f"{rates.max():,.0f}"
