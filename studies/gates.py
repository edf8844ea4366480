"""How often does a gate fail a build that did not change, one at the limit, and one that became 5 % slower?

Each gate compares two results folders of launches that are drawn with replacement from launches that ran
(`results/launches.json`: one configuration, many starts). A slower build has the same passes, each 1 / 0.95 as long.
Where a gate is undecided, it is tested anew, once, with as many launches of each side as it asked for, drawn afresh.
`python studies/gates.py --gates 200` writes results/gates.md.
"""

import argparse
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from kept import RESULTS, Share
from repeats import BASE, Launches
from synthetic_records import OUTPUT_TOKENS, SEQUENCES, make_record, save

from rollout_bench.core.files import read_model
from rollout_bench.plan.config import ComparisonSettings
from rollout_bench.report.differences import compare_folders
from rollout_bench.report.gate import gate_outcomes, limits_of, outcome_of

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
        (test,) = tests = gate_outcomes(compare_folders(Path(name, "a"), Path(name, "b"), settings), limits)
        return outcome_of(tests), test.launches


def outcomes(passes_s: list[list[float]], slower: float, number: int) -> tuple[str, str, int | None]:
    """Return the outcome of gate `number`, that with the launches that it asked for, and these launches."""
    rng = np.random.default_rng(number)
    first, launches = gate(passes_s, rng, FIRST, slower)
    if first != "undecided" or launches is None:
        return first, first, None
    return first, gate(passes_s, rng, launches, slower)[0], launches


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
    for name, slower in (("unchanged", 1.0), ("3 % slower, at the limit", 1 / 0.97), ("5 % slower", 1 / 0.95)):
        with ProcessPoolExecutor() as pool:
            found = list(pool.map(partial(outcomes, passes_s, slower), range(gates)))
        asked = [launches for *_, launches in found if launches is not None]
        middle = f"as asked for, {int(np.median(asked))} in the median" if asked else "as asked for: none"
        for place, launches in enumerate((str(FIRST), middle)):
            counts = Counter(each[place] for each in found)
            shares = [str(Share(count=counts[outcome], of=gates)) for outcome in ("worse", "not worse", "undecided")]
            lines.append(f"| {name} | {launches} | {' | '.join(shares)} |")
        print(lines[-2:], flush=True)
    text = "\n".join(lines) + "\n"
    (RESULTS / "gates.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
