"""results/validation.md, from studies/results. It names the studies that were not run; docs/trust.md sums it up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from block_aa import BlockAA
from block_sections import block_tables
from block_tables import BlockTables
from design_sections import block_aa
from drift_section import drift_verdicts
from drift_verdicts import DriftVerdicts
from false_verdict_shares import FalseVerdicts
from fidelity import GPU_RESULT, Fidelity
from fidelity_sections import fidelity
from interval_coverage import Coverage
from kept import REPOSITORY, RESULTS, kept
from measured_sections import false_verdicts, measured, power
from online_fidelity import GPU_RESULT as ONLINE_ON_GPU
from online_fidelity import RESULT, OnlineFidelity
from online_sections import online_fidelity
from outcomes import outcomes
from percentile_coverage import PercentileCoverage, percentile_coverage
from power import Power
from repeats import Launches
from validation_sections import coverage

from rollout_bench.contracts.fields import Strict

PAGE = REPOSITORY / "results" / "validation.md"

HEAD = """\
# Validation: are the verdicts right?

<!-- Made by `python studies/validation_page.py` from studies/results; changes here are lost. -->

What was checked, and how it came out. Each question leads to its section.
"""

ABOUT = """\
A tool that says "faster" must be right about how often it says so without reason, must find the differences that it
says it can find, and must time the same thing as others do. Each section has the command that makes it again, what was
seen, and what it does not show. Shares are followed by their 95 % interval (Clopper and Pearson). The values of each
launch are in `studies/results/`, so everything but the measurements can be calculated again without an engine:

```shell
python studies/interval_coverage.py
python studies/block_tables.py
python studies/drift_verdicts.py
python studies/percentile_coverage.py
python studies/false_verdicts.py analyse
python studies/power.py
python studies/validation_page.py
```
"""

NOT_RUN = "Not run."


def section(title: str, commands: Sequence[str], about: str, body: str) -> str:
    """One section: what is asked, the commands that answer it, the answer."""
    return "\n".join([f"## {title}", "", about, "", "```shell", *commands, "```", "", body, ""])


NOT_YET = (("block_aa", "python studies/block_aa.py", "one configuration under three names, 30 tables on the engine"),)
"""What was not run with the shipped design: the name of its result, its command, and what it shows."""

ELSEWHERE = """\
Measured elsewhere: [four configurations on an H200](../docs/results.md#findings) has one configuration under two names
at the 8B shape, and an idle neighbour at 1.7B. The time of each pass is in `studies/results/h200-interleaved.json`.
"""


def not_run(results: Path) -> list[tuple[str, str]]:
    """Return what of `NOT_YET` has no result in `results`: its command, and what it shows."""
    return [(command, what) for name, command, what in NOT_YET if not (results / f"{name}.json").is_file()]


def not_yet_shown(results: Path) -> str:
    """Return the section on what has no result in `results`."""
    missing = [f"- {what}: `{command}`" for command, what in not_run(results)]
    lines = [
        "With the shipped design, interleaved blocks, these were not run:",
        "",
        *missing,
        "",
    ]
    return "\n".join(["## Not yet shown", "", *(lines if missing else []), ELSEWHERE])


def page(results: Path = RESULTS) -> str:
    """Return the page from the results in `results`."""

    def body(name: str, kind: type[Strict], write: Callable[..., str]) -> str:
        result = kept(name, kind, results)
        return write(result) if result is not None else NOT_RUN

    def optional(name: str, kind: type[Strict], write: Callable[..., str], *about: Any) -> list[str]:
        """Return a section that stands there only once its result does."""
        return [section(*about, body(name, kind, write))] if kept(name, kind, results) is not None else []

    measure = "python studies/false_verdicts.py measure"
    return "\n".join(
        [
            HEAD,
            outcomes(results, [what for _, what in not_run(results)]),
            "",
            ABOUT,
            section(
                "Do the intervals cover the truth?",
                ["python studies/interval_coverage.py"],
                "Simulated pairs of launches with a known ratio, under noise that is and that is not what the t"
                " interval assumes. In each cell, how many per cent of the intervals hold the true ratio.",
                body("coverage", Coverage, coverage),
            ),
            section(
                "Do the verdicts of a whole table hold?",
                ["python studies/block_tables.py"],
                "Simulated tables in which nothing differs: several configurations, one of them the baseline, all"
                " launched once in each round. How often some difference is found; 5 % are promised.",
                body("block_tables", BlockTables, block_tables),
            ),
            *optional(
                "block_aa",
                BlockAA,
                block_aa,
                "How often does a real table find a difference where there is none?",
                ["python studies/block_aa.py"],
                "One model in bf16 under three names. Each table is a run as the default config makes it: three blocks,"
                " the engines of a block alive at once, passes in turn.",
            ),
            section(
                "Does a verdict of drift hold?",
                ["python studies/drift_verdicts.py"],
                "Simulated tables of mode drift: how often `drifts` is false, how often the interval of mean |d| holds"
                " the truth, and which drift is found beyond the floor.",
                body("drift_verdicts", DriftVerdicts, drift_verdicts),
            ),
            section(
                "Do intervals of percentiles hold where launches differ?",
                ["python studies/percentile_coverage.py"],
                "Simulated experiments whose launches differ: how often a percentile of pooled sequences is shown with"
                " an interval that misses the truth.",
                body("percentile_coverage", PercentileCoverage, percentile_coverage),
            ),
            section(
                "What was measured for the next two sections",
                [measure],
                "One model in bf16 under two names, `first` and `second`: the same weights, arguments and prompts. Each"
                " under four workloads that differ in the number of output tokens alone. All eight take turns through"
                " `snakemake`, as in any other run.",
                body("launches", Launches, measured),
            ),
            section(
                "How often is a difference found where there is none?",
                [measure, "python studies/false_verdicts.py analyse"],
                "`second` against `first` in output tokens per second, by the default settings. The launches are cut"
                " into disjoint comparisons of three pairs in a row.",
                body("false_verdicts", FalseVerdicts, false_verdicts),
            ),
            section(
                "How often is a difference found that is there?",
                [measure, "python studies/power.py"],
                "The workloads with 2, 5 and 10 % more output tokens against the one without, in time per iteration, so"
                " the right verdict is `v`. Again disjoint comparisons of three pairs.",
                body("power", Power, power),
            ),
            section(
                "Does vLLM's own benchmark see the same throughput?",
                ["python studies/fidelity.py"],
                "`vllm.benchmarks.throughput.run_vllm`, which is what `vllm bench throughput` times, against"
                " `rollout-bench measure`, in turn, each in a process of its own: the same weights, token ids, lengths,"
                " sampling, engine arguments and environment.",
                body("fidelity", Fidelity, fidelity),
            ),
            section(
                "Does the command see the same on a GPU?",
                ["python studies/fidelity.py --platform cuda"],
                "`vllm bench throughput` with its own options against `rollout-bench measure`, in turn, each in a"
                " process of its own, with dummy weights.",
                body(GPU_RESULT, Fidelity, fidelity),
            ),
            section(
                "Do other clients see the same latencies?",
                ["python studies/online_fidelity.py"],
                "`vllm bench serve`, called as one types it, against rollout-bench's own sender: in turn,"
                " on one server that was started by hand, each in a process of its own.",
                body(RESULT, OnlineFidelity, online_fidelity),
            ),
            section(
                "Do they on a GPU?",
                ["python studies/online_fidelity.py --platform cuda"],
                "The same with dummy weights. The server has a tokenizer, as `vllm bench serve` sends text.",
                body(ONLINE_ON_GPU, OnlineFidelity, online_fidelity),
            ),
            not_yet_shown(results),
        ]
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, default=PAGE, metavar="FILE", help="(default: results/validation.md)")
    arguments = parser.parse_args()
    arguments.write.parent.mkdir(parents=True, exist_ok=True)
    arguments.write.write_text(page().rstrip() + "\n")
    print(arguments.write)


if __name__ == "__main__":
    main()
