"""Ends a run in the middle and tells what is left of it: for tests and for `python tests/kills.py`.

By hand it kills at random moments, `--kills` times, and prints a table (docs/explanation/kills.md holds one).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from workspace import TINY, Workspace

from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import read_record, sequences_path
from rollout_bench.core.errors import UserError

VICTIMS = ("snakemake", "snakemake's group", "measuring command", "guardian", "engine", "engine core")
END_S = 30
"""So many seconds after snakemake ended, everything must be gone: SIGTERM, 10 s, SIGKILL, and a busy machine."""


@dataclass(frozen=True)
class Outcome:
    """What one kill left behind; the sentences in `troubles` are empty when all is well."""

    victim: str
    signal: str
    after_s: float
    moment: str
    gone_in_s: float
    troubles: tuple[str, ...]


def roles(root: psutil.Process) -> dict[str, psutil.Process]:
    """Return the processes of a run by their role; a role whose process does not exist at present is left out."""
    found = {"snakemake": root, "snakemake's group": root}
    try:
        descendants = root.children(recursive=True)
    except psutil.NoSuchProcess:
        return found
    for process in descendants:
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "run_launch.py" in line:
            found["measuring command"] = process
        elif "guardian" in line:
            found["guardian"] = process
        elif "engine.worker" in line:
            found["engine"] = process
        elif (
            ("spawn_main" in line or line.startswith("VLLM::"))
            and "engine" in found
            and process.ppid() == found["engine"].pid
        ):
            found["engine core"] = process
    return found


def kill_once(
    workspace: Workspace, victim: str, kill: signal.Signals, after_s: float = 0.0, *, moment: str = ""
) -> Outcome:
    """Start a run; when its progress says `moment` and the victim lives, wait `after_s` seconds and end the victim.

    Returns when nothing of the run is left, or has been left for too long.
    """
    run = workspace.start("results/summary.md")
    root = psutil.Process(run.pid)
    started = time.monotonic()
    while run.poll() is None and not (moment in progress(workspace) and victim in roles(root)):
        time.sleep(0.05)
    time.sleep(after_s)
    alive = roles(root) if run.poll() is None else {}
    process = alive.get(victim)
    killed_at = time.monotonic()
    if process is not None and victim == "snakemake's group":
        os.killpg(run.pid, kill)
    elif process is not None:
        process.send_signal(kill)
    what_ran = (progress(workspace).splitlines() or ["nothing yet"])[-1].partition(": ")[2].partition(";")[0]
    troubles = []
    try:
        run.wait(timeout=TINY["timeout_s"])
    except subprocess.TimeoutExpired:
        troubles.append("snakemake did not end")
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    ended_at = time.monotonic()
    while (
        left := [*workspace.processes(), *(p for p in alive.values() if p.is_running())]
    ) and time.monotonic() - ended_at < END_S:
        time.sleep(0.1)
    gone_in_s = time.monotonic() - killed_at
    troubles += [f"still running: {' '.join(p.cmdline())[:80]}" for p in left]
    for leftover in left:
        leftover.kill()
    return Outcome(
        victim if process is not None else f"{victim} (not there)",
        kill.name,
        round(killed_at - started, 1),
        what_ran or "nothing yet",
        round(gone_in_s, 1),
        (*troubles, *damage(workspace)),
    )


def progress(workspace: Workspace) -> str:
    """Return the lines in which the run says how far it is."""
    return "\n".join(x for x in workspace.output.splitlines() if x.startswith("[") and " launch " in x)


def damage(workspace: Workspace) -> list[str]:
    """Return what is wrong with the files in results/: records that don't validate, or temporary files."""
    troubles = []
    for path in workspace.path.glob("results/**/*"):
        if path.name.endswith(".tmp"):
            troubles.append(f"temporary file {path.name}")
    for name in sorted(workspace.records):
        path = workspace.path / "results" / name
        try:
            record = read_record(path)
            rows = read_sequences(sequences_path(path), record)
        except UserError as error:
            troubles.append(str(error))
            continue
        if len(rows) != sum(i.sequences for i in record.iterations):
            troubles.append(f"{name}: {len(rows)} sequences in the side file")
    return troubles


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments (default: %(default)s)")
    arguments = parser.parse_args()
    choose = random.Random(arguments.seed)
    overlay = {**TINY, "quants": ["bf16"], "iterations": 60, "engine": {"multiprocess": True}}
    troubles = 0
    with tempfile.TemporaryDirectory(prefix="rollout-bench-kills-") as folder:
        workspace = Workspace(Path(folder), overlay)
        done = workspace.snakemake("results/summary.md")
        assert done.returncode == 0, done.stdout
        workspace.overlay({"launches": 2})
        (kept,) = workspace.records
        content = (workspace.path / "results" / kept).read_bytes()
        print("| victim | signal | s after start | what ran | gone in s | second record | left behind or damaged |")
        print("|---|---|--:|---|--:|---|---|")
        for _ in range(arguments.kills):
            victim, kill = choose.choice(VICTIMS), choose.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
            outcome = kill_once(workspace, victim, kill, choose.uniform(0, 20))
            second = workspace.records - {kept}
            lost = (workspace.path / "results" / kept).read_bytes() != content
            trouble = "; ".join([*outcome.troubles, *(["the first record changed"] if lost else [])])
            troubles += bool(trouble)
            print(
                f"| {outcome.victim} | {outcome.signal} | {outcome.after_s} | {outcome.moment} | {outcome.gone_in_s}"
                f" | {'whole' if second else 'none'} | {trouble or 'nothing'} |",
                flush=True,
            )
            for name in second:
                (workspace.path / "results" / name).unlink()
        done = workspace.snakemake("results/summary.md")
        print(f"\n{arguments.kills} kills, {troubles} with trouble. The next call ended with status {done.returncode}")
        print(f"and left {len(workspace.records)} of 2 records.")
    return 1 if troubles or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
