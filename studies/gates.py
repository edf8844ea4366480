"""How often does a gate fail a build that did not change, and how often one that became 5 % slower?

Each gate compares two results folders of launches that are drawn with replacement from launches that ran
(`results/launches.json`: one configuration, many starts). A slower build has the same passes, each 1 / 0.95 as long.
Where a gate is undecided, it is tested anew, once, with as many launches of each side as it asked for, drawn afresh.
`python studies/gates.py --gates 200` writes results/gates.md.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from kept import RESULTS, Share
from repeats import BASE, Launches
from synthetic_records import OUTPUT_TOKENS, SEQUENCES, make_record, save

from rollout_bench.core.files import read_model
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.differences import compare_folders
from rollout_bench.report.gate import limits_of, outcome_of, tested

LIMIT = "output_tokens_per_s < -3%"
FIRST = 6
"""Launches of each side in the first test, as of the demo."""


def gate(passes_s: list[list[float]], rng: np.random.Generator, launches: int, slower: float) -> tuple[str, int | None]:
    """Return the outcome of a gate with so many launches of each side, and the launches that it asks for."""
    limits = limits_of([LIMIT])
    settings = ComparisonSettings(metrics={"offline": ["output_tokens_per_s"]})
    with tempfile.TemporaryDirectory() as name:
        for side, factor, day in (("a", 1.0, "2025-01-01"), ("b", slower, "2025-01-02")):
            for index, drawn in enumerate(rng.integers(len(passes_s), size=launches)):
                rates = [SEQUENCES * OUTPUT_TOKENS / (factor * seconds) for seconds in passes_s[drawn]]
                record = make_record(launch=index, rates=rates)
                save(Path(name, side), record.model_copy(update={"started_at": f"{day}T{record.started_at[11:]}"}))
        (test,) = tests = tested(compare_folders(Path(name, "a"), Path(name, "b"), settings), limits)
        return outcome_of(tests), test.launches


def outcomes(passes_s: list[list[float]], gates: int, slower: float) -> tuple[Counter[str], Counter[str], list[int]]:
    """Return the outcomes of first tests, those after the launches that were asked for, and these launches."""
    rng = np.random.default_rng(0)
    first: Counter[str] = Counter()
    last: Counter[str] = Counter()
    asked = []
    for _ in range(gates):
        outcome, launches = gate(passes_s, rng, FIRST, slower)
        first[outcome] += 1
        if outcome == "undecided" and launches is not None:
            asked.append(launches)
            outcome, _ = gate(passes_s, rng, launches, slower)
        last[outcome] += 1
    return first, last, asked


def main() -> None:
    """Test the gates and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=200)
    gates = parser.parse_args().gates
    kept = read_model(RESULTS / "launches.json", Launches, "run studies/repeats.py again")
    passes_s = [launch.iterations_s for launch in kept.launches if launch.valid and launch.workload == BASE]
    lines = [f"{gates} gates each, `--fail-if '{LIMIT}'`, launches drawn from {len(passes_s)} on {kept.place}.", ""]
    lines += [
        "| build | launches of each side | exit 1: worse | exit 0: not worse | exit 4: undecided |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, slower in (("unchanged", 1.0), ("5 % slower", 1 / 0.95)):
        first, last, asked = outcomes(passes_s, gates, slower)
        middle = f"as asked for, {int(np.median(asked))} in the median" if asked else "as asked for: none"
        for launches, found in ((str(FIRST), first), (middle, last)):
            shares = [str(Share(count=found[outcome], of=gates)) for outcome in ("worse", "not worse", "undecided")]
            lines.append(f"| {name} | {launches} | {' | '.join(shares)} |")
    text = "\n".join(lines) + "\n"
    (RESULTS / "gates.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
