"""Cycles on real engines: transitions are timed, and the proofs find what is wrong with the weights afterwards."""

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from launching import HAS_AMX, SETTINGS, W8A8, Launching, tiny_spec, with_adapter

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

FINDINGS = {"output_changed", "update_without_effect"}


def cycle_spec(quant: str = "bf16", *, apart: bool = False, update: str = "in_process") -> Spec:
    """Return the spec of a cycle that runs in seconds."""
    settings, more = QUANTS[quant]
    args = {"max_model_len": 256, "max_num_seqs": 8, "enforce_eager": True, **more}
    spec = tiny_spec(quant=settings, engine={"args": args, "multiprocess": apart}, measuring={"iterations": 3})
    shape = SyntheticModel(preset="qwen3-tiny", shape={"tie_word_embeddings": False}).resolve().model_dump(mode="json")
    own = {"mode": "cycle", "cycle": {"sleep": "none", "update": update}}
    model = {"name": "tiny", "weights": None, "synthetic": shape}
    return Spec.model_validate_json(json.dumps({**spec.model_dump(mode="json"), **own, "model": model}))


SPECS: dict[str, Spec] = {
    "bf16": cycle_spec(apart=True),
    "w8a16 reload": cycle_spec("w8a16", update="reload"),
    "w8a8": cycle_spec("w8a8"),
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


def test_torchao_takes_new_weights_from_a_second_checkpoint(record: Callable[[str], Record]):
    found = record("w8a16 reload")
    assert [proof.changed_trained == proof.trained for proof in found.weight_proofs] == [False, True, True]
    assert findings(found) == set()
    for each in (iteration.transition for iteration in found.iterations):
        assert each.update.model_dump(exclude={"weights", "load_s"}, exclude_none=True) == {}
        assert each.update.load_s == pytest.approx(each.part_s("update"))


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
