"""Cycles on real engines: transitions are timed, and the proofs find what is wrong with the weights afterwards."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import HAS_AMX, SETTINGS, Launching, tiny_spec

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import ResolvedShape, SyntheticModel
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import WeightProof
from rollout_bench.modes.cycle.record import Transition
from rollout_bench.plan.quants import BUILT_IN

pytestmark = pytest.mark.engine

W8A16 = {**BUILT_IN["cpu"]["w8a16"].engine_args}

QUANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bf16": (SETTINGS["quant"], {}),
    "w8a16": (
        {"name": "w8a16", "weights_format": "bf16", "linear_dtypes": ["int8"], "linear_method": "(?i)torchao"},
        W8A16,
    ),
    "w8a8": (
        {
            "name": "w8a8",
            "weights_format": "compressed-tensors-w8a8",
            "linear_dtypes": ["int8"],
            "linear_method": "(?i)w8a8",
        },
        {},
    ),
}
"""Name -> the quantization, and its engine arguments."""

FINDINGS = {"output_changed", "update_without_effect"}


def cycle_spec(quant: str = "bf16", *, apart: bool = False, **more: Any) -> Spec:
    """Return the spec of a cycle that runs in seconds; `more` is laid over its settings."""
    settings, args = QUANTS[quant]
    args = {"max_model_len": 256, "max_num_seqs": 8, "enforce_eager": True, **args}
    engine = {"args": args, "multiprocess": apart}
    spec = tiny_spec(quant=settings, engine=engine, measuring={"iterations": 3})
    shape = SyntheticModel(preset="qwen3-tiny", shape={"tie_word_embeddings": False}).resolve().model_dump(mode="json")
    cycle = {"sleep": "none", "update": "in_process", **more}
    cycle = {name: value for name, value in cycle.items() if value is not None}
    whole = {
        **spec.model_dump(mode="json"),
        "mode": "cycle",
        "model": {"name": "tiny", "weights": None, "synthetic": shape},
        "cycle": cycle,
    }
    return Spec.model_validate_json(json.dumps(whole))


def launched(folder: Path, spec: Spec) -> Launching:
    assert spec.model.synthetic is not None
    model = folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    build_checkpoint(ResolvedShape(**spec.model.synthetic), spec.quant.weights_format, model)
    return Launching(folder, spec, model=model)


SPECS: dict[str, Callable[[], Spec]] = {
    "bf16": lambda: cycle_spec(apart=True),
    "w8a16 reload": lambda: cycle_spec("w8a16", update="reload"),
    "w8a8": lambda: cycle_spec("w8a8"),
}


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Launching]:
    """Return a launch of `SPECS`, made once."""

    @functools.cache
    def measured(name: str) -> Launching:
        found = launched(tmp_path_factory.mktemp("cycle"), SPECS[name]())
        assert found.finish() == 0, found.said + found.log_text()[-4000:]
        return found

    return measured


def transitions(of: Launching) -> list[Transition]:
    found = [iteration.transition for iteration in of.record().iterations]
    assert all(found)
    return [each for each in found if each is not None]


def proofs_of(of: Launching) -> list[WeightProof]:
    return of.record().weight_proofs or []


def findings(of: Launching) -> dict[str, str]:
    """Return what the proofs found: code -> sentence."""
    return {flag.code: flag.sentence for flag in of.record().validity if flag.code in FINDINGS}


def test_a_transition_whose_parts_sum_up_follows_each_pass(launch: Callable[[str], Launching]):
    record = launch("bf16").record()
    assert [iteration.warmup for iteration in record.iterations] == [True, False, False, False]
    for iteration, transition in zip(record.iterations, transitions(launch("bf16")), strict=True):
        assert iteration.output_tokens == 8 * 16
        assert [part.name for part in transition.parts] == ["drain", "pause", "update", "reset_prefix_cache", "resume"]
        assert transition.elapsed_s == pytest.approx(sum(part.elapsed_s for part in transition.parts))
        begins = [part.began_s for part in transition.parts]
        assert begins == sorted(begins)
        assert [look.when for look in transition.memory] == ["before", "asleep", "after"]
        assert all(look.host_bytes > 1e8 for look in transition.memory)
        update = transition.update
        assert (update.quantize_s, update.transfer_s + update.load_s) == (
            None,
            pytest.approx(transition.part_s("update")),
        )
        assert (update.size_bytes, update.buckets) == (6_821_376, 1)
        assert iteration.host.window_s >= iteration.elapsed_s + transition.elapsed_s


def test_weights_change_and_come_back_and_so_do_the_tokens(launch: Callable[[str], Launching]):
    proofs = proofs_of(launch("bf16"))
    assert [proof.weights for proof in proofs] == ["first", "second", "first"]
    loaded, second, first = [(proof.tokens, proof.checksum) for proof in proofs]
    assert loaded == first
    assert loaded[0] != second[0]
    assert loaded[1] != second[1]
    # of 4 layers 4 linear ones and 4 norms each; the last norm, the embedding and the head; and what a processor packs
    assert all(proof.changed_trained == proof.trained >= 4 * 8 + 3 for proof in proofs[1:])
    assert all(proof.not_finite == 0 for proof in proofs)
    assert findings(launch("bf16")) == {}


def test_torchao_takes_new_weights_from_a_second_checkpoint(launch: Callable[[str], Launching]):
    _, *proofs = proofs_of(launch("w8a16 reload"))
    assert [proof.changed_trained for proof in proofs] == [proofs[0].trained] * 2
    assert findings(launch("w8a16 reload")) == {}
    for each in transitions(launch("w8a16 reload")):
        assert each.update.model_dump(exclude={"weights", "load_s"}, exclude_none=True) == {}
        assert each.update.load_s == pytest.approx(each.part_s("update"))


def test_int8_weights_are_quantized_on_the_way(launch: Callable[[str], Launching]):
    assert transitions(launch("w8a8"))[0].update.quantize_s > 0
    if HAS_AMX:  # there vLLM 0.32 has another kernel, whose weights are right
        assert findings(launch("w8a8")) == {}
        return
    assert "output_changed" in findings(launch("w8a8"))
    assert not launch("w8a8").record().valid
