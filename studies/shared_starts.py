"""Is a workload as fast after others on the same engine as on an engine of its own?

Each round starts one engine for the workload alone, and one that measures it and two others (`share_starts`), whose
order is balanced over rounds. The two starts take turns in being first. The ratio of a round is shared over alone.
`python studies/shared_starts.py --rounds 20 --folder FOLDER` continues where it was ended, and writes
results/shared-starts.md. 25 minutes on two cores with nothing else at work. `--read OWN SHARED` reads two results
folders that were measured so elsewhere, such as the unpacked results/shared-starts-h100-*.tar.xz.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from copies import TEMPORARY, Copy
from kept import RESULTS, alone

from rollout_bench.analysis.stats.intervals import t_interval
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.store import read_record

ASKED = "asked"
SETTINGS = {
    "models": ["qwen3-30m"],
    "quants": ["bf16"],
    "workloads": [ASKED],
    "launches": 1,
    "iterations": 5,
    "interleave": False,
    "model_settings": {"qwen3-30m": {"synthetic": {"preset": "qwen3-90m", "shape": {"num_hidden_layers": 2}}}},
    "engine_args": {
        "max_model_len": 256,
        "max_num_seqs": 64,
        "kv_cache_memory_bytes": 1 << 28,
        "enforce_eager": True,
    },
    "workload_settings": {
        ASKED: {"prompts": 4, "samples_per_prompt": 2, "prompt_tokens": 32, "output_tokens": 24},
        "many": {"prompts": 8, "samples_per_prompt": 2, "prompt_tokens": 16, "output_tokens": 8},
        "long": {"prompts": 2, "samples_per_prompt": 1, "prompt_tokens": 160, "output_tokens": 24},
    },
}


def records(results: Path) -> dict[int, Record]:
    """Return the valid launches of the asked workload by their index."""
    paths = results.glob(f"offline/*_{ASKED}-*/launch-*.json")
    return {record.launch: record for record in map(read_record, paths) if record.valid}


def rate(record: Record) -> float:
    """Return the output tokens per second of the iterations that count."""
    counted = [iteration for iteration in record.iterations if not iteration.warmup]
    return sum(each.output_tokens for each in counted) / sum(each.elapsed_s for each in counted)


def page(by_place: dict[int, list[float]], where: str) -> str:
    """Return what was found, from the log ratios by the place of the workload in its shared start."""
    lines = [f"{where}.", "", "| place in the shared start | rounds | shared / alone |", "|---|--:|--:|"]
    after = [ratio for place, ratios in by_place.items() if place for ratio in ratios]
    rows = [*((f"{place + 1}", ratios) for place, ratios in sorted(by_place.items())), ("2 or 3", after)]
    for name, logs in rows:
        ends = t_interval(logs, 0.95)
        interval = f" [{math.exp(ends[0]):.4f}, {math.exp(ends[1]):.4f}]" if ends else ""
        lines.append(f"| {name} | {len(logs)} | {math.exp(np.mean(logs)):.4f}{interval} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=TEMPORARY / "shared-starts")
    parser.add_argument("--read", type=Path, nargs=2, metavar=("OWN", "SHARED"))
    arguments = parser.parse_args()
    if arguments.read:
        print(found(*arguments.read, "read from records"), end="")
        return
    with alone():
        together = {**SETTINGS, "workloads": [*SETTINGS["workload_settings"]], "share_starts": True}
        separate, shared = Copy(arguments.folder / "own", SETTINGS), Copy(arguments.folder / "shared", together)
        for launches in range(1, arguments.rounds + 1):
            for copy in (separate, shared) if launches % 2 else (shared, separate):
                copy.run("results/summary.txt", "--config", f"launches={launches}")
    text = found(separate.path / "results", shared.path / "results", str(shared.place()))
    (RESULTS / "shared-starts.md").write_text(text)
    print(text, end="")


def found(separate: Path, shared: Path, where: str) -> str:
    """Return the page of two results folders."""
    ours, theirs = records(shared), records(separate)
    by_place: dict[int, list[float]] = {}
    for launch in sorted(ours.keys() & theirs.keys()):
        ratio = rate(ours[launch]) / rate(theirs[launch])
        by_place.setdefault(len(ours[launch].after or ()), []).append(math.log(ratio))
    return page(by_place, where)


if __name__ == "__main__":
    main()
