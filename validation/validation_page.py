"""docs/validation.md, from the results that lie in validation/results. What was not run is said to be so."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from block_aa import BlockAA
from block_sections import block_tables
from block_tables import BlockTables
from cycle_claims import CycleClaims
from demo_repeats import DemoRepeats
from design_sections import block_aa, demo_repeats, power_minutes
from drift_section import drift_verdicts
from drift_verdicts import DriftVerdicts
from exclusion import Exclusion
from exclusion_section import exclusion
from false_verdict_shares import FalseVerdicts
from fidelity import Fidelity
from fidelity_sections import fidelity, region
from interleaved_section import interleaved_tables
from interleaved_tables import InterleavedTables
from interval_coverage import Coverage
from kept import REPOSITORY, RESULTS, kept
from measured_sections import false_verdicts, measured, power
from modes import Modes
from modes_section import modes
from online_fidelity import RESULT, OnlineFidelity
from online_sections import online_fidelity
from outcomes import outcomes
from percentile_coverage import PercentileCoverage, percentile_coverage
from power import Power
from power_minutes import PowerMinutes
from predecessor import Predecessor
from region import Region
from repeats import Launches
from stopping import Stopping
from stopping_sections import stopping
from sweep_fidelity import RESULT as SWEEP
from sweep_fidelity import SweepFidelity
from sweep_section import sweep_fidelity
from validation_sections import coverage, cycle_claims, predecessor

from rollout_bench.contracts.fields import Strict

PAGE = REPOSITORY / "docs" / "validation.md"

HEAD = """\
# Validation: are the verdicts right?

<!-- Made by `python validation/validation_page.py` from validation/results; changes here are lost. -->

What was checked, and how it came out. Each question leads to its section.
"""

ABOUT = """\
A tool that says "faster" must be right about how often it says so without reason, must find the differences that it
says it can find, and must time the same thing as others do. Each section has the command that makes it again, what was
seen, and what it does not show. Shares are followed by their 95 % interval (Clopper and Pearson). The values of each
launch are in `validation/results/`, so everything but the measurements can be calculated again without an engine:

```shell
python validation/interval_coverage.py
python validation/block_tables.py
python validation/stopping.py
python validation/interleaved_tables.py
python validation/modes.py
python validation/exclusion.py
python validation/drift_verdicts.py
python validation/percentile_coverage.py
python validation/cycle_claims.py
python validation/false_verdicts.py analyse
python validation/power.py
python validation/predecessor.py
python validation/validation_page.py
```
"""

NOT_RUN = "Not run."


def section(title: str, commands: Sequence[str], about: str, body: str) -> str:
    """One section: what is asked, the commands that answer it, the answer."""
    return "\n".join([f"## {title}", "", about, "", "```shell", *commands, "```", "", body, ""])


NOT_YET = (
    ("block_aa", "python validation/block_aa.py", "one configuration under three names, 30 tables on the engine"),
    ("power_minutes", "python validation/power_minutes.py", "how narrow an interval is after 4, 7 and 14 minutes"),
    ("demo_repeats", "python validation/demo_repeats.py", "`make demo` ten times: whether it decides its comparisons"),
    ("region", "python validation/region.py", "whether the timed region takes as long as that of vLLM's benchmark"),
)
"""What was not run with the shipped design: the name of its result, its command, and what it shows."""

ELSEWHERE = """\
Measured elsewhere: [four configurations on an H200](results/h200-interleaved.md) has one configuration under two names
at the 8B shape, and an idle neighbour at 1.7B. The time of each pass is in `validation/results/h200-interleaved.json`.
"""


def not_run(results: Path) -> list[tuple[str, str]]:
    """Return what of `NOT_YET` has no result in `results`: its command, and what it shows."""
    return [(command, what) for name, command, what in NOT_YET if not (results / f"{name}.json").is_file()]


def not_yet_shown(results: Path) -> str:
    """Return the section on what has no result in `results`."""
    missing = [f"- {what}: `{command}`" for command, what in not_run(results)]
    lines = [
        "With the shipped design, interleaved blocks and `iterations: auto`, these were not run:",
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

    measure = "python validation/false_verdicts.py measure"
    return "\n".join(
        [
            HEAD,
            outcomes(results, [what for _, what in not_run(results)]),
            "",
            ABOUT,
            section(
                "Do the intervals cover the truth?",
                ["python validation/interval_coverage.py"],
                "Simulated pairs of launches with a known ratio, under noise that is and that is not what the t"
                " interval assumes. In each cell, how many per cent of the intervals hold the true ratio.",
                body("coverage", Coverage, coverage),
            ),
            section(
                "Do the verdicts of a whole table hold?",
                ["python validation/block_tables.py"],
                "Simulated tables in which nothing differs: several configurations, one of them the baseline, all"
                " launched once in each round. How often some difference is found; 5 % are promised.",
                body("block_tables", BlockTables, block_tables),
            ),
            *optional(
                "block_aa",
                BlockAA,
                block_aa,
                "How often does a real table find a difference where there is none?",
                ["python validation/block_aa.py"],
                "One model in bf16 under three names. Each table is a run as the default config makes it: three blocks,"
                " the engines of a block alive at once, passes in turn, `iterations: auto`.",
            ),
            *optional(
                "power_minutes",
                PowerMinutes,
                power_minutes,
                "How narrow is an interval after some minutes?",
                ["python validation/power_minutes.py"],
                "The design before (one engine after the other, `interleave: false`, `iterations: 4`) and the shipped"
                " one, beside each other on one machine: bf16, w8a8 and w8a16 of the demo.",
            ),
            *optional(
                "demo_repeats",
                DemoRepeats,
                demo_repeats,
                "Does the demo decide its comparisons?",
                ["python validation/demo_repeats.py"],
                "`make demo` again and again, each time in a fresh copy of the project, when its load was eight times"
                " as large and on a processor with AVX-512.",
            ),
            section(
                "Does `launches: auto` keep the promise?",
                ["python validation/stopping.py"],
                "Simulated tables in which nothing differs, launched until a half width is reached. How often some"
                " difference is found (5 % are promised), how often all intervals of a table hold the truth, and how"
                " many blocks it takes.",
                body("stopping", Stopping, stopping),
            ),
            section(
                "Do they hold for interleaved blocks?",
                ["python validation/interleaved_tables.py"],
                "Simulated tables in which nothing differs, pass by pass: the same noise in launches one after the"
                " other, and in blocks whose engines make their passes in turn.",
                body("interleaved_tables", InterleavedTables, interleaved_tables),
            ),
            section(
                "What of modes that an engine chooses at its start?",
                ["python validation/modes.py"],
                "Simulated tables of blocks in which nothing differs, but a share of the baseline's starts is slow for"
                " as long as the engine lives. Per cent of tables with a false verdict, by noise.",
                body("modes", Modes, modes),
            ),
            section(
                "Does leaving out what others disturbed favour anybody?",
                ["python validation/exclusion.py"],
                "Simulated neighbours on the machine, in which no configuration suffers more than another. How far off"
                " the ratio is, and what each way of leaving out disturbed launches adds to that.",
                body("exclusion", Exclusion, exclusion),
            ),
            section(
                "Does a verdict of drift hold?",
                ["python validation/drift_verdicts.py"],
                "Simulated tables of mode drift: how often `drifts` is false, how often the interval of mean |d| holds"
                " the truth, and which drift is found beyond the floor.",
                body("drift_verdicts", DriftVerdicts, drift_verdicts),
            ),
            section(
                "Do intervals of percentiles hold where launches differ?",
                ["python validation/percentile_coverage.py"],
                "Simulated experiments whose launches differ: how often a percentile of pooled sequences is shown with"
                " an interval that misses the truth.",
                body("percentile_coverage", PercentileCoverage, percentile_coverage),
            ),
            section(
                "Does a quantization pay at the lengths that are named?",
                ["python validation/cycle_claims.py"],
                "Simulated launches of mode cycle, one or two configurations against one baseline: how often the"
                " lengths at which one pays or does not are wrong; 5 % of tables at most are promised.",
                body("cycle_claims", CycleClaims, cycle_claims),
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
                [measure, "python validation/false_verdicts.py analyse"],
                "`second` against `first` in output tokens per second, by the default settings. The launches are cut"
                " into disjoint comparisons of three pairs in a row.",
                body("false_verdicts", FalseVerdicts, false_verdicts),
            ),
            section(
                "How often is a difference found that is there?",
                [measure, "python validation/power.py"],
                "The workloads with 2, 5 and 10 % more output tokens against the one without, in time per iteration, so"
                " the right verdict is `v`. Again disjoint comparisons of three pairs.",
                body("power", Power, power),
            ),
            section(
                "Does vLLM's own benchmark see the same throughput?",
                ["python validation/fidelity.py"],
                "`vllm.benchmarks.throughput.run_vllm`, which is what `vllm bench throughput` times, against"
                " `run_launch.py`, in turn, each in a process of its own: the same weights, token ids, lengths,"
                " sampling, engine arguments and environment.",
                body("fidelity", Fidelity, fidelity),
            ),
            *optional(
                "region",
                Region,
                region,
                "Is the timed region itself the same?",
                ["python validation/region.py"],
                "One engine, passes in turn: `LoadedEngine.iterate`, which is what a launch calls, against"
                " `vllm.benchmarks.throughput._run_vllm_requests`.",
            ),
            section(
                "Does vLLM's own sweep find the same best setting?",
                ["python validation/sweep_fidelity.py"],
                "One grid of engine arguments, `max_num_seqs` 2, 8 and 32, eager and compiled: by the workflow, and as"
                " `vllm bench sweep` goes through one, with as many passes of each point. `vllm bench sweep` knows"
                " servers only, so each of its runs is `vllm bench throughput` here.",
                body(SWEEP, SweepFidelity, sweep_fidelity),
            ),
            section(
                "Do other clients see the same latencies?",
                ["python validation/online_fidelity.py"],
                "`vllm bench serve`, called as one types it, against rollout-bench's `harness: vllm`: in turn,"
                " on one server that was started by hand, each in a process of its own.",
                body(RESULT, OnlineFidelity, online_fidelity),
            ),
            section(
                "What could single runs have claimed?",
                ["python validation/predecessor.py"],
                "verl-rollout-bench compared single runs: speed-ups of 0.89x to 1.16x, and 1.19x and 1.28x in the"
                " example of its README. What the spread between launches, where it was measured, says about such"
                " claims.",
                body("predecessor", Predecessor, predecessor),
            ),
            not_yet_shown(results),
        ]
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, default=PAGE, metavar="FILE", help="(default: docs/validation.md)")
    arguments = parser.parse_args()
    arguments.write.write_text(page().rstrip() + "\n")
    print(arguments.write)


if __name__ == "__main__":
    main()
