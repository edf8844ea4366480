"""Does an engine that is forked from a process which has imported vLLM measure and scatter as a plainly started one?

Each round starts one engine plainly and forks one, of all rounds from the same process. The two take turns in being
first. `python studies/forked_starts.py --rounds 20 --folder FOLDER` continues where it was ended, and writes
results/forked-starts.md. `--read PLAIN FORKED` reads two results folders that were measured elsewhere, such as the
unpacked results/forked-starts-h100-*.tar.xz.
"""

import argparse
import os
import re
from pathlib import Path

import numpy as np
from copies import TEMPORARY, Copy
from kept import RESULTS, alone
from scipy import stats
from shared_starts import SETTINGS, rate

from rollout_bench.contracts.record import Record
from rollout_bench.contracts.store import read_record

STARTER = Path("src/rollout_bench/measure/launch/starter.py")
REQUEST = Path("src/rollout_bench/measure/launch/request.py")


QUIET = 0.03
"""Share of the cores' time that others may use: the noise of this study is smaller than what they cost."""


def change(path: Path, pattern: str, text: str) -> None:
    """Replace what `pattern` finds in a file of a copy; raise `SystemExit` unless it is found once."""
    content, found = re.subn(pattern, text, path.read_text())
    if found != 1:
        raise SystemExit(f"{path}: {pattern} is found {found} times\n-> adapt the study to the code")
    path.write_text(content)


def measure(folder: Path, rounds: int) -> tuple[Copy, Copy]:
    """Measure the rounds that are missing; return the copies with plain and with forked starts."""
    plain, forked = Copy(folder / "plain", SETTINGS), Copy(folder / "forked", SETTINGS)
    change(plain.path / STARTER, r"return (spec.platform in MODULES|False) and", "return False and")
    change(forked.path / REQUEST, r"return (self.die_with_parent or os.getpid\(\)|\d+)\n", f"return {os.getpid()}\n")
    for launches in range(1, rounds + 1):
        for copy in (plain, forked) if launches % 2 else (forked, plain):
            copy.run("results/summary.txt", "--config", f"launches={launches}")
    return plain, forked


def is_quiet(record: Record) -> bool:
    """Return whether nothing else used the cores during a launch's iterations."""
    return all(each.host is None or (each.host.other_cpu_share or 0) <= QUIET for each in record.iterations)


def launches_in(results: Path) -> dict[int, Record]:
    """Return the valid launches of the only experiment by their index."""
    return {
        record.launch: record for record in map(read_record, results.glob("offline/*/launch-*.json")) if record.valid
    }


def page(plain: Path, forked: Path, where: str) -> str:
    """Return what was found in two results folders."""
    ours, theirs = launches_in(forked), launches_in(plain)
    if {record.startup.forked for record in ours.values()} != {True} or any(r.startup.forked for r in theirs.values()):
        raise SystemExit("the launches did not start as asked\n-> look into their logs")
    common = sorted(ours.keys() & theirs.keys())
    both = [launch for launch in common if is_quiet(ours[launch]) and is_quiet(theirs[launch])]
    mine, plainly = (np.log([rate(found[launch]) for launch in both]) for found in (ours, theirs))
    ratio = stats.ttest_1samp(mine - plainly, 0).confidence_interval()
    spread = mine.std(ddof=1) / plainly.std(ddof=1)
    bounds = stats.f.ppf([0.975, 0.025], len(both) - 1, len(both) - 1) ** 0.5
    seconds = [np.mean([record.start_s for record in found.values()]) for found in (ours, theirs)]
    return "\n".join(
        [
            f"{where}.",
            "",
            "| | forked / plain, 95 % interval |",
            "|---|--:|",
            f"| rounds | {len(both)} of {len(common)}, in which others used at most {100 * QUIET:g} % of the cores |",
            f"| output tokens per second | {np.exp((mine - plainly).mean()):.4f}"
            f" [{np.exp(ratio.low):.4f}, {np.exp(ratio.high):.4f}] |",
            f"| standard deviation over launches | {spread:.2f} [{spread / bounds[0]:.2f}, {spread / bounds[1]:.2f}] |",
            f"| start of an engine | {seconds[0]:.1f} s / {seconds[1]:.1f} s |",
            "",
        ]
    )


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=TEMPORARY / "forked-starts")
    parser.add_argument("--read", type=Path, nargs=2, metavar=("PLAIN", "FORKED"))
    arguments = parser.parse_args()
    if arguments.read:
        print(page(*arguments.read, "read from records"), end="")
        return
    with alone():
        plain, forked = measure(arguments.folder, arguments.rounds)
    text = page(plain.path / "results", forked.path / "results", str(plain.place()))
    (RESULTS / "forked-starts.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
