"""Updates of weights: which checkpoints they need, and what is said where vLLM refuses one."""

import json
from pathlib import Path
from typing import Any

import pytest
from launching import tiny_spec
from safetensors.torch import load_file

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.modes.cycle.updates import InProcess, Reload

SHAPE = SyntheticModel(preset="qwen3-tiny", shape={"num_hidden_layers": 1}).resolve()


class Called:
    """An `LLM` that notes what its workers are asked for, or fails with an error."""

    def __init__(self, answers: list[Any] | None = None, error: Exception | None = None) -> None:
        self.answers, self.error = answers, error
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def collective_rpc(self, method: str, kwargs: dict[str, Any] | None = None) -> Any:
        self.asked.append((method, kwargs or {}))
        if self.error is not None:
            raise self.error
        return self.answers


def spec_of(synthetic: bool = True, weights_format: str = "bf16", **cycle: Any) -> Spec:
    spec = tiny_spec(quant={"weights_format": weights_format}).model_dump(mode="json")
    named = {"name": "tiny", "weights": None if synthetic else "tiny"}
    named["synthetic"] = SHAPE.model_dump(mode="json") if synthetic else None  # type: ignore[assignment]
    settings = {"sleep": "none", "update": "in_process", **cycle}
    return Spec.model_validate_json(json.dumps({**spec, "mode": "cycle", "model": named, "cycle": settings}))


def test_a_reload_alternates_between_two_checkpoints(tmp_path: Path):
    first = tmp_path / "model"
    build_checkpoint(SHAPE, "compressed-tensors-w8a8", first)
    llm = Called([None])
    updates = Reload(llm, spec_of(weights_format="compressed-tensors-w8a8", update="reload"), str(first))
    updates.prepare()
    assert updates.apply("second") == updates.apply("first") == {}
    (_, second), (_, again) = llm.asked
    assert again == {"folder": str(first)}
    expected = tmp_path / "expected"
    build_checkpoint(SHAPE.other_weights(), "compressed-tensors-w8a8", expected)
    found, wanted = (load_file(Path(folder) / "model.safetensors") for folder in (second["folder"], expected))
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)


def failure_of(updates: Any, what: str, *arguments: Any) -> tuple[str, str, str]:
    with pytest.raises(MeasuringFailed) as caught:
        getattr(updates, what)(*arguments)
    assert "\n" not in caught.value.cause + caught.value.fix
    return caught.value.category, caught.value.cause, caught.value.fix


def test_each_rank_makes_trainer_tensors_and_the_slowest_counts():
    llm = Called([100, 100])
    updates = InProcess(llm, spec_of(weights_format="compressed-tensors-w8a8"), "m")
    updates.prepare()
    assert updates.held_bytes == 200
    quick = {"transfer_s": 1.0, "quantize_s": 2.0, "size_bytes": 5, "buckets": 1}
    slow = {**quick, "transfer_s": 2.5}
    llm.answers = [quick, slow]
    assert updates.apply("second") == slow
    what = {"shape": SHAPE.model_dump(), "weights_format": "compressed-tensors-w8a8"}
    assert llm.asked == [
        ("rollout_bench_trainer", what),
        ("rollout_bench_update", {"weights": "second"}),
    ]


@pytest.mark.parametrize(
    "error",
    [
        NotImplementedError("Model reloading with `gguf` format"),
        RuntimeError("MoonEP does not support in-place weight reloads yet"),
        ValueError("Unsupported quantization for reloading"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [Reload, InProcess])
def test_a_format_refused_by_vllm_is_reported_as_not_updatable(method: type, error: Exception):
    category, cause, fix = failure_of(method(Called(error=error), spec_of(), "m"), "apply", "first")
    assert category == "not_updatable"
    assert cause == f"vLLM can't update the weights of bf16 (format bf16): {type(error).__name__}: {error}"
    assert "another quantization" in fix
