"""How many minutes do the same verdicts take with shared starts and without?

Two quantizations, four workloads, three launches of each, by one call each: each launch with a start of its own, plain;
with a start of its own, forked; and with shared starts, forked, as the workflow does by default.
`python studies/minutes_to_verdicts.py --folder FOLDER` writes results/minutes-to-verdicts-2-layers.md. `--layers` sets
the size of the model, and so the share of a launch that its passes take.
"""

import argparse
import csv
import time
from pathlib import Path

from copies import TEMPORARY, Copy
from forked_starts import STARTER, change
from kept import RESULTS, alone

from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.store import read_record

LOADS = {"few": (2, 2, 32, 16), "wide": (8, 2, 16, 8), "long": (2, 1, 128, 16), "answers": (2, 2, 16, 32)}
"""Workload -> prompts, samples of each, prompt tokens, output tokens."""

NAMES = ("prompts", "samples_per_prompt", "prompt_tokens", "output_tokens")
SETTINGS = {
    "models": ["layered"],
    "quants": ["bf16", "w8a8"],
    "workloads": [*LOADS],
    "launches": 3,
    "iterations": 4,
    "workload_settings": {name: dict(zip(NAMES, load, strict=True)) for name, load in LOADS.items()},
    "engine_args": {
        "max_model_len": 256,
        "max_num_seqs": 64,
        "kv_cache_memory_bytes": 1 << 28,
        "enforce_eager": True,
    },
}


def run(copy: Copy) -> float:
    """Measure all of a copy by one call; return the minutes."""
    began = time.monotonic()
    if not copy.run():
        raise SystemExit("a run failed\n-> see the lines above, and begin in another folder")
    return (time.monotonic() - began) / 60


def verdicts(copy: Copy) -> dict[str, str]:
    """Return the verdict of each workload, with its speed-up."""
    with (copy.path / "results" / "summary.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["quant"] == "w8a8"]
    return {row["workload"]: f"{row['verdict']}, {float(row['speedup']):.3f}x" for row in rows}


def measured(copy: Copy) -> str:
    """Return the number of launches and starts, and the share of the held time that the passes that count took."""
    records: list[Launched] = [read_record(path) for path in copy.path.glob("results/offline/*/launch-*.json")]
    share = sum(record.counted_s for record in records) / sum(record.held_s for record in records)
    return f"{len(records)} / {sum(not record.after for record in records)} | {100 * share:.0f} %"


def main() -> None:
    """Measure both ways, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=TEMPORARY / "minutes-to-verdicts")
    parser.add_argument("--layers", type=int, default=2)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    model = {"layered": {"synthetic": {"preset": "qwen3-90m", "shape": {"num_hidden_layers": arguments.layers}}}}
    settings = {**SETTINGS, "model_settings": model}
    copies = {
        "own, plain": Copy(folder / "plain", {**settings, "share_starts": False}),
        "own, forked": Copy(folder / "forked", {**settings, "share_starts": False}),
        "shared, forked": Copy(folder / "shared", settings),
    }
    plain = copies["own, plain"]
    change(plain.path / STARTER, r"return (spec.platform in MODULES|False) and", "return False and")
    with alone():
        for copy in copies.values():  # so that no run prepares models
            copy.run("--until", "checkpoint")
        minutes = {name: run(copy) for name, copy in copies.items()}
    lines = [
        f"{arguments.layers} layers; {plain.place()}.",
        "",
        "| starts | minutes | launches / starts | measuring | " + " | ".join(LOADS) + " |",
    ]
    lines.append("|---|--:|--:|--:|" + "---|" * len(LOADS))
    for name, copy in copies.items():
        verdicts_text = " | ".join(verdicts(copy)[load] for load in LOADS)
        lines.append(f"| {name} | {minutes[name]:.1f} | {measured(copy)} | {verdicts_text} |")
    lines += ["", f"Shared / own, plain: {minutes['shared, forked'] / minutes['own, plain']:.2f}.", ""]
    (RESULTS / f"minutes-to-verdicts-{arguments.layers}-layers.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
