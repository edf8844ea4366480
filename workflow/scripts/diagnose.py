"""Reports, for each launch of a plan, how far it came: model path, engine, run, record."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from rollout_bench.contracts.record import Failure, Record
from rollout_bench.contracts.spec import Spec, read_spec
from rollout_bench.contracts.store import failure_path, read_failure, read_record
from rollout_bench.core.errors import UserError, run_command
from rollout_bench.plan.planfile import read_plan

STEPS = ("model path", "engine", "run", "record")

_MODEL_CATEGORIES = ("missing_weights", "unknown_architecture", "trust_remote_code")
_STEP_OF_PHASE = {"warmup": "run", "measuring": "run", "writing": "record"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path, help="plan file that the workflow wrote: results/plan.json")
    arguments = parser.parse_args()
    complete = True
    for launch in read_plan(arguments.plan).launches:
        record = arguments.plan.parent.parent / launch.record
        print(f"{record.parent.name} launch {record.stem.removeprefix('launch-')}")
        for step, status, detail in diagnose(record):
            print(f"  {step:<11} {status:<7} {detail}")
            complete &= status == "ok"
    return 0 if complete else 1


def diagnose(path: Path) -> Iterator[tuple[str, str, str]]:
    """Step, status (ok, FAILED, not run) and detail for the launch whose record is to lie at `path`."""
    try:
        if path.is_file():
            yield from _of_record(read_record(path), path)
        elif failure_path(path).is_file():
            yield from _of_failure(read_failure(failure_path(path)), read_spec(path.parent / "spec.json"))
        else:
            yield from ((step, "not run", "") for step in STEPS)
    except UserError as error:
        yield "record", "FAILED", str(error)


def _of_record(record: Record, path: Path) -> Iterator[tuple[str, str, str]]:
    facts, startup = record.environment, record.startup
    counted = [i for i in record.iterations if not i.warmup]
    sequences = sum(i.sequences for i in counted)
    tokens = sum(i.output_tokens for i in counted)
    elapsed_s = sum(i.elapsed_s for i in counted)
    doubts = "; ".join(flag.sentence for flag in record.validity)
    yield "model path", "ok", _model(record.spec)
    yield (
        "engine",
        "ok",
        f"{facts.engine_name} {facts.engine_version} on {facts.device_model},"
        f" up in {startup.import_s + startup.init_s:.1f} s",
    )
    yield "run", "ok", f"{sequences} sequences, {tokens} output tokens in {elapsed_s:.2f} s"
    yield "record", "DOUBT" if doubts else "ok", doubts or str(path)


def _of_failure(failure: Failure, spec: Spec) -> Iterator[tuple[str, str, str]]:
    failed = _STEP_OF_PHASE.get(failure.phase, "engine")
    if failure.category in _MODEL_CATEGORIES:
        failed = "model path"
    for step in STEPS:
        if STEPS.index(step) < STEPS.index(failed):
            yield step, "ok", _model(spec) if step == "model path" else ""
        elif step == failed:
            yield step, "FAILED", f"{failure.cause}; {failure.fix} (log: {failure.log})"
        else:
            yield step, "not run", ""


def _model(spec: Spec) -> str:
    return (
        spec.model.weights
        or f"synthetic {(spec.model.synthetic or {}).get('architecture')}, {spec.quant.weights_format}"
    )


if __name__ == "__main__":
    run_command(main)
