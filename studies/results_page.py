"""Render docs/results.md, docs/trust.md, and the table "What it found" of README.md, from studies/results.

Questions, words and layout are in results.md.j2, trust.md.j2 and readme.md.j2. Ratios, intervals and the words of
verdicts come from the records, by today's rules of the package; trust_numbers.py has the numbers of other studies.
`python studies/results_page.py` writes the pages.
"""

import argparse
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
import numpy as np
import trust_numbers
from fidelity import COMMAND, OURS
from kept import REPOSITORY, RESULTS, SETTINGS

from rollout_bench.analysis.stats.divergence import mean_size
from rollout_bench.analysis.stats.intervals import ratio_interval, welch_interval
from rollout_bench.analysis.stats.lines import crossing
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.comparison import Comparison, judge, with_pairs
from rollout_bench.analysis.timed.drafting import break_evens
from rollout_bench.analysis.timed.experiments import Earlier, ResultSet, measured_experiments
from rollout_bench.analysis.timed.pairs import trimmed_mean
from rollout_bench.analysis.timed.rows import Row, rows_of
from rollout_bench.contracts.record import Record
from rollout_bench.core.files import write_whole
from rollout_bench.core.mappings import grouped
from rollout_bench.modes.cycle.gains import NetGain, net_gain
from rollout_bench.modes.messages.links import message_runs, step_shares
from rollout_bench.numbers.registry import MetricName
from rollout_bench.report.pack import opened
from rollout_bench.report.reference import flags_table
from rollout_bench.report.speeds import files_of
from rollout_bench.report.state import plan_of_summary

PAGE = REPOSITORY / "docs" / "results.md"
TRUST = REPOSITORY / "docs" / "trust.md"
README = REPOSITORY / "README.md"
SPEEDS = REPOSITORY / "docs" / "reference" / "speeds.csv"

WITH_SPEEDS = ("experts", "fidelity", "first-hour", "lengths", "lengths-long", "lora", "parallel", "shared",
               "two-gpus", "vllm-0.23.0", "vllm-0.25.1")  # fmt: skip
"""Archives of GPUs, by what follows the name of the GPU, whose launches are in the table of speeds."""

TABLE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL)
"""The part of the README that is made."""

WORDS = {"faster": "faster", "slower": "slower", "irrelevant": "below 1 %", "undetected": "inconclusive"}
"""Verdict -> its word on the pages."""


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval, without a unit, over `pairs` of launches or blocks; `word` is its verdict's."""

    value: float
    low: float
    high: float
    word: str
    pairs: int
    digits: int = 3

    def __str__(self) -> str:
        value, low, high = (f"{each:.{self.digits}f}" for each in (self.value, self.low, self.high))
        return f"{value}x [{low}, {high}]"

    @property
    def inverse(self) -> "Ratio":
        """The ratio the other way round: of times or energies."""
        return replace(self, value=1 / self.value, low=1 / self.high, high=1 / self.low)

    @property
    def brief(self) -> "Ratio":
        """The ratio with two digits."""
        return replace(self, digits=2)

    @property
    def farthest(self) -> float:
        """The largest distance of the interval from 1, in per cent."""
        return 100 * max(1 - self.low, self.high - 1)


def ratio_of(found: Comparison) -> Ratio:
    """Return a comparison with an interval as the pages show it."""
    value, low, high, verdict = found.speedup, found.low, found.high, found.verdict
    if value is None or low is None or high is None or verdict is None:
        raise ValueError(f"a page has no word for a comparison without an interval: {found.reason}")
    return Ratio(value, low, high, WORDS[verdict], min(found.launches_used))


class Pack:
    """The rows of an archive, against its own baseline or against the one that is given."""

    def __init__(self, name: str, baseline: Mapping[str, str] | None = None, over: str | None = None) -> None:
        of = collected(name)
        if over is not None:
            of = replace(of, baseline={}, earlier=Earlier(over, collected(over).experiments, of=name))
        self._rows = rows_of(of if baseline is None else replace(of, baseline=baseline))

    def row(self, **names: object) -> Row:
        """Return the row with these `names`: model, quant, workload and setting; `at` is the number of requests."""
        (found,) = (row for row in self._rows if all(_name(row, key) == value for key, value in names.items()))
        return found

    def ratio(self, metric: MetricName = "output_tokens_per_s", **names: object) -> Ratio:
        """Return the ratio of the row with these names to its baseline; above 1 is better."""
        return ratio_of(self.row(**names).comparisons[metric])

    def value(self, number: str, **names: object) -> float:
        """Return a number of the row with these names, in its unit."""
        return self.row(**names).values[number]

    def ratios(self, quant: str, workloads: Sequence[str]) -> list[Ratio]:
        """Return the ratios of a quantization by workload."""
        return [self.ratio(quant=quant, workload=workload) for workload in workloads]

    def by_setting(self, quant: str, settings: Sequence[str]) -> list[Ratio]:
        """Return the ratios of a quantization by setting."""
        return [self.ratio(quant=quant, setting=setting) for setting in settings]

    def pays_to(self, setting: str, baseline: str) -> int | None:
        """Return up to how many output tokens of a sequence a setting's whole step is shorter, as in its summary."""
        gain = self._net_gain(setting, baseline)
        return gain.pays.last if gain and gain.pays else None

    def loses_from(self, setting: str, baseline: str) -> int | None:
        """Return from how many output tokens of a sequence on a setting's whole step is longer, as in its summary."""
        gain = self._net_gain(setting, baseline)
        return gain.loses.first if gain and gain.loses else None

    def _net_gain(self, setting: str, baseline: str) -> NetGain | None:
        confidence = 1 - (1 - SETTINGS.confidence) / (len(self._rows) - 1)
        own, base = self.row(setting=setting), self.row(setting=baseline)
        return net_gain(own, base, own.comparisons["whole_step_s"], confidence)

    def drafts_pay_from(self, workload: str) -> str:
        """Return the accepted length from which drafts pay under a load, with its interval, as in its summary."""
        others = [row for row in self._rows if row.experiment.workload == workload and row.experiment.setting]
        (found,) = break_evens([row for row in others if not row.comparison.is_baseline], SETTINGS.confidence)
        return f"{found.at:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _name(row: Row, key: str) -> object:
    point = row.experiment.point
    return getattr(row.experiment, key) if key != "at" else point and point.concurrency


@functools.cache
def collected(name: str) -> ResultSet:
    """Return the records of an archive in studies/results."""
    folder = opened(RESULTS / f"{name}.tar.xz")
    return collect(folder, plan_of_summary(folder), warned=False)


@functools.cache
def pack(name: str, over: str | None = None, **baseline: str) -> Pack:
    """Return the rows of an archive, against a named baseline, or as a later run against the archive `over`."""
    return Pack(name, baseline or None, over)


@functools.cache
def kept(name: str) -> Any:
    """Return the content of a JSON file of studies/results, which is older than archives."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def family(log_ratios: Mapping[str, Mapping[int, float]]) -> dict[str, Ratio]:
    """Return the ratios of configurations to one baseline from log ratios by block, above 0 where they are better."""
    found = [with_pairs(Comparison(), logs, SETTINGS.confidence, None) for logs in log_ratios.values()]
    judged = judge(found, SETTINGS, baselines=[""] * len(found))
    return dict(zip(log_ratios, map(ratio_of, judged), strict=True))


def of_rounds(rows: Iterable[Mapping[str, Any]], baseline: str) -> dict[str, Ratio]:
    """Return the ratios of interleaved engines in blocks: typical log ratios of rounds, as of `pairs.pair_of`."""
    by_name = grouped((" ".join(filter(None, (row["quant"], row.get("setting")))), row) for row in rows)
    pass_s = {name: {row["block"]: row["pass_s"] for row in name_rows} for name, name_rows in by_name.items()}
    base = pass_s.pop(baseline)
    return family(
        {
            name: {
                block: trimmed_mean([math.log(b / a) for a, b in zip(times, base[block], strict=True)])
                for block, times in name_rows.items()
            }
            for name, name_rows in pass_s.items()
        }
    )


def of_launches(typical: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Ratio]:
    """Return the ratios of launches from a number's logarithm by name and launch, of which less is better."""
    base = typical[baseline]
    return family(
        {
            name: {launch: base[launch] - log for launch, log in logs.items()}
            for name, logs in typical.items()
            if name != baseline
        }
    )


def interleaved(name: str) -> dict[str, Ratio]:
    """Return the ratios of a table of interleaved engines on an H200: `table`, or `aa`, one engine twice."""
    return of_rounds(kept("h200-interleaved")["blocks"][name], "bf16")


def settings() -> dict[str, Ratio]:
    """Return the ratios of quantizations and KV caches at 24 x 8 sequences on an H200."""
    return of_rounds(kept("h200-settings")["blocks"], "bf16 default")


def energy(model: str, of: str) -> dict[str, Ratio]:
    """Return the ratios of a model in `energy_j` or `elapsed_s` of a pass on H200s."""
    by_quant = grouped((row["quant"], row) for row in kept("h200-energy")["launches"] if row["model"] == model)
    return of_launches(
        {
            quant: {row["launch"]: trimmed_mean(np.log(row[of]).tolist()) for row in rows}
            for quant, rows in by_quant.items()
        },
        "bf16",
    )


def power_w(model: str, group: str = "launches", device: int | None = None) -> dict[str, float]:
    """Return the mean power of quantizations over their passes on H200s, or on one of these, in watts."""
    rows = [row for row in kept("h200-energy")[group] if row["model"] == model and device in (None, row["device"])]
    by_quant = grouped((row["quant"], row) for row in rows)
    return {quant: fmean(sum(r["energy_j"]) / sum(r["window_s"]) for r in rows) for quant, rows in by_quant.items()}


def sampled() -> tuple[float, float]:
    """Return the smallest and largest ratio of sampled power to the counter's, over the launches on H200s."""
    found = [sum(row["sampled_j"]) / sum(row["energy_j"]) for row in kept("h200-energy")["launches"]]
    return min(found), max(found)


class FirstHour:
    """The commands of the README on an H200, from an empty folder to the first verdict."""

    def __init__(self) -> None:
        self._steps = {step["name"]: step["seconds"] for step in kept("h200-first-hour")["steps"]}
        records = [record for one in collected("h200-first-hour").experiments for record in one.records]
        first, *self._rest = sorted(map(_start_s, records), reverse=True)
        self.first_start = f"{first:.0f}"

    def minutes(self, *steps: str) -> str:
        """Return the time of steps, by default of all up to the end of `rollout-bench run`, in minutes."""
        names = list(self._steps)
        chosen = steps or names[: names.index("run") + 1]
        return f"{sum(self._steps[name] for name in chosen) / 60:.1f}"

    def seconds(self, *steps: str) -> str:
        """Return the time of steps, in seconds."""
        return f"{sum(self._steps[name] for name in steps):.0f}"

    @property
    def later_starts(self) -> str:
        """The least and the largest seconds of the other starts of an engine."""
        return f"{min(self._rest):.0f} to {max(self._rest):.0f}"


def _start_s(record: Record) -> float:
    return record.startup.init_s or 0.0


class Cycle:
    """Whole steps of Qwen3-8B with sleep level 1 and weight sync on H200s."""

    def __init__(self) -> None:
        rows = [
            row
            for row in kept("h200-cycle")["launches"]
            if (row["mode"], row["model"], row.get("sleep")) == ("cycle", "qwen3-8b", "1")
        ]
        self._rows = grouped((row["quant"], row) for row in rows)

    def whole_step(self) -> dict[str, Ratio]:
        """Return the ratios of whole steps to bf16's."""
        steps = {
            quant: {
                row["launch"]: trimmed_mean(np.log(np.add(row["elapsed_s"], row["transition_s"])).tolist())
                for row in rows
            }
            for quant, rows in self._rows.items()
        }
        return of_launches(steps, "bf16")

    def part_s(self, quant: str, *parts: str) -> float:
        """Return the mean seconds of parts of a transition."""
        return fmean(sum(fmean(row["parts_s"][part]) for part in parts) for row in self._rows[quant])

    def pays(self, quant: str) -> str:
        """Return the output tokens of a sequence at which a whole step is shorter than bf16's, as `cycle.gains`."""
        lines = [
            {
                row["launch"]: (
                    fmean(row["transition_s"]),
                    fmean(row["elapsed_s"]) / (row["output_tokens"] / SEQUENCES),
                )
                for row in self._rows[of]
            }
            for of in (quant, "bf16")
        ]
        pairs = [(lines[0][launch], lines[1][launch]) for launch in sorted(lines[0])]
        confidence = 1 - (1 - SETTINGS.confidence) / (len(self._rows) - 1)
        below = crossing([a[0] - b[0] for a, b in pairs], [a[1] - b[1] for a, b in pairs], confidence).below
        assert below is not None
        first, last = max(1, math.ceil(below[0])), below[1]
        if math.isfinite(last):
            return f"from {first} to {math.floor(last):,} output tokens"
        return "at any length" if first == 1 else f"from {first} output tokens on"


def lost_gb(name: str, setting: str) -> float:
    """Return by how much the free memory of an archive's GPU falls with each weight sync of a setting, in GB."""
    falls = []
    for experiment in collected(name).experiments:
        for record in experiment.records if experiment.setting == setting else ():
            syncs = [one.transition for one in record.iterations if one.transition is not None]
            free = [look.device_free_bytes or 0 for sync in syncs for look in sync.memory if look.when == "after"]
            falls += [before - after for before, after in pairwise(free)]
    return fmean(falls) / 1e9


SEQUENCES = 256
"""Sequences of the steps of `h200-cycle`."""


def verl_load(model: str) -> dict[str, Ratio]:
    """Return by entry the tok/s of the documented load over those of verl 0.9's load through AsyncLLM."""
    return _rollouts(model, ("documented", "verl09"), lambda row: f"{row['workload']} {row['entry']}", "verl09 async")


def routers() -> dict[str, Ratio]:
    """Return the ratios of routers to least_in_flight, at Qwen3-1.7B on two H200s."""
    return _rollouts("qwen3-1b7", ("tail",), lambda row: str(row["router"]), "least_in_flight")


def _rollouts(model: str, workloads: Sequence[str], name: Any, baseline: str) -> dict[str, Ratio]:
    rows = [
        row
        for row in kept("h200-rollout")["launches"]
        if row["model"] == model and row["workload"] in workloads and row["mode"] == "rollout"
    ]
    by_name = grouped((name(row), row) for row in rows)
    # fewer than five passes: the launch's own value
    return of_launches(
        {
            each: {row["launch"]: -math.log(_tokens_per_s(row)) for row in launches}
            for each, launches in by_name.items()
        },
        baseline,
    )


def _tokens_per_s(row: Mapping[str, Any]) -> float:
    tokens = row["output_tokens"]
    return (sum(tokens) if isinstance(tokens, list) else tokens * len(row["elapsed_s"])) / sum(row["elapsed_s"])


def drift(quant: str) -> str:
    """Return the mean |d| of a quantization in nats per token, with its interval."""
    # each sequence is kept as its tokens and the sum of their |d|
    each = [[total / tokens] for tokens, total, *_ in kept("h200-drift")["quants"][quant]["reference"]]
    found = mean_size(each, SETTINGS.confidence)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if found.value else "0"


def message_shares(workload: str) -> str:
    """Return the share of messages in decode steps of `h200-messages` with its interval, in per cent, by batch size."""
    chosen = [each for each in collected("h200-messages").others if each.workload == workload]
    (run,) = message_runs(measured_experiments(chosen))
    return ", ".join(
        f"{100 * share.value:.1f} % [{', '.join(f'{100 * end:.1f}' for end in share.ends)}]"
        for share in step_shares(run, SETTINGS.confidence)
    )


def fidelity() -> tuple[float, float, Ratio]:
    """Return output tok/s of this package and of `vllm bench throughput` on an H100, and their ratio."""
    ours = [launch.output_tokens_per_s for launch in pack("h100-fidelity").row().used]
    theirs = [run["output_tokens"] / run["elapsed_time"] for run in kept("h100-fidelity")["runs"]]
    found = welch_interval(np.log(ours), np.log(theirs), SETTINGS.confidence)
    value = math.exp(fmean(np.log(ours)) - fmean(np.log(theirs)))
    low, high = float(found.low), float(found.high)
    return fmean(ours), fmean(theirs), Ratio(value, low, high, "", len(ours))


@dataclass(frozen=True)
class AdapterInBench:
    """An adapter in `vllm bench throughput` and in launches of mode rollout, on an H200 at Qwen3-8B's step.

    `in_command` is its ratio to merged weights in the command, `over` that of the launches over it.
    """

    in_command: Ratio
    over: Ratio


def adapter_in_bench(setting: str) -> AdapterInBench:
    """Return what the command and the launches say of the adapter of a setting."""
    rates = {
        (run["setting"], run["round"]): run["output_tokens"] / run["elapsed_s"]
        for run in kept("h200-lora-bench")["runs"]
    }
    merged = {index: rate for (name, index), rate in rates.items() if name == "merged"}
    theirs = [math.log(rates[setting, index] / rate) for index, rate in merged.items()]
    rows = (pack("h200-lora").row(model="qwen3-8b", workload="step", setting=each) for each in (setting, "merged"))
    own, base = ([launch.output_tokens_per_s for launch in row.used] for row in rows)
    ours = [math.log(rate / other) for rate, other in zip(own, base, strict=True)]
    in_command = ratio_interval(theirs, SETTINGS.confidence)
    over = welch_interval(ours, theirs, SETTINGS.confidence)
    first, second = (
        Ratio(float(each.ratio), float(each.low), float(each.high), "", len(theirs)) for each in (in_command, over)
    )
    return AdapterInBench(first, second)


def in_turn() -> tuple[float, float, Ratio]:
    """Return output tok/s of launches and of `vllm bench throughput` that took turns on an H200, and their ratio."""
    found = trust_numbers.Trust().on_gpu
    ours, theirs = (fmean(found.rates(arm)) for arm in (OURS, COMMAND))
    ratio = found.ratio(OURS, COMMAND)
    assert ratio is not None
    pairs = len(found.rounds)
    return ours, theirs, Ratio(float(ratio.ratio), float(ratio.low), float(ratio.high), "", pairs, digits=4)


TENTH = Decimal("0.1")


@dataclass(frozen=True)
class Predictions:
    """The predictions of an archive in predictions.md: relative errors by load, how many hold, and how many refused.

    `others` are the errors of aiconfigurator. `repeats` is how many launches are within 8 % of their repeats.
    """

    errors: Mapping[str, float]
    held: int
    refused: Sequence[str]
    others: Mapping[str, float]
    repeats: str

    @property
    def asked(self) -> int:
        """Number of predictions that were asked for."""
        return len(self.errors) + len(self.refused)

    def within(self, percent: float, model: str = "") -> int:
        """Return how many errors of a model's loads are at most `percent`."""
        return sum(abs(error) <= percent for load, error in self.errors.items() if model in load)

    def asked_of(self, model: str) -> int:
        """Return how many predictions of a model's loads were asked for."""
        return sum(model in load for load in (*self.errors, *self.refused))

    @property
    def signed(self) -> str:
        """The errors in per cent, with their signs."""
        return ", ".join(f"{Decimal(str(error)).quantize(TENTH, ROUND_HALF_UP):+}" for error in self.errors.values())

    @property
    def worst_other(self) -> float:
        """The largest error of aiconfigurator, in per cent."""
        return max(map(abs, self.others.values()))

    @property
    def worst_beside(self) -> float:
        """The largest error of the loads that aiconfigurator predicts, too, in per cent."""
        return max(abs(self.errors[load]) for load in self.others)

    def __add__(self, more: "Predictions") -> "Predictions":
        return Predictions(
            {**self.errors, **{f"{load}, later": error for load, error in more.errors.items()}},
            self.held + more.held,
            [*self.refused, *more.refused],
            {**self.others, **{f"{load}, later": error for load, error in more.others.items()}},
            more.repeats,
        )


def predictions(name: str) -> Predictions:
    """Return the predictions of an archive, as studies/predictions.py wrote them; the engine's scheduler made them."""
    _, _, text = (RESULTS / "predictions.md").read_text().partition(f"predictions-{name}.tar.xz: ")
    text = text.partition("predictions-")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| qwen")]
    percent = [{row[0]: float(row[at].removesuffix(" %")) for row in rows if row[at] != "-"} for at in (4, 7)]
    repeats = re.search(r"other launches of its load: (\d+ of \d+)", text)
    return Predictions(
        percent[0],
        sum(row[5] == "yes" for row in rows),
        re.findall(r"^- refused: (.*?):", text, re.MULTILINE),
        percent[1],
        repeats[1] if repeats else "",
    )


def sign(*ratios: Ratio) -> str:
    """Return the answer of ratios to "is it faster?"."""
    words = {ratio.word for ratio in ratios}
    answers = {"faster": "Yes", "slower": "No", "inconclusive": "Inconclusive", "below 1 %": "Hardly"}
    return answers[words.pop()] if len(words) == 1 else "In part"


def verdicts_text(
    ratios: Mapping[str, Ratio], better: str = "faster", worse: str = "slower", inverse: bool = False
) -> str:
    """Return named ratios in groups of one verdict: `a 0.9x [..] and b 0.8x [..] are slower`."""
    words = {"faster": better, "slower": worse}
    groups = grouped(
        (words.get(ratio.word, ratio.word), f"{name} {ratio.inverse if inverse else ratio}")
        for name, ratio in ratios.items()
    )
    return "; ".join(
        f"{' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))} {'is' if len(names) == 1 else 'are'} {word}"
        for word, names in groups.items()
    )


def claim(ratio: Ratio, word: str) -> str:
    """Return nothing, after checking that a ratio has the verdict that the words of a template take for granted.

    Raises:
        ValueError: the records say otherwise.
    """
    if ratio.word != word:
        raise ValueError(f"a template says {word}, and the records say {ratio}, {ratio.word}: change its words")
    return ""


def changes(ratios: Sequence[Ratio], places: Sequence[str]) -> str:
    """Return between which places a ratio changes: not shown unless two of the intervals have no common value."""
    highest = max(range(len(ratios)), key=lambda place: ratios[place].low)
    lowest = min(range(len(ratios)), key=lambda place: ratios[place].high)
    if ratios[highest].low <= ratios[lowest].high:
        return "no change shown"
    first, last = sorted((highest, lowest))
    return f"{'less' if last == lowest else 'more'} at {places[last]} than at {places[first]}"


FUNCTIONS = (
    pack, interleaved, settings, energy, power_w, sampled, FirstHour, Cycle, verl_load, routers, drift,
    message_shares, fidelity, in_turn, adapter_in_bench, predictions, sign, verdicts_text, claim, changes,
    kept, lost_gb, functools.cache(trust_numbers.Trust), functools.cache(trust_numbers.OnGpu), flags_table,
)  # fmt: skip
"""What templates call, by their names in lower case."""


def rendered(template: str) -> str:
    """Return a page, or a part of one, from its template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(REPOSITORY / "studies"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    environment.globals.update({each.__name__.lower(): each for each in FUNCTIONS})
    return environment.get_template(template).render()


def pages() -> dict[Path, str]:
    """Return the text of each page that has results, by its path."""
    readme, tables = TABLE.subn(lambda _: rendered("readme.md.j2"), README.read_text())
    if tables != 1:
        raise ValueError(f"{README}: has {tables} tables between <!-- results --> and <!-- /results -->, not one")
    archives = [path for name in WITH_SPEEDS for path in sorted(RESULTS.glob(f"h?00-{name}.tar.xz"))]
    speeds = files_of(archives)["csv"]
    return {PAGE: rendered("results.md.j2"), TRUST: rendered("trust.md.j2"), README: readme, SPEEDS: speeds}


def main() -> None:
    """Write the pages."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path, text in pages().items():
        write_whole(path, text.encode())
        print(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    main()
