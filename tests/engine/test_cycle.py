"""Cycles on real engines: transitions are timed, and the proofs find what is wrong with the weights afterwards."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import HAS_AMX, SETTINGS, W8A8, Launching, tiny_spec, with_adapter
from needing_vllm import run_program

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import ResolvedShape, SyntheticModel
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.plan.quants import BUILT_IN

pytestmark = pytest.mark.engine

W8A16 = {**BUILT_IN["cpu"]["w8a16"].engine_args}

QUANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bf16": (SETTINGS["quant"], {}),
    "w8a16": (
        {"name": "w8a16", "weights_format": "bf16", "linear_dtypes": ["int8"], "linear_method": "(?i)torchao"},
        W8A16,
    ),
    "w8a8": (W8A8, {}),
}
"""Name -> the quantization, and its engine arguments."""

FINDINGS = {"output_changed", "update_without_effect", "stale_prefix_cache"}


def cycle_spec(
    quant: str = "bf16",
    *,
    apart: bool = False,
    update: str = "in_process",
    in_flight: str | None = None,
    batch: int = 8,
) -> Spec:
    """Return the spec of a cycle that runs in seconds."""
    settings, more = QUANTS[quant]
    args = {"max_model_len": 256, "max_num_seqs": batch, "enforce_eager": True, **more}
    spec = tiny_spec(quant=settings, engine={"args": args, "multiprocess": apart}, measuring={"iterations": 3})
    shape = SyntheticModel(preset="qwen3-tiny", shape={"tie_word_embeddings": False}).resolve().model_dump(mode="json")
    own = {"mode": "cycle", "cycle": {"sleep": "none", "update": update, "in_flight": in_flight}}
    model = {"name": "tiny", "weights": None, "synthetic": shape}
    return Spec.model_validate_json(json.dumps({**spec.model_dump(mode="json"), **own, "model": model}))


SPECS: dict[str, Spec] = {
    "bf16": cycle_spec(apart=True),
    "w8a16 reload": cycle_spec("w8a16", update="reload", in_flight="recompute", batch=6),
    "w8a8": cycle_spec("w8a8", apart=True, in_flight="keep"),
    "adapter": with_adapter(cycle_spec(), rank=4),
    "adapter reload": with_adapter(cycle_spec(update="reload"), rank=4),
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Record]:
    """Return the record of a launch of `SPECS`, made once."""

    @functools.cache
    def measured(name: str) -> Record:
        folder, spec = tmp_path_factory.mktemp("cycle"), SPECS[name]
        build_checkpoint(ResolvedShape(**spec.model.synthetic), spec.quant.weights_format, folder / "model")
        launch = Launching(folder, spec, model=folder / "model")
        assert launch.finish() == 0, launch.said + launch.log_text()[-4000:]
        return launch.record()

    return measured


def findings(record: Record) -> set[str]:
    """Return the codes of what the proofs found."""
    return {flag.code for flag in record.validity} & FINDINGS


def test_a_transition_whose_parts_sum_up_follows_each_pass(record: Callable[[str], Record]):
    for iteration in record("bf16").iterations:
        transition, update = iteration.transition, iteration.transition.update
        assert iteration.output_tokens == 8 * 16
        assert [part.name for part in transition.parts] == ["drain", "pause", "update", "reset_prefix_cache", "resume"]
        assert transition.elapsed_s == pytest.approx(sum(part.elapsed_s for part in transition.parts))
        assert all(look.host_bytes > 1e8 for look in transition.memory)
        assert update.quantize_s is None
        assert update.transfer_s + update.load_s == pytest.approx(transition.part_s("update"))
        assert (update.size_bytes, update.buckets) == (6_821_376, 1)
        assert iteration.host.window_s >= iteration.elapsed_s + transition.elapsed_s


def test_weights_change_and_come_back_and_so_do_the_tokens(record: Callable[[str], Record]):
    proofs = record("bf16").weight_proofs
    assert [proof.weights for proof in proofs] == ["first", "second", "first"]
    loaded, second, first = [(proof.tokens, proof.checksum) for proof in proofs]
    assert loaded == first
    assert loaded[0] != second[0]
    assert loaded[1] != second[1]
    # of 4 layers 4 linear ones and 4 norms each; the last norm, the embedding and the head; and what a processor packs
    assert all(proof.changed_trained == proof.trained >= 4 * 8 + 3 for proof in proofs[1:])
    assert all(proof.not_finite == 0 for proof in proofs)
    assert findings(record("bf16")) == set()


@pytest.mark.parametrize("name", ["bf16", "adapter", "adapter reload"])
def test_the_first_request_after_an_update_finds_no_prefix_of_the_old_weights(
    name: str, record: Callable[[str], Record]
):
    assert [proof.stale_prefix_tokens for proof in record(name).weight_proofs] == [None, 0, 0]
    cleared = {iteration.transition.part_s("reset_prefix_cache") > 0 for iteration in record(name).iterations}
    assert cleared == {name != "adapter reload"}  # whose new name is no key of the cache


# Updates of an adapter under its old name, after which nobody clears the prefix cache.
STALE = """
import os, shutil, sys, tempfile
from pathlib import Path
from vllm.lora.request import LoRARequest
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.launch.flags import stale_flags
from rollout_bench.measure.launch.protocol import Job, ProofsTaken
from rollout_bench.modes.cycle import updates, worker

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
updates.AdapterInMemory.clears_prefix_cache = False
tempfile.tempdir = os.getcwd()

def overwritten(self, weights):
    folder = Path(self._engine.adapter.lora_path)
    if not folder.with_name("first").exists():
        shutil.copytree(folder, folder.with_name("first"))
    kept = folder.with_name("first") if weights == "first" else self._given["second"].lora_path
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    self._engine.adapter = LoRARequest("adapter", 1, str(folder), load_inplace=True)
    self._llm.llm_engine.add_lora(self._engine.adapter)
    return {}

updates.NewAdapter.apply = overwritten
model, text = sys.argv[1:]
sent = []
job = Job(spec=Spec.model_validate_json(text), model=model, launch=0, timeout_s=600)
worker.measure(job, EngineContext(send=sent.append, await_turn=lambda: None))
(proofs,) = (event.proofs for event in sent if isinstance(event, ProofsTaken))
print("FOUND", *(f"{flag.severity} {flag.code}: {flag.sentence}" for flag in stale_flags(proofs)))
"""


@pytest.mark.parametrize("name", ["adapter", "adapter reload"])
def test_a_stale_prefix_cache_makes_a_launch_invalid(name: str, tmp_path: Path):
    spec = SPECS[name]
    args = {**spec.engine.args, "kv_cache_memory_bytes": 1 << 26}
    spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"args": args})})
    build_checkpoint(ResolvedShape(**spec.model.synthetic), "bf16", tmp_path / "model")
    said = run_program(STALE, str(tmp_path / "model"), spec.model_dump_json(), folder=tmp_path)
    found = next(line for line in said.splitlines() if line.startswith("FOUND"))
    assert "invalid stale_prefix_cache: The first request after an update took 128 tokens of its prompt" in found


# A trained draft, here the model itself, and one that loses its weights with each update, as vLLM's sleep level 2 did.
DRAFTED = """
import os, sys
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.launch.protocol import IterationDone, Job, ProofsTaken
from rollout_bench.modes.cycle import updates, worker
from rollout_bench.modes.cycle.collector import cycle_flags, draft_flags
from rollout_bench.modes.cycle.record import Transition

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
kept = updates.InProcess.apply

def losing(self, weights):
    def lose(worker):
        for tensor in worker.model_runner.drafter.model.parameters():
            tensor.data.zero_()
    found = kept(self, weights)
    self._llm.collective_rpc(lose)
    return found

model, text, loses = sys.argv[1:]
if loses == "True":
    updates.InProcess.apply = losing
sent = []
job = Job(spec=Spec.model_validate_json(text), model=model, launch=0, timeout_s=600)
worker.measure(job, EngineContext(send=sent.append, await_turn=lambda: None))
iterations = [event.iteration for event in sent if isinstance(event, IterationDone)]
(proofs,) = (event.proofs for event in sent if isinstance(event, ProofsTaken))
came = {each.of(Transition).update.weights for each in iterations}
print("FOUND", came, [flag.code for flag in cycle_flags(*proofs)], *(flag.sentence for flag in draft_flags(iterations)))
"""


@pytest.mark.parametrize("loses", [False, True])
def test_a_draft_that_loses_its_weights_is_seen(loses: bool, tmp_path: Path):
    model = str(tmp_path / "model")
    drafts = {"method": "draft_model", "model": model, "num_speculative_tokens": 3}
    spec = SPECS["bf16"]
    args = {**spec.engine.args, "kv_cache_memory_bytes": 1 << 26, "speculative_config": drafts}
    changes = {
        "engine": spec.engine.model_copy(update={"args": args}),
        "workload": spec.workload.model_copy(update={"temperature": 0.0, "output_tokens": 25}),
    }
    spec = spec.model_copy(update=changes)
    build_checkpoint(ResolvedShape(**spec.model.synthetic), "bf16", Path(model))
    said = run_program(DRAFTED, model, spec.model_dump_json(), str(loses), folder=tmp_path)
    found = next(line for line in said.splitlines() if line.startswith("FOUND"))
    lost = "Of a draft 3 tokens were accepted before any update, and 0 after one, though the same weights came."
    assert found.strip() == f"FOUND {{'first'}} [] {lost if loses else ''}".strip(), "the draft fits these weights"


def test_torchao_takes_new_weights_from_a_second_checkpoint(record: Callable[[str], Record]):
    found = record("w8a16 reload")
    assert [proof.changed_trained == proof.trained for proof in found.weight_proofs] == [False, True, True]
    assert findings(found) == set()
    for each in (iteration.transition for iteration in found.iterations):
        assert each.update.model_dump(exclude={"weights", "load_s"}, exclude_none=True) == {}
        assert each.update.load_s == pytest.approx(each.part_s("update"))


@pytest.mark.parametrize(("name", "running", "recomputed"), [("w8a16 reload", 6, 6), ("w8a8", 8, 0)])
def test_requests_under_way_at_an_update_keep_or_lose_their_kv_cache(
    name: str, running: int, recomputed: int, record: Callable[[str], Record]
):
    found = record(name)
    cleared = ["reset_prefix_cache"] if recomputed else []
    for iteration in found.iterations:
        transition = iteration.transition
        assert [part.name for part in transition.parts] == ["pause", "update", *cleared, "resume"]
        under_way = transition.under_way
        assert (under_way.requests, under_way.waiting, under_way.recomputed) == (running, 8 - running, recomputed)
        # the update comes once half of the tokens are there, and each step adds one for each of those in the batch
        prompts = iteration.prompt_tokens * running // 8
        assert 8 * 8 <= under_way.tokens - prompts < 8 * 8 + running
        # of two samples the second finds the prompt's first block, which the first one has computed again
        assert under_way.recomputed_tokens == (under_way.tokens - 3 * 128 if recomputed else None)
        assert iteration.output_tokens == 8 * 16
    # until the pause an engine in a process of its own generates on, in time that does not count
    assert min(iteration.transition.parts[0].began_s for iteration in found.iterations) < 0.02
    assert "kv_cache_not_as_asked" not in {flag.code for flag in found.validity}


def test_int8_weights_are_quantized_on_the_way(record: Callable[[str], Record]):
    found = record("w8a8")
    assert found.iterations[0].transition.update.quantize_s > 0
    if HAS_AMX:  # there vLLM 0.32 has another kernel, whose weights are right
        assert findings(found) == set()
        return
    assert "output_changed" in findings(found)
    assert not found.valid


def test_only_an_adapter_changes_and_comes_back(record: Callable[[str], Record]):
    found = record("adapter"), record("adapter reload")
    for each in found:
        assert findings(each) == set()
        loaded, second, first = each.weight_proofs
        # two halves of each of 4 layers: one of q, k, v, o, gate, up and down
        assert (first.trained, second.changed_trained, first.changed_trained) == (56, 56, 56)
        assert (loaded.tokens, loaded.checksum) == (first.tokens, first.checksum)
        assert loaded.tokens != second.tokens
        assert {iteration.transition.update.size_bytes for iteration in each.iterations} == {each.engine.adapter.bytes}
    in_memory, from_files = ([proof.tokens for proof in each.weight_proofs] for each in found)
    assert in_memory == from_files
