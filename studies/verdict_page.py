"""results/time-to-verdict.md, from the seconds that were taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from measured_rounds import MeasuredBlock, log_speedups
from page import machine_facts
from scipy import stats

BASELINE, OTHER = "bf16", "w8a8"

AT_MOST = 1 / 4
"""Of the loop's time to the same precision: what is aimed at."""

CONFIDENCE = 0.95

LEAST_BLOCKS, LEAST_PAIRS = 3, 3
"""What each side measures at the least, however little its values scatter."""

HALF_WIDTHS = (0.10, 0.05, 0.02)
"""For which precision the times are worked out, besides the loop's own."""

PAGE = """\
# How long a verdict takes

<!-- Made by `python studies/verdict_time.py --write results/time-to-verdict.md`; changes here are lost. -->

{answer}

Without rollout-bench one would call `vllm bench throughput` again and again: a process that starts the engine for each
pass. rollout-bench starts the engines of a comparison together and lets them make their passes in turn. Two things
decide how long that takes: what one more piece of evidence costs, and how much it says. `make bench` measures both,
side by side on one machine, and works out the time to *equal precision*: until the 95 % interval of w8a8 / bf16 reaches
equally far.

{body}
"""

NOT_RUN = """\
## Measured

Not run with the shipped design yet. `make bench` measures it.

An earlier version of this page said that rollout-bench takes 0.24 of the loop's time: 90 s where the loop took 369 s.
That compared equal numbers of passes, ten of each quantization, not equal precision. Passes of one engine that follow
each other share the state of the machine, so ten of them in two launches said less than ten of the loop. To the loop's
precision the design of that time, one engine after the other, would have taken about 0.8 of its time."""

UNANSWERED = "How much sooner rollout-bench knows than a loop of `vllm bench throughput` has to be measured again."

MEASURED = """\
## Measured

{table}

- Ratio for any high precision: {limit}. The interval is that of the two measured spreads.
- Promised is at most {promised}: {kept}, at the precision that the loop reached.

Blocks and pairs are worked out from the measured spreads by the rule that both sides share: the fewest n, {least} at
the least, for which the half width of Student's interval, t(0.975; n - 1) s / sqrt(n), is no more than what is asked
for.

## What the times consist of

{parts}

A block is one start of both engines, and the passes that they make in turn; what it says is the trimmed mean of the log
ratios of its rounds. A pair of the loop is two processes with one pass each, one right after the other in an order that
is drawn. Both run the engine core inside the process, with the same arguments; checkpoints were built before. The
loop's are first passes: its `--num-warmups` is 0, as by default. Each engine of rollout-bench has a warm-up pass.
Snakemake, tables and figures are in the times of rollout-bench, once; the loop has none.

## Where

{machine}"""


@dataclass(frozen=True)
class Sample:
    """One process of the loop: its seconds on the wall clock, and those that it reports for its pass."""

    quant: str
    wall_s: float
    pass_s: float


@dataclass(frozen=True)
class Evidence:
    """One side: what one more block or pair costs, and how much it says.

    Attributes:
        sd: standard deviation of the log speed-up that one of them gives.
        freedom: degrees of freedom of `sd`.
        each_s: seconds of one.
        once_s: seconds that are spent once.
        least: how many are measured at the least.
    """

    sd: float
    freedom: int
    each_s: float
    once_s: float
    least: int

    def count(self, half_width: float) -> int:
        """Return the fewest that give an interval which reaches no further than `half_width`, a fraction."""
        aim = math.log1p(half_width) * (1 + 1e-9)  # a half width that was worked out is met by its own count
        number = max(self.least, math.floor((stats.norm.ppf((1 + CONFIDENCE) / 2) * self.sd / aim) ** 2))  # t is more
        while _half(self.sd, number) > aim:
            number += 1
        return number

    def seconds(self, half_width: float) -> float:
        """Return how long that takes."""
        return self.once_s + self.count(half_width) * self.each_s


def _half(sd: float, count: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * sd / math.sqrt(count)


@dataclass(frozen=True)
class Verdict:
    """Seconds of each call of `snakemake`, what it measured, and the loop's processes, pair after pair.

    `load` is the machine's load average before the first run.
    """

    ours_s: Sequence[float]
    blocks: Sequence[MeasuredBlock]
    loop: Sequence[Sequence[Sample]]
    load: float

    @property
    def ours(self) -> Evidence:
        """The side of rollout-bench."""
        logs = [float(log_speedups(block, BASELINE, [OTHER])[0]) for block in self.blocks]
        each_s = float(np.mean([block.seconds for block in self.blocks]))
        once_s = max(0.0, float(np.mean(self.ours_s)) - each_s)
        return Evidence(float(np.std(logs, ddof=1)), len(logs) - 1, each_s, once_s, LEAST_BLOCKS)

    @property
    def theirs(self) -> Evidence:
        """The side of the loop."""
        passes = [{one.quant: one.pass_s for one in pair} for pair in self.loop]
        logs = [math.log(one[BASELINE] / one[OTHER]) for one in passes]
        each_s = float(np.mean([sum(one.wall_s for one in pair) for pair in self.loop]))
        return Evidence(float(np.std(logs, ddof=1)), len(logs) - 1, each_s, 0.0, LEAST_PAIRS)

    @property
    def reached(self) -> float:
        """The half width that the loop reached, a fraction."""
        return math.expm1(_half(self.theirs.sd, len(self.loop)))

    def ratio(self, half_width: float) -> float:
        """Our time to that precision as a share of the loop's."""
        return self.ours.seconds(half_width) / self.theirs.seconds(half_width)

    @property
    def limit(self) -> tuple[float, float, float]:
        """The ratio where many blocks are needed, and its 95 % interval from the F distribution of two variances."""
        ours, theirs = self.ours, self.theirs
        middle = ours.each_s * ours.sd**2 / (theirs.each_s * theirs.sd**2)
        ends = [
            float(stats.f.ppf(q, ours.freedom, theirs.freedom)) for q in ((1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2)
        ]
        return middle, middle / ends[0], middle / ends[1]

    @property
    def kept(self) -> str:
        """Whether the promise is kept."""
        return "kept" if self.ratio(self.reached) <= AT_MOST else "NOT KEPT"

    def promise(self) -> str:
        """Return the ratio, the promise, and whether it is kept."""
        return (
            f"To an interval of +-{100 * self.reached:.1f} % rollout-bench takes {self.ratio(self.reached):.2f} of the"
            f" loop's time; promised is at most {AT_MOST:g}: {self.kept}."
        )

    def table(self) -> str:
        """Return how long both take to the same precision, as Markdown."""
        ours, theirs = self.ours, self.theirs
        lines = [
            ("95 % interval", "rollout-bench", "loop of `vllm bench throughput`", "rollout-bench / loop"),
            ("---", "--:", "--:", "--:"),
        ]
        for half_width in sorted({*HALF_WIDTHS, self.reached}, reverse=True):
            sides = [
                f"{side.seconds(half_width):.0f} s ({side.count(half_width)} {what})"
                for side, what in ((ours, "blocks"), (theirs, "pairs"))
            ]
            mark = ", the loop's" if half_width == self.reached else ""
            lines.append((f"±{100 * half_width:.1f} %{mark}", *sides, f"{self.ratio(half_width):.2f}"))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def parts(self) -> str:
        """Return what one more block and pair cost and say, as Markdown."""
        ours, theirs = self.ours, self.theirs
        starts = [second for block in self.blocks for second in block.startup_s.values()]
        passes = [second for block in self.blocks for column in block.passes_s.values() for second in column]
        of_loop = [one for pair in self.loop for one in pair]
        rows = [
            ("", "a block of rollout-bench", "a pair of the loop"),
            ("---", "--:", "--:"),
            ("measured here", f"{len(self.blocks)}", f"{len(self.loop)}"),
            ("starts of an engine", "2", "2"),
            ("passes that count", f"{len(passes) / len(self.blocks):.0f}", "2"),
            ("a start, or all but the pass", _s(starts), _s([one.wall_s - one.pass_s for one in of_loop])),
            ("a pass", _s(passes), _s([one.pass_s for one in of_loop])),
            ("takes", f"{ours.each_s:.0f} s", f"{theirs.each_s:.0f} s"),
            ("once: Snakemake, tables, figures", f"{ours.once_s:.0f} s", "none"),
            ("spread of the speed-up that it gives", f"{100 * ours.sd:.2f} %", f"{100 * theirs.sd:.2f} %"),
        ]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _s(seconds: Sequence[float]) -> str:
    return f"{np.mean(seconds):.1f} s"


def page(verdict: Verdict | None) -> str:
    """Return the page; `None` where it was not run."""
    if verdict is None:
        return PAGE.format(answer=UNANSWERED, body=NOT_RUN)
    middle, low, high = verdict.limit
    ratio, reached = verdict.ratio(verdict.reached), f"±{100 * verdict.reached:.1f} %"
    return PAGE.format(
        answer=(
            f"rollout-bench takes {ratio:.2f} of the time that a loop of `vllm bench throughput` takes to know as much:"
            f" whether w8a8 is faster than bf16, to {reached}."
        ),
        body=MEASURED.format(
            table=verdict.table(),
            limit=f"{middle:.2f} [{low:.2f}, {high:.2f}]",
            promised=f"{AT_MOST:g}",
            kept=verdict.kept,
            least=LEAST_BLOCKS,
            parts=verdict.parts(),
            machine="\n".join(f"- {line}" for line in machine_facts(verdict.load)),
        ),
    )
