"""The trainer's process as far as a CPU has it: both sets of weights, buckets, orders, and its end.

vLLM's engines of weight transfer are for CUDA, so what an engine makes of buckets is seen nowhere here.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import parameters
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.cycles import Weights
from rollout_bench.core.processes import is_living
from rollout_bench.measure.machine.host import held_with_children
from rollout_bench.measure.probes import transfer_target
from rollout_bench.measure.server.stream import ServingFailed
from rollout_bench.measure.transfer.senders import IpcSender, broadcasts
from rollout_bench.measure.transfer.trainer_link import TrainerLink
from rollout_bench.measure.transfer.trainer_process import TrainerWeights
from rollout_bench.measure.transfer.transfer_words import (
    Bucket,
    Made,
    Next,
    Send,
    Sent,
    Stage,
    Staged,
    TrainerJob,
)
from rollout_bench.measure.transfer.weight_sets import Encoder, announced, largest_stored_bytes

SHAPE = SyntheticModel(preset="qwen3-tiny", num_hidden_layers=1, tie_word_embeddings=False, seed=7).resolve()
FORMATS = ["bf16", "compressed-tensors-w8a8", "compressed-tensors-w8a16", "compressed-tensors-w4a16"]
CPU = torch.device("cpu")


def job(weights_format: str = "bf16", *, second: bool = True, bucket_bytes: int = 200_000) -> TrainerJob:
    return TrainerJob(
        method="ipc",
        shape=SHAPE.model_dump(mode="json"),
        weights_format=weights_format,
        second=second,
        devices=["cpu"],
        bucket_bytes=bucket_bytes,
    )


@pytest.fixture
def link() -> Iterator[TrainerLink]:
    """Yield a trainer that has made its weights."""
    before = signal.getsignal(signal.SIGUSR2)
    started = TrainerLink(job("compressed-tensors-w8a8"))
    try:
        started.told(Made)
        yield started
    finally:
        _end(started)
        signal.signal(signal.SIGUSR2, before)


def _end(link: TrainerLink) -> None:
    link.process.kill()
    link.process.wait()
    assert link.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        link.process.stdin.close()


def stored_in(folder: Path, weights: Weights, weights_format: str) -> dict[str, torch.Tensor]:
    build_checkpoint(SHAPE if weights == "first" else SHAPE.other_weights(), weights_format, folder)
    return dict(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("weights_format", FORMATS)
def test_buckets_hold_the_checkpoint_of_those_weights_and_that_format(weights_format: str, tmp_path: Path):
    weights = TrainerWeights(SHAPE, second=True, devices=[CPU])
    encoder = Encoder(weights.specs, weights_format, lambda: None)
    read: dict[str, torch.Tensor] = {}
    sizes: list[int] = []

    def read_bucket(bucket: Bucket) -> None:
        """Read as vLLM's engine does."""
        sizes.append(sum(bucket.tensor_sizes))
        parts = sender.buffers[0][: sizes[-1]].clone().split(bucket.tensor_sizes)
        for name, kind, shape, part in zip(bucket.names, bucket.dtype_names, bucket.shapes, parts, strict=True):
            read[name] = part.view(getattr(torch, kind)).view(*shape)

    limit = 200_000
    sender = IpcSender([CPU], [encoder], limit, largest_stored_bytes(SHAPE, weights_format), read_bucket)
    for name in ("second", "first"):
        read.clear()
        sizes.clear()
        weights.stage(name)  # type: ignore[arg-type]
        sent = sender.send(weights.staged)
        stored = stored_in(tmp_path / name, name, weights_format)  # type: ignore[arg-type]
        assert read.keys() == stored.keys()
        assert all(torch.equal(read[key], stored[key]) for key in stored)
        assert sent.buckets == len(sizes) > 2
        assert sent.size_bytes == 2 * parameters(SHAPE)
        assert (sent.quantize_s is None) == (weights_format == "bf16")
        assert sent.transfer_s is not None
        assert sent.transfer_s > 0
        largest = largest_stored_bytes(SHAPE, weights_format)
        assert all(size <= max(limit, largest) for size in sizes)
        assert any(size <= limit for size in sizes)


@pytest.mark.parametrize("weights_format", FORMATS)
def test_what_is_announced_is_what_is_stored_in_that_order(weights_format: str, tmp_path: Path):
    said = announced(SHAPE, weights_format)
    stored = stored_in(tmp_path / "model", "first", weights_format)
    assert set(said["names"]) == set(stored)
    for name, kind, shape in zip(said["names"], said["dtype_names"], said["shapes"], strict=True):
        assert (getattr(torch, kind), torch.Size(shape)) == (stored[name].dtype, stored[name].shape)
    weights = TrainerWeights(SHAPE, second=False, devices=[CPU])
    weights.stage("first")
    encoder = Encoder(weights.specs, weights_format, lambda: None)
    sent = [name for each in weights.staged[0] for name, _ in encoder.stored(*each)]
    assert sent == said["names"]


def test_a_bucket_of_nccls_is_full_once_it_exceeds_its_size_as_vllm_cuts_them():
    assert broadcasts([5, 5, 5, 5], 9) == 2
    assert broadcasts([5, 5, 5], 10) == 1
    assert broadcasts([20, 1], 10) == 2
    assert broadcasts([], 10) == 0


def test_the_process_stages_sends_and_waits_for_each_bucket_to_be_read(link: TrainerLink):
    names = []
    for weights in ("second", "first"):
        link.order(Stage(weights=weights))  # type: ignore[arg-type]
        link.told(Staged)
        link.order(Send())
        names.clear()
        while True:
            word = link.told(Bucket, Sent)
            if isinstance(word, Sent):
                break
            assert isinstance(word, Bucket)
            assert word.handles is None
            names += word.names
            time.sleep(0.01)
            assert link._words.empty()
            link.order(Next())
        assert names == announced(SHAPE, "compressed-tensors-w8a8")["names"]
        assert word.size_bytes == 2 * parameters(SHAPE)
        assert word.quantize_s is not None
        assert word.quantize_s > 0
    assert held_with_children() - held_with_children([link.process.pid]) > 2 * 2 * parameters(SHAPE)


def test_a_trainer_that_is_killed_in_the_midst_of_a_line_has_failed(link: TrainerLink):
    reading, writing = os.pipe()
    os.write(writing, b'{"event": "buck')
    os.close(writing)
    link.process.kill()
    link._listen(reading)
    with pytest.raises(ServingFailed) as failed:
        link.told(Sent)
    assert "signal 9" in failed.value.cause


def test_its_session_is_that_of_its_parent_so_that_a_launch_ends_it(link: TrainerLink):
    assert os.getsid(link.process.pid) == os.getsid(0)


def test_an_order_that_nobody_can_follow_is_a_failure(link: TrainerLink):
    link.order(Send())
    with pytest.raises(ServingFailed, match=r"the trainer: .*nobody can do this now"):
        link.told(Sent)


def test_devices_that_are_not_there_are_said_in_two_lines():
    there = torch.cuda.device_count()
    missing = TrainerLink(job().model_copy(update={"devices": [f"cuda:{there}"]}))
    try:
        with pytest.raises(ServingFailed) as caught:
            missing.told(Made)
    finally:
        _end(missing)
    assert caught.value.category == "too_few_devices"
    assert f"the device number {there + 1} of the launch, and {there} are visible" in caught.value.cause


def test_a_killed_trainer_is_said_even_while_the_engine_waits_for_it(link: TrainerLink):
    began = time.monotonic()
    with pytest.raises(ServingFailed, match="the trainer: its process was ended by signal 9") as caught:
        _kill_and_wait(link)
    assert caught.value.category == "crash"
    assert time.monotonic() - began < 60
    with pytest.raises(ServingFailed, match="signal 9"):
        _kill_and_wait(link)


def _kill_and_wait(link: TrainerLink) -> None:
    """Do what the engine does in an update whose trainer somebody kills: wait for it."""
    with link.in_engine():
        link.process.kill()
        time.sleep(60)


def test_the_end_of_its_orders_is_its_end(link: TrainerLink):
    assert link.process.stdin is not None
    link.process.stdin.close()
    assert link.process.wait(30) == 0


PARENT = """
import sys, time
from rollout_bench.measure.transfer.trainer_link import TrainerLink
from rollout_bench.measure.transfer.transfer_words import Made, TrainerJob
link = TrainerLink(TrainerJob.model_validate_json(sys.argv[1]))
link.told(Made)
print(link.process.pid, flush=True)
time.sleep(600)
"""


def test_it_ends_with_a_parent_that_is_killed():
    command = [sys.executable, "-c", PARENT, job().model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        trainer = int(parent.stdout.readline())
        assert is_living(trainer)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_living(trainer) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_living(trainer)


class Engine:
    """What vLLM's worker has of a weight transfer, and nothing behind it."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def update_weights(self, info: dict[str, Any]) -> None:
        if not info["names"]:
            raise NotImplementedError("only supports dense updates")
        self.taken.append(info)


class Target(transfer_target.TransferTarget, Engine):
    """A worker with the extension mixed in."""


def test_handles_reach_vllm_as_its_ipc_engine_wants_them_and_errors_keep_their_type():
    target = Target()
    handles = {"GPU-1": (torch.Tensor, torch.bfloat16, b"handle")}
    target.rollout_bench_receive({"names": ["a"]}, base64.b64encode(pickle.dumps(handles)).decode())
    target.rollout_bench_receive({"names": ["b"]})
    assert target.taken == [{"names": ["a"], "ipc_handles": handles}, {"names": ["b"]}]
    with pytest.raises(RuntimeError, match="NotImplementedError: only supports dense"):
        target.rollout_bench_receive({"names": []})


def test_a_module_that_only_imports_ray_is_imported_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "wants_ray.py").write_text("import ray\nSENDS = 'without ray'\n")
    (tmp_path / "wants_more.py").write_text("import ray_of_nobody\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "ray" not in sys.modules
    transfer_target.import_without_ray("wants_ray")
    assert sys.modules["wants_ray"].SENDS == "without ray"
    assert "ray" not in sys.modules
    transfer_target.import_without_ray("wants_more")
    assert "wants_more" not in sys.modules
