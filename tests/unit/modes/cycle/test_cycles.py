"""Cycles: a transition's parts, updates of weights, the trainer's tensors, and flags of what went wrong."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from launching import tiny_spec
from planned import planned
from safetensors.torch import load_file
from samples import timed
from samples.cycle import OUTPUT_CHANGED, cycled
from samples.cycle import cycle_spec as made_spec
from synthetic_records import changed, make_record, proof, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.formats import tensors
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.record import Drafting, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.weights import WeightProof, Weights
from rollout_bench.core.errors import MeasuringFailed
from rollout_bench.measure.engine.buckets import buckets
from rollout_bench.measure.engine.vllm import Pause
from rollout_bench.measure.launch.flags import not_finite_flags
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.recorder import CollectorContext
from rollout_bench.measure.machine.readings import HostMonitor
from rollout_bench.modes.cycle import worker as cycle
from rollout_bench.modes.cycle.collector import Collector, cycle_flags, draft_flags, kv_cache_flags
from rollout_bench.modes.cycle.extension import TrainerStandIn
from rollout_bench.modes.cycle.record import Transition, UnderWay
from rollout_bench.modes.cycle.settings import CycleSpec
from rollout_bench.modes.cycle.trainer import shifted_rows
from rollout_bench.modes.cycle.updates import InProcess, Ipc, Reload, WeightSyncClient, sender
from rollout_bench.modes.cycle.worker import Transitions
from rollout_bench.plan.matrix import mode_lines
from rollout_bench.report.summary import summary_of

PAUSE_S = 0.02


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"platform": "cuda"}, True),
        ({"platform": "cuda", "cycle": {"sleep": "none"}}, False),
        ({"platform": "cuda", "sweep": {}}, False),
        ({"platform": "cpu"}, False),
    ],
)
def test_updates_in_flight_beside_engines_that_sleep_are_told(config: dict[str, Any], *, told: bool):
    swept = {"modes": ["cycle"], "quants": ["bf16"], "sweep": {"cycle.in_flight": ["keep", "recompute"]}}
    lines = mode_lines(planned({**swept, **config}))
    assert ["-> cycle: {sleep: none} compares only the updates" in line for line in lines] == [True] * told


class Clock:
    """A clock that only what waits moves on, so that no busy machine changes a time."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "time", CLOCK)


class Recorded:
    """Stands for an engine, its `LLM` and what updates it: notes what it is asked for; only an update takes time."""

    vocabulary = 9
    held_bytes = 0
    most_sequences = 8

    def __init__(self, unfinished: bool = False) -> None:
        self.llm = self.llm_engine = self
        self.calls: list[str] = []
        self.has_unfinished_requests = lambda: unfinished

    def __getattr__(self, name: str) -> Any:
        return lambda **named: self.calls.append(" ".join([name, *map(str, named.values())]))

    def collective_rpc(self, method: str, **_named: Any) -> list[Any]:
        assert method == "rollout_bench_device_free"
        return [80, 90]

    def apply(self, weights: Weights) -> dict[str, Any]:
        self.calls.append(f"apply {weights}")
        CLOCK.sleep(PAUSE_S)
        return {"transfer_s": 0.001, "quantize_s": None, "size_bytes": 5, "buckets": 1}


def gone_through(recorded: Recorded, **settings: Any) -> Transition:
    """Return what came of a transition."""
    spec = CycleSpec(update="in_process", **settings)
    return Transitions(recorded, spec, recorded).go("second", CLOCK.monotonic())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sleep", "calls", "parts"),
    [
        (
            "none",
            ["sleep 0", "apply second", "reset_prefix_cache", "wake_up ['scheduling']"],
            ["drain", "pause", "update", "reset_prefix_cache", "resume"],
        ),
        (
            "2",
            ["sleep 2", "wake_up ['weights']", "apply second", "reset_prefix_cache", "wake_up ['kv_cache']"],
            ["drain", "sleep", "wake_weights", "update", "reset_prefix_cache", "wake_kv_cache"],
        ),
    ],
    ids=["no sleep", "asleep"],
)
def test_parts_follow_verls_order_and_nothing_else_is_timed(sleep: str, calls: list[str], parts: list[str]):
    engine = Recorded()
    seen = gone_through(engine, sleep=sleep)
    assert engine.calls == calls
    assert [part.name for part in seen.parts] == parts
    assert {part.name: part.elapsed_s for part in seen.parts if part.elapsed_s > 1e-9} == {
        "update": pytest.approx(seen.elapsed_s)
    }
    assert [look.when for look in seen.memory] == ["before", "asleep", "after"]
    assert {look.device_free_bytes for look in seen.memory} == {80}


def test_requests_that_never_end_are_a_failure_in_two_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cycle, "DRAIN_S", 0.05)
    with pytest.raises(MeasuringFailed, match=r"still under way 0\.05 s after") as caught:
        gone_through(Recorded(unfinished=True), sleep="none")
    assert caught.value.category == "not_drained"


SHAPE = SyntheticModel(preset="qwen3-tiny", shape={"num_hidden_layers": 1}).resolve()


def called(asked: list[Any], answer: Callable[[], Any]) -> Any:
    """Return an engine that notes what its workers are asked for."""

    def collective_rpc(method: str, kwargs: dict[str, Any] | None = None) -> Any:
        asked.append((method, kwargs or {}))
        return answer()

    return SimpleNamespace(llm=SimpleNamespace(collective_rpc=collective_rpc))


def spec_of(weights_format: str = "bf16") -> Spec:
    spec = tiny_spec(quant={"weights_format": weights_format}).model_dump(mode="json")
    own = {"mode": "cycle", "cycle": {"sleep": "none", "update": "in_process"}}
    model = {"name": "tiny", "weights": None, "synthetic": SHAPE.model_dump(mode="json")}
    return Spec.model_validate_json(json.dumps({**spec, **own, "model": model}))


def test_each_rank_makes_trainer_tensors_and_the_slowest_counts():
    quick = {"transfer_s": 1.0, "quantize_s": 2.0, "size_bytes": 5, "buckets": 1}
    slow = {**quick, "transfer_s": 2.5}
    asked, answers = list[Any](), iter([[100, 100], [quick, slow]])
    updates = InProcess(called(asked, lambda: next(answers)), spec_of("compressed-tensors-w8a8"), "m")
    updates.prepare()
    assert updates.held_bytes == 200
    assert updates.apply("second") == slow
    what = {"shape": SHAPE.model_dump(), "weights_format": "compressed-tensors-w8a8"}
    assert asked == [("rollout_bench_trainer", what), ("rollout_bench_update", {"weights": "second"})]


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
    def refuse() -> None:
        raise error

    with pytest.raises(MeasuringFailed) as caught:
        method(called([], refuse), spec_of(), "m").apply("first")
    assert caught.value.category == "not_updatable"
    problem = f"vLLM can't update the weights of bf16 (format bf16): {type(error).__name__}: {error}"
    assert caught.value.problem == problem


def test_handles_reach_vllms_receiver_as_its_sender_gave_them(monkeypatch: pytest.MonkeyPatch):
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo

    monkeypatch.setenv(*next(iter(Ipc.environment.items())))
    handle = {"GPU-1": (torch.Tensor, torch.Size([8]), torch.uint8, b"\0handle")}
    bucket = {"names": ["a"], "dtype_names": ["bfloat16"], "shapes": [[4]], "tensor_sizes": [8]}
    sent, taken = IPCWeightTransferUpdateInfo(**bucket, ipc_handles=handle), list[Any]()
    WeightSyncClient(SimpleNamespace(update_weights=taken.append)).update_weights(asdict(sent))
    assert IPCWeightTransferUpdateInfo(**json.loads(json.dumps(taken[0]))["update_info"]) == sent


def test_a_sender_of_the_third_phase_alone_gets_the_others_around_it():
    """vLLM 0.23, the version on GPUs, has such a sender; the one that is installed here does all phases."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCWeightTransferUpdateInfo

    def sends(tensors: Iterator[tuple[str, torch.Tensor]], how: dict[str, Any]) -> None:
        assert how["packed"], how
        for name, tensor in tensors:
            about = {"names": [name], "dtype_names": ["bfloat16"], "shapes": [list(tensor.shape)]}
            how["send_mode"](IPCWeightTransferUpdateInfo(**about, ipc_handles={}))

    phases = ("init_weight_transfer_engine", "start_weight_update", "update_weights", "finish_weight_update")
    called = list[str]()
    llm = SimpleNamespace(**{phase: lambda *_, phase=phase: called.append(phase) for phase in phases})
    module = SimpleNamespace(IPCWeightTransferEngine=SimpleNamespace(trainer_send_weights=sends))
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    send = sender(module, WeightSyncClient(llm), lambda: iter(tensors.items()))
    send()
    send()
    first, start, update, finish = phases
    assert called == [first, *2 * [start, update, update, finish]]


UNTIED = SyntheticModel(
    preset="qwen3-tiny", shape={"num_hidden_layers": 1, "tie_word_embeddings": False}, seed=7
).resolve()


class Worker(TrainerStandIn):
    """Takes what is handed over, as vLLM's worker does."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.loaded: dict[str, torch.Tensor] = {}

    def reload_weights(self, weights_iterator: Any) -> None:
        self.loaded = dict(weights_iterator)


@pytest.mark.parametrize("weights_format", ["bf16", "compressed-tensors-w8a8", "compressed-tensors-w8a16"])
def test_the_trainer_hands_over_a_checkpoint_of_that_format(weights_format: str, tmp_path: Path):
    worker = Worker()
    held = worker.rollout_bench_trainer(UNTIED.model_dump(), weights_format)
    one_set = 2 * sum(spec.elements for spec in tensors(UNTIED))
    assert held == 2 * one_set
    for weights, shape in (("first", UNTIED), ("second", UNTIED.other_weights())):
        build_checkpoint(shape, weights_format, tmp_path / weights)
        stored = load_file(tmp_path / weights / "model.safetensors")
        took = worker.rollout_bench_update(weights)  # type: ignore[arg-type]
        assert worker.loaded.keys() == stored.keys()
        assert all(torch.equal(worker.loaded[name], stored[name]) for name in stored)
        assert (took["size_bytes"], took["quantize_s"] > 0) == (one_set, weights_format != "bf16")
        assert took["transfer_s"] > 0


@given(st.lists(st.tuples(st.sampled_from(["bf16", "fp8"]), st.integers(0, 50))), st.integers(1, 60))
def test_buckets_keep_order_and_type_and_are_full(sizes: list[tuple[str, int]], limit: int):
    made = buckets(sizes, limit)
    assert [place for bucket in made for place in bucket] == list(range(len(sizes)))
    filled = [[sizes[place] for place in bucket] for bucket in made]
    assert all(len({dtype for dtype, _ in bucket}) == 1 for bucket in filled)
    held = [sum(size for _, size in bucket) for bucket in filled]
    assert all(size <= limit or len(bucket) == 1 for size, bucket in zip(held, made, strict=True))
    for size, bucket, following in zip(held, filled, filled[1:], strict=False):
        assert size + following[0][1] > limit or bucket[0][0] != following[0][0]


def test_the_second_set_of_named_weights_has_all_tensors_rolled():
    matrix, vector = torch.arange(6).view(3, 2), torch.arange(3)
    assert (shifted_rows(matrix).tolist(), shifted_rows(vector).tolist()) == ([[4, 5], [0, 1], [2, 3]], [2, 0, 1])
    assert shifted_rows(torch.tensor(3)).item() == 3


OTHER = "3" * 16


@pytest.mark.parametrize(
    ("second", "first", "code", "words"),
    [
        ({}, {}, None, ""),
        ({}, {"tokens": OTHER}, "output_changed", "the engine had other greedy tokens than as loaded"),
        ({}, {"checksum": OTHER}, "output_changed", "the engine had other checksum than as loaded"),
        (
            {"not_finite": 2},
            {},
            "output_changed",
            "2 of 60 tensors of an engine have values that are",
        ),
        ({"changed_trained": 47}, {}, "update_without_effect", "1 of 48 weights that had to change"),
        ({}, {"changed_trained": 46}, "update_without_effect", "2 of 48 weights that had to change"),
        (
            {"trained": 24, "changed_trained": 24},
            {},
            "update_without_effect",
            "24 of 48 tensors of its adapter had only zeros",
        ),
        ({"tokens": "first"}, {}, "update_without_effect", "the same greedy tokens as before"),
    ],
    ids=[
        "as it should be",
        "tokens",
        "checksum",
        "no numbers",
        "a weight stays",
        "stays on the way back",
        "an adapter comes in half",
        "tokens stay",
    ],
)
def test_an_update_that_is_none_makes_a_launch_invalid(
    second: dict[str, Any], first: dict[str, Any], code: str | None, words: str
):
    loaded = proof("first", changed=False)
    second = {**second, **({"tokens": loaded.tokens} if second.get("tokens") else {})}
    after = [proof("second", changed=True), proof("first", changed=True)]
    proofs = [loaded, *(one.model_copy(update=more) for one, more in zip(after, (second, first), strict=True))]
    found = not_finite_flags(proofs) or cycle_flags(*proofs)
    assert [(flag.code, flag.severity) for flag in found] == ([(code, "invalid")] if code else [])
    assert all(words in flag.sentence for flag in found)


def test_an_update_in_flight_says_nothing_of_other_lengths(tmp_path: Path):
    def in_flight(record: Record, recomputed: int) -> Record:
        under_way = {"requests": 32, "waiting": 8, "tokens": 4096, "recomputed": recomputed}
        if recomputed:
            under_way["recomputed_tokens"] = 3000
        return changed(record, lambda one: {"transition": one.transition.model_dump() | {"under_way": under_way}})

    for launch in range(4):
        for number, quant in enumerate(("bf16", "fp8")):
            record = timed(made_spec(quant, workload="whole"), launch, 1, 30 + number, [])
            save(tmp_path, in_flight(cycled(record, 0.5), 32 * number))
    text = " ".join(summary_of(tmp_path, collect(tmp_path, None)).text.split())
    assert "what an update in flight computes again is a part of generation" in text
    assert "pays" not in text
    assert "32.0 requests under way stall for 0.500 s, and 8.00 wait for room; they go on with their KV" in text
    assert "32.0 of them lose their KV cache of 4,096 tokens and compute 3,000 again" in text


def test_a_steps_times_are_of_the_launches_that_its_ratio_compares(tmp_path: Path):
    for launch in range(4):
        for quant, transition_s in (("bf16", 1.0), ("fp8", 0.5)):
            lost = [OUTPUT_CHANGED] if (launch, quant) == (3, "fp8") else []
            slow = launch == 3 and quant == "bf16"  # the launch whose partner is invalid
            record = timed(made_spec(quant, workload="whole"), launch, 1, 30, lost)
            save(tmp_path, cycled(record, 100.0 if slow else transition_s))
    text = " ".join(summary_of(tmp_path, collect(tmp_path, None)).text.split())
    assert "the transition 0.500 s against 1.00 s" in text


def test_times_after_an_update_in_flight_are_without_it():
    pause = Pause(began=5.0, elapsed_s=2.0)
    assert [pause.without(moment) for moment in (4.0, 8.0)] == [4.0, 6.0]
    assert pause.without(5.1) == 5.0  # of a step that ended once the pause had begun


@pytest.mark.parametrize(
    ("preemptions", "recomputed", "joined", "further", "tokens"),
    [(0, 0, 0, 0, None), (6, 6, 0, 0, 70), (8, 8, 0, 0, 70), (9, 9, 1, 0, 70), (12, 10, 2, 2, None)],
)
def test_a_sync_drops_the_kv_cache_of_no_more_requests_than_the_batch_holds(
    preemptions: int, recomputed: int, joined: int, further: int, tokens: int | None
):
    recorded = Recorded()
    recorded.most_sequences = 10
    spec = CycleSpec(sleep="none", update="in_process", in_flight="recompute")
    transitions = Transitions(recorded, spec, recorded)  # type: ignore[arg-type]
    transitions.in_flight("second", 8, 5, 99)
    transition, others = transitions.last(preemptions, 70)
    known = UnderWay(
        requests=8 + joined, waiting=5 - joined, tokens=99, recomputed=recomputed, recomputed_tokens=tokens
    )
    assert (transition.under_way, others) == (known, further)


@pytest.mark.parametrize(
    ("in_flight", "requests", "recomputed", "words"),
    [
        ("keep", 8, 0, ""),
        ("recompute", 8, 8, ""),
        ("keep", 8, 3, "3 of 8 requests under way lost their KV cache"),
        ("recompute", 8, 0, "all 8 requests under way kept their KV cache"),
        ("keep", 0, 0, "no request was under way"),
    ],
)
def test_a_kv_cache_that_is_not_as_asked_is_told(in_flight: str, requests: int, recomputed: int, words: str):
    spec = made_spec()
    spec = spec.model_copy(update={"cycle": CycleSpec(sleep="none", update="in_process", in_flight=in_flight)})
    iteration = cycled(make_record(made_spec()), 0.5).iterations[0]
    under_way = UnderWay(requests=requests, tokens=9, recomputed=recomputed)
    transition = iteration.of(Transition).model_copy(update={"under_way": under_way})
    found = kv_cache_flags(iteration.model_copy(update={"transition": transition}), spec)
    assert [flag.code for flag in found] == (["kv_cache_not_as_asked"] if words else [])
    assert all(words in flag.sentence for flag in found)


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        ([70, 66, 71], None),
        ([70, 66, 30], "Of a draft 0.7 tokens were accepted before any update, and 0.3 after one"),
        ([0, 0, 0], "No token of a draft was accepted before any update"),
        ([70, None, 70], "and 0 after one"),
    ],
)
def test_a_draft_that_is_accepted_less_after_an_update_is_lost(accepted: list[int | None], words: str | None):
    one = cycled(make_record(made_spec()), 0.5).iterations[0]
    used = [
        None
        if tokens is None
        else Drafting(drafts=100, draft_tokens=300, accepted_tokens=tokens, accepted_by_position=[])
        for tokens in accepted
    ]
    found = draft_flags([one.model_copy(update={"drafting": each}) for each in used])
    assert [(flag.code, flag.severity) for flag in found] == ([] if words is None else [("draft_lost", "invalid")])
    assert words is None or words in found[0].sentence


@pytest.mark.parametrize(
    ("platform", "lora", "codes"),
    [("cuda", Lora(rank=4), []), ("cpu", Lora(rank=4), ["output_changed"]), ("cuda", None, ["output_changed"])],
)
def test_greedy_tokens_come_back_but_those_of_an_adapter_on_cuda(
    platform: str, lora: Lora | None, codes: list[str], tmp_path: Path
):
    """On an H200 vLLM 0.23 gave an adapter with one checksum several continuations, also as loaded."""
    spec = made_spec().model_copy(update={"platform": platform, "lora": lora})
    back = proof("first", changed=True, tokens=OTHER)
    assert invalid_by(spec, [proof("first", changed=False), proof("second", changed=True), back], tmp_path) == codes


@pytest.mark.parametrize(("stale", "codes"), [(0, []), (None, []), (16, ["stale_prefix_cache"])])
def test_a_prompt_in_the_prefix_cache_of_old_weights_makes_a_launch_invalid(
    stale: int | None, codes: list[str], tmp_path: Path
):
    after = [proof("second", changed=True), proof("first", changed=True, stale_prefix_tokens=stale)]
    assert invalid_by(made_spec(), [proof("first", changed=False), *after], tmp_path) == codes


def invalid_by(spec: Spec, proofs: list[WeightProof], folder: Path) -> list[str]:
    """Return the codes that make a launch with these proofs invalid."""
    progress = Progress(spec, 0, folder / "launch-0.json")
    collecting = Collector(CollectorContext(spec, 0, progress, HostMonitor("cpu", [{}], lambda: ([], set()))))
    collecting.proofs = proofs
    return [flag.code for flag in collecting.doubts(make_record(spec, 0).engine, "") if flag.severity == "invalid"]
