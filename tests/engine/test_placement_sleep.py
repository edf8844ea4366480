"""What a colocated engine that sleeps is asked in each step; on a CPU it only pretends to sleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pretended_sleep
import pytest
from launching import SETTINGS, TINY_MODEL, tiny_spec

from rollout_bench.contracts.placed_steps import PlacedStep, PlacementSpec
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.launch.protocol import Job

pytestmark = [
    pytest.mark.engine,
    pytest.mark.untimed,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core for each rank"),
]


def asleep_spec(level: str, args: dict[str, Any] | None = None, **placement: Any) -> Spec:
    """Return a spec with dummy weights, whose engines sleep at `level`."""
    settings = {"where": "colocated", "devices": 2, "sleep": level, **placement}
    spec = tiny_spec(engine={"args": {**SETTINGS["engine"]["args"], **(args or {})}}, measuring={"iterations": 1})
    return spec.model_copy(update={"mode": "placement", "placement": PlacementSpec.model_validate(settings)})


def measured(spec: Spec, folder: Path, full_at: int = 0) -> tuple[list[PlacedStep], list[list[str]], str]:
    """Return the steps of a launch, what each engine's worker was asked, and why it failed."""
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(TINY_MODEL))
    said = pretended_sleep.enabled(folder / "plugin", full_at)
    done = subprocess.run(
        [sys.executable, pretended_sleep.__file__],
        input=Job(spec=spec, model=str(model), launch=0, timeout_s=600).model_dump_json(),
        env={**os.environ, "VLLM_TARGET_DEVICE": "cpu", **spec.engine.environment, **said},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    steps = [PlacedStep.model_validate_json(text) for kind, _, text in lines if kind == "STEP"]
    failed = [text for kind, _, text in lines if kind == "FAILED"]
    assert steps or failed, done.stdout[-4000:]
    asked = defaultdict(list)
    for line in Path(said[pretended_sleep.CALLS]).read_text().splitlines():
        process, _, call = line.partition(" ")
        asked[process].append(call)
    return steps, list(asked.values()), " ".join(failed)


@pytest.mark.parametrize(
    ("spec", "shards"),
    [
        (asleep_spec("1"), 1),
        (asleep_spec("2", train_s=0.2), 1),
        (asleep_spec("2", {"tensor_parallel_size": 2}), 2),
    ],
    ids=["trained", "a wait", "shards"],
)
def test_each_step_sleeps_before_training_and_brings_new_weights_before_the_kv_cache_wakes(
    spec: Spec, shards: int, tmp_path: Path
):
    assert spec.placement is not None
    steps, asked, failed = measured(spec, tmp_path)
    assert (len(steps), failed) == (2, "")
    one = [f"sleep {spec.placement.sleep}", "wake ['weights']", "update", "wake ['kv_cache']"]
    assert asked == [one * 3] * 2  # before all steps, too: the trainer is made while the engine sleeps
    training = ["train"] if spec.placement.train_s else ["train", "reduce", "optimize"]
    generating = ["gather", "generate"] if shards > 1 else ["generate"]
    for step in steps:
        for rank in step.ranks:
            assert [span.activity for span in rank.spans] == [
                *generating, "sleep", "gather", "gather", *training, "wake", "update", "reset", "wake",
            ]  # fmt: skip
            ends = [span.began_s + span.elapsed_s for span in rank.spans]
            assert all(end <= span.began_s + 1e-6 for end, span in zip(ends, rank.spans[1:], strict=False))
            assert rank.asleep is None  # a CPU has no memory of its own to give back
        assert len({proof.tokens for proof in step.proofs}) == 1
        for proof in step.proofs:
            assert proof.trainer is not None
            assert (proof.trainer.not_received, proof.trainer.not_loaded) == (0, 0)


@pytest.mark.parametrize(("full_at", "what"), [(2, "the KV cache"), (3, "the weights")])
def test_a_device_without_room_to_wake_ends_the_launch_with_what_to_do(full_at: int, what: str, tmp_path: Path):
    steps, _, failed = measured(asleep_spec("1"), tmp_path, full_at)
    assert steps == []
    assert failed.startswith("waking_out_of_memory: rank ")
    assert f"there is no room for {what}; lower gpu_memory_utilization" in failed
