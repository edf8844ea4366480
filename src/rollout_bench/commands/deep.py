"""`rollout-bench check --deep`: measure a tiny model as a run does, and prove the numbers from other sources."""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rollout_bench import __version__
from rollout_bench.contracts.flags import DISTURBED
from rollout_bench.contracts.record import Failure, Iteration, Record
from rollout_bench.core.errors import printable
from rollout_bench.core.files import write_whole
from rollout_bench.core.numbers import several
from rollout_bench.core.secrets import LEFT_OUT, looks_secret, may_be_secret
from rollout_bench.measure.probes.loaded_weights import CODE
from rollout_bench.plan.engine import InstalledEngine, ask

REPORT = Path("rollout-bench-check.json")
"""What to attach to a bug report."""

LAUNCHES = 5
"""Starts of each of the two names of the one configuration: with 3, an interval of 99 % is three times as wide."""

WIDEST = 0.1
"""Most that an end of the interval of A/A may be off its ratio; a wider one would hold nearly any ratio."""

CLOCK_PPM = 1000
"""Most that our clock may differ from the raw one. The kernel adjusts ours by at most 500 ppm."""

TAIL = 60
"""Lines of the run's output and of each log that the report has."""


@dataclass(frozen=True)
class Proof:
    """One proof: its name, whether it is `ok`, `not ok` or `disturbed`, and the numbers, in one line."""

    name: str
    outcome: str
    saw: str


@dataclass(frozen=True)
class Measured:
    """What the run left behind.

    Attributes:
        records: of all launches.
        failures: of launches without a record.
        code: of each start of an engine, from `imported_code`.
        compared: row of the second name in the run's summary.csv; empty without one.
    """

    records: Sequence[Record]
    failures: Sequence[Failure]
    code: Sequence[Mapping[str, str]]
    compared: Mapping[str, str]


def config(platform: str, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the run: one configuration under two names, with the `engine` of the user's config."""
    on_cpu = platform == "cpu"
    memory = {} if on_cpu else {"gpu_memory_utilization": 0.3}
    load = {"prompts": 8, "samples_per_prompt": 2, "prompt_tokens": 24, "output_tokens": 32}
    arguments = {"max_num_seqs": 64, "kv_cache_memory_bytes": 1 << 26, "enforce_eager": True, **memory}
    return {
        "platform": platform,
        "engine": dict(engine),
        "models": ["first", "again"],
        "model_settings": {name: {"synthetic": {"preset": "qwen3-tiny"}} for name in ("first", "again")},
        "quants": ["w8a8" if on_cpu else "w8a16"],  # newer GPUs have no int8 activations
        "modes": ["offline"],
        "workloads": ["check"],
        "workload_settings": {"check": {**load, "engine_args": arguments}},
        "launches": LAUNCHES,
        "warmup_iterations": 1,
        "iterations": 8,
        "interleave": "auto",
        "baseline": {"quant": None, "model": "first"},
        "comparison": {"confidence": 0.99},  # one calm check in a hundred may still find a difference
    }


def proofs(run: Measured, engine: InstalledEngine, python: str) -> list[Proof]:
    """Return all proofs from what was measured.

    Args:
        run: what the run left behind.
        engine: what the plan's probe found.
        python: path of the interpreter that the probe asked, as it prints it.
    """
    passes = [iteration for record in run.records for iteration in record.iterations]
    return [
        _launch_proof(run),
        _repeat_proof(run),
        _token_proof(run.records, passes),
        _clock_proof(passes),
        _code_proof(run, engine, python),
        _weights_proof(run.records),
    ]


def _proof(name: str, holds: object, saw: str) -> Proof:
    return Proof(name, "ok" if holds else "not ok", saw)


def _launch_proof(run: Measured) -> Proof:
    wanted, failures = 2 * LAUNCHES, run.failures
    saw = f"{len(run.records)} of {several(wanted, 'launch')} measured"
    if failures:
        saw += f"; {failures[0].category}: {failures[0].cause} -> {failures[0].fix}"
    return _proof("launches", len(run.records) == wanted, saw)


def _repeat_proof(run: Measured) -> Proof:
    name, row = "A/A", run.compared
    disturbed = sorted({flag.code for record in run.records for flag in record.validity} & DISTURBED)
    others = f"; others used the machine ({', '.join(disturbed)}): keep them off, then check again" if disturbed else ""
    if not row.get("speedup_low"):
        saw = f"no ratio of two names of one configuration{others}"
        return Proof(name, "disturbed" if disturbed else "not ok", saw)
    ratio, low, high = (float(row[f"speedup{end}"]) for end in ("", "_low", "_high"))
    saw = f"{ratio:.3f}x, 99 % interval {low:.3f} to {high:.3f}, of one configuration under two names"
    wide = high / ratio - 1 > WIDEST
    if row["verdict"] not in ("faster", "slower") and not wide:
        return Proof(name, "ok", saw)
    too_wide = f", which is too wide (limit {100 * WIDEST:.0f} % off)" if wide else ""
    return Proof(name, "disturbed" if disturbed else "not ok", saw + too_wide + others)


def _token_proof(records: Sequence[Record], passes: Sequence[Iteration]) -> Proof:
    ours = [(each.prompt_tokens, each.output_tokens) for each in passes]
    theirs = [(each.witness.prompt_tokens, each.witness.output_tokens) if each.witness else None for each in passes]
    wrong = next((number for number, pair in enumerate(ours) if theirs[number] != pair), None)
    flagged = [flag.sentence for record in records for flag in record.validity if flag.code == "token_count"]
    if wrong is not None:
        saw = f"we count {_words(ours[wrong])} in a pass, vLLM's own metrics {_words(theirs[wrong])}"
    else:
        total = _words((sum(prompt for prompt, _ in ours), sum(output for _, output in ours)))
        saw = "; ".join([f"{total} in {several(len(ours), 'pass')}, as vLLM's own metrics", *flagged[:1]])
    return _proof("tokens", ours and wrong is None and not flagged, saw)


def _words(pair: tuple[int, int] | None) -> str:
    return "none" if pair is None else f"{pair[0]:,} prompt and {pair[1]:,} output tokens"


def _clock_proof(passes: Sequence[Iteration]) -> Proof:
    off = [1e6 * (each.elapsed_s / each.witness.raw_s - 1) for each in passes if each.witness]
    if not off:
        return Proof("clock", "not ok", "no pass was timed")
    middle = statistics.median(off)  # a switch to another process between two clocks is in few passes
    saw = f"{middle:+.0f} ppm off CLOCK_MONOTONIC_RAW, median of {several(len(off), 'pass')}"
    return _proof("clock", abs(middle) <= CLOCK_PPM, f"{saw} (limit {CLOCK_PPM})")


def _code_proof(run: Measured, engine: InstalledEngine, python: str) -> Proof:
    planned, wrong = f"{engine.name} {engine.version}", []
    for code in run.code:
        compiled = [name for name in code if name not in ("python", "vllm")]
        if code["python"] != python:
            wrong.append(f"{code['python']} ran, planned was {python}")
        for name in ("vllm", *(name for name in compiled if name.startswith("vllm."))):
            if engine.folder is None or not Path(code[name]).resolve().is_relative_to(engine.folder.resolve()):
                wrong.append(f"{name} is {code[name]}, planned was {engine.folder}")
        if not compiled:
            wrong.append("no compiled extension was loaded")
    ran = {f"{record.environment.engine_name} {record.environment.engine_version}" for record in run.records}
    wrong += [f"{each} ran, planned was {planned}" for each in sorted(ran - {planned})]
    if wrong or not run.code:
        return Proof("code", "not ok", wrong[0] if wrong else "no engine told where its code is")
    extensions = sorted({Path(file).name for code in run.code for file in code.values() if file.endswith(".so")})
    return Proof("code", "ok", f"{planned} of {python}, with {', '.join(extensions)}")


def _weights_proof(records: Sequence[Record]) -> Proof:
    wrong = [flag.sentence for record in records for flag in record.validity if flag.code == "quant_not_proven"]
    if wrong or not records:
        return Proof("weights", "not ok", wrong[0] if wrong else "none were loaded")
    loaded = records[0].engine.weights_bytes_by_dtype
    held = ", ".join(f"{size:,} bytes of {dtype}" for dtype, size in loaded.linear.items()) if loaded else "none"
    return Proof("weights", "ok", f"{records[0].spec.quant.name}: linear layers hold {held}")


def check(platform: str, settings: Mapping[str, Any], engine: InstalledEngine, facts: str) -> int:
    """Measure, print each proof, and write `REPORT`; return 0 if all hold, else 1.

    Args:
        platform: kind of device.
        settings: the config's section `engine`.
        engine: what the plan's probe found.
        facts: what `rollout-bench check` printed.
    """
    began = time.monotonic()
    print(f"\nmeasuring a tiny model in {2 * LAUNCHES} launches, for about a minute on a CPU", flush=True)
    with tempfile.TemporaryDirectory(prefix="rollout-bench-check-") as name:
        folder = Path(name)
        output = _run(folder, config(platform, {**settings, "python": engine.python}))
        run = measured(folder)
        logs = {log: _tail((folder / log).read_text(errors="replace")) for log in _failed_logs(folder, run)}
    if not run.records and not run.failures:
        print(*_tail(output), sep="\n", file=sys.stderr)
    seen = proofs(run, engine, str(ask(engine.python)["executable"]))
    seconds = time.monotonic() - began
    for proof in seen:
        print(f"{proof.outcome + ':':<11} {proof.name + ':':<10} {printable(proof.saw, 600)}")
    holds = all(proof.outcome == "ok" for proof in seen)
    report = {
        "rollout_bench": __version__,
        "at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "seconds": round(seconds, 1),
        "facts": facts.splitlines(),
        "proofs": [asdict(proof) for proof in seen],
        "environment": run.records[0].environment.model_dump() if run.records else None,
        "code": [code for number, code in enumerate(run.code) if code not in run.code[:number]],
        "output": [] if holds else _tail(output),
        "logs": logs,
    }
    write_whole(REPORT, (json.dumps(shareable(report), indent=2) + "\n").encode())
    verdict = "all proofs hold" if holds else "not all proofs hold"
    print(f"{verdict}, {seconds:.0f} s; attach {REPORT} to a bug report")
    return 0 if holds else 1


def _run(folder: Path, settings: Mapping[str, Any]) -> str:
    """Measure `settings` in `folder`; print what the run says, and return it."""
    file = folder / "check.yaml"
    file.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "rollout_bench", "run", "--cores", "1", "--configfile", file.name]
    lines = []
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        assert run.stdout is not None, "is a pipe"
        for line in run.stdout:
            lines.append(line)
            if line.startswith("block "):  # the summary of a folder that is gone soon says nothing
                print(f"  {line}", end="", flush=True)
    return "".join(lines)


def measured(folder: Path) -> Measured:
    """Return what a run of `config` left behind in `folder`."""
    from rollout_bench.analysis.timed.collection import collect  # not earlier: loads numpy
    from rollout_bench.plan.planfile import read_plan

    results = folder / "results"
    if not (results / "plan.json").exists():
        return Measured((), (), (), {})
    experiments = collect(results, read_plan(results / "plan.json")).experiments
    summary = results / "summary.csv"
    rows = list(csv.DictReader(summary.read_text().splitlines())) if summary.exists() else []
    logs = [path.read_text(errors="replace") for path in sorted(folder.glob("logs/offline/*/launch-*.log"))]
    return Measured(
        records=[record for each in experiments for record in each.records],
        failures=[failure for each in experiments for failure in each.failures],
        code=list(_codes("\n".join(logs))),
        compared=next((row for row in rows if row["model"] == "again"), {}),
    )


def _codes(log: str) -> Iterator[Mapping[str, str]]:
    for line in log.splitlines():
        if line.startswith(CODE):
            yield json.loads(line.removeprefix(CODE))


def _failed_logs(folder: Path, run: Measured) -> list[str]:
    return [failure.log for failure in run.failures if (folder / failure.log).is_file()]


def _tail(text: str) -> list[str]:
    return [printable(line, 1000) for line in text.splitlines()[-TAIL:]]


def shareable(content: Any) -> Any:
    """Return `content` without texts that may be secrets, and without the values of variables that may be.

    Each text by itself, unlike `without_secrets`, which leaves a whole list of words out: the others of a log stay.
    """
    secrets = [
        value
        for name, value in os.environ.items()
        if len(value) > 3 and name not in ("PWD", "OLDPWD") and may_be_secret(name, value)
    ]

    def cleaned(inner: Any) -> Any:
        if isinstance(inner, Mapping):
            return {name: cleaned(value) for name, value in inner.items()}
        if isinstance(inner, list | tuple):
            return [cleaned(value) for value in inner]
        if not isinstance(inner, str):
            return inner
        for secret in secrets:
            inner = inner.replace(secret, LEFT_OUT)
        return LEFT_OUT if looks_secret(inner) else inner

    return cleaned(content)
