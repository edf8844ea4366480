"""docs/explanation/time-to-verdict.md, from the seconds that were taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from page import machine_facts

from rollout_bench.analysis.timed.launches import parts_of
from rollout_bench.contracts.record import Record

AT_MOST = 1 / 3
"""Of the loop's time: what is promised."""

PAGE = """\
# How long a verdict takes

<!-- Made by `python benchmarks/verdict_time.py --write docs/explanation/time-to-verdict.md`; changes here are lost. -->

To say whether w8a8 is faster takes several passes of each quantization. A loop of `vllm bench throughput` starts the
engine for each of them; a launch of rollout-bench measures several. `make bench` times both, in turn, on one machine.

{body}
"""

NOT_RUN = "Not run."

MEASURED = """\
{table}

{promise}

Each side measures {samples} passes of each of two quantizations (bf16 and w8a8 of the demo's model): the loop in
{processes} processes, rollout-bench in {launches} launches with {iterations} measured iterations each. The loop's
are first passes: its `--num-warmups` is 0, as by default. rollout-bench has a warm-up iteration in each launch
besides. Both run the engine core inside the process, with the same arguments; checkpoints were built before. The
loop's time ends with its last pass, that of rollout-bench with tables and figures.

What is not the same: the loop's passes are {processes} launches, while iterations of one launch resemble each other. So
the loop knows more of the spread between launches, which a verdict rests on; `launches` and `iterations` set that
balance.

## Where

{machine}"""


@dataclass(frozen=True)
class Verdict:
    """Seconds of each call of `snakemake`, its records, seconds of each process of the loop and of the pass in it.

    `load` is the machine's load average before the first run.
    """

    ours_s: Sequence[float]
    records: Sequence[Record]
    loop_s: Sequence[float]
    loop_passes_s: Sequence[float]
    launches: int
    iterations: int
    load: float

    @property
    def ratio(self) -> float:
        """Our time as a share of the loop's."""
        return sum(self.ours_s) / sum(self.loop_s)

    def promise(self) -> str:
        """Return the ratio, the promise, and whether it is kept."""
        kept = "kept" if self.ratio <= AT_MOST else "NOT KEPT"
        return f"rollout-bench takes {self.ratio:.2f} of the loop's time; promised is at most a third: {kept}."

    def table(self) -> str:
        """Return what the time of both goes to, as Markdown."""
        ours, loop, passes = sum(self.ours_s), sum(self.loop_s), sum(self.loop_passes_s)
        costs = [parts_of(record) for record in self.records]
        counted = sum(not iteration.warmup for record in self.records for iteration in record.iterations)
        besides = ours - sum(cost.wall_s for cost in costs)
        rows = [
            ("processes that start the engine", f"{len(costs)}", f"{len(self.loop_s)}"),
            ("measured passes", f"{counted}", f"{len(self.loop_passes_s)}"),
            ("measured passes take", f"{sum(cost.measured_s for cost in costs):.1f} s", f"{passes:.1f} s"),
            ("warm-up", f"{sum(cost.warmup_s for cost in costs):.1f} s", "none"),
            ("importing the engine", f"{sum(cost.import_s for cost in costs):.1f} s", ""),
            ("constructing the engine", f"{sum(cost.init_s for cost in costs):.1f} s", ""),
            ("all but the passes", "", f"{loop - passes:.1f} s"),
            ("else inside the launches", f"{sum(cost.process_s + cost.other_s for cost in costs):.1f} s", ""),
            ("Snakemake, tables, figures", f"{besides:.1f} s", "none"),
            ("**all**", f"**{ours:.0f} s**", f"**{loop:.0f} s**"),
        ]
        lines = [("", "rollout-bench", "loop of `vllm bench throughput`"), ("---", "--:", "--:"), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(verdict: Verdict | None) -> str:
    """Return the page; `None` where it was not run."""
    if verdict is None:
        return PAGE.format(body=NOT_RUN)
    return PAGE.format(
        body=MEASURED.format(
            table=verdict.table(),
            promise=verdict.promise(),
            samples=verdict.launches * verdict.iterations,
            processes=len(verdict.loop_s),
            launches=len(verdict.records),
            iterations=verdict.iterations,
            machine="\n".join(f"- {line}" for line in machine_facts(verdict.load)),
        )
    )
