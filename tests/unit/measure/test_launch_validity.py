"""Doubts about a launch are raised when, and only when, there is a reason."""

import contextlib
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from launching import online_spec, tiny_spec
from planned import REPOSITORY, merged_with
from samples.online import make_online, make_online_spec

from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.lora import Lora
from rollout_bench.contracts.record import (
    AdapterFacts,
    CacheFacts,
    ClientUse,
    Drafting,
    EngineFacts,
    Iteration,
    SequenceRow,
    WeightBytes,
    routed_bytes_of,
)
from rollout_bench.contracts.spec import Quantization, QuantSpec, Spec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.engine.vllm import sequence_rows
from rollout_bench.measure.launch.flags import (
    acceptance_flags,
    adapter_flags,
    batch_flags,
    client_flags,
    prefix_cache_flags,
    quant_flags,
    repeated_flags,
    routed_flags,
    token_flags,
)
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.measure.server.stream import WORDS, LoadPass, RequestOutcome
from rollout_bench.modes.online import worker
from rollout_bench.modes.online.collector import load_flags
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.plan.checks import THREAD_VARIABLES, dropped_variables
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.quants import BUILT_IN
from rollout_bench.workloads.requests import Request, Source

SPEC = tiny_spec()
ASKED = Source(SPEC.workload, 2048, "tiny").requests(0, 1)


def facts(linear: dict[str, int], methods: dict[str, int], cache: dict[str, int] | None = None) -> EngineFacts:
    weights = WeightBytes(linear=linear, other={"float32": 1 << 40})
    held = None if cache is None else CacheFacts(layers=cache, bytes_per_token=2048)
    backends = {"attention_backends": ["CPU_ATTN"]}
    return EngineFacts(weights_bytes_by_dtype=weights, linear_methods=methods, kv_cache=held, resolved=backends)


def rows(cached: tuple[int, ...] = (0, 128) * 4, output_tokens: int = 16) -> list[SequenceRow]:
    return [
        SequenceRow(
            iteration=1,
            prompt=number // 2,
            sample=number % 2,
            prompt_tokens=130,
            cached_prompt_tokens=tokens,
            output_tokens=output_tokens,
            finish_reason="length",
        )
        for number, tokens in enumerate(cached)
    ]


def iteration(found: list[SequenceRow]) -> Iteration:
    return Iteration(
        index=1,
        warmup=False,
        elapsed_s=1.0,
        requests=8,
        sequences=len(found),
        prompt_tokens=sum(row.prompt_tokens for row in found),
        cached_prompt_tokens=sum(row.cached_prompt_tokens or 0 for row in found),
        output_tokens=sum(row.output_tokens for row in found),
    )


@pytest.mark.parametrize(("waves", "flags"), [(None, ["batch_not_at_once"]), (2, []), (1, ["batch_not_at_once"])])
def test_waves_need_not_run_together(waves: int | None, flags: list[str]):
    own = PlacementSpec(where="colocated", devices=1, waves=waves)
    spec = SPEC.model_copy(update={"mode": "placement", "placement": own})
    times = [{"scheduled_s": float(n >= 4), "last_token_s": float(n >= 4) + 0.9} for n in range(8)]
    ran = [row.model_copy(update=each) for row, each in zip(rows(), times, strict=True)]
    assert [flag.code for flag in batch_flags(spec, ran, facts({}, {}))] == flags


@pytest.mark.parametrize(
    ("cpu_share", "late_s", "severity"),
    [(0.1, 0.004, None), (0.1, 0.006, "warning"), (0.1, 0.09, "warning"), (0.1, 0.11, "invalid"), (0.96, 0, "invalid")],
)
def test_a_sender_that_is_busy_or_late_is_flagged(cpu_share: float, late_s: float, severity: str | None):
    used = ClientUse(cpu_share=cpu_share, loop_delay_median_s=0.0, loop_delay_p99_s=late_s)
    flags = client_flags([iteration(rows()), iteration(rows()).model_copy(update={"client": used})])  # it takes 1 s
    assert [(flag.code, flag.severity) for flag in flags] == ([("generator_bound", severity)] if severity else [])
    assert client_flags([iteration(rows())]) == []


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"seen_late_p99_s": 0.001, "ttft_added_p99_s": 0.0}, None, ""),
        (
            {"seen_late_p99_s": 0.018, "ran_late_share": 0.1},
            "seen_late",
            "one answer in a hundred 18.0 ms late or more",
        ),
        ({"seen_late_median_s": 0.002, "ran_late_share": 0.1}, "seen_late", "2.0 ms late at the median"),
        ({"seen_late_p99_s": 0.018, "ran_late_share": 0.9}, "generator_bound", "18.0 ms late"),
        ({"seen_late_p99_s": 0.018}, "generator_bound", "18.0 ms late"),
        ({"seen_late_p99_s": 0.018, "ran_late_share": 0.1, "cpu_share": 0.9}, "generator_bound", "90 % of a core"),
        ({"seen_late_p99_s": 0.0, "ttft_added_p99_s": 0.02, "ran_late_share": 0.1}, "seen_late", "20.0 ms to its p99"),
    ],
)
def test_answers_that_were_seen_late_are_flagged_by_what_made_them_late(
    fields: dict[str, float], code: str | None, words: str
):
    """Delays of the loop that hit no answer, here of 18 ms, are no reason."""
    use = ClientUse(**{"cpu_share": 0.09, "loop_delay_p99_s": 0.018, "seen_late_p99_s": 0.0, **fields})
    flags = client_flags([iteration(rows()).model_copy(update={"client": use})])
    assert [flag.code for flag in flags] == ([code] if code else [])
    assert words in " ".join(flag.sentence for flag in flags)
    assert all(("was not woken in time, and used at most 9 %" in f.sentence) == (code == "seen_late") for f in flags)


@pytest.mark.parametrize(
    ("shares", "flags", "valid"),
    [
        ([0.1, 0.96], [("invalid", "8 req/s")], True),
        ([0.85, 0.1], [("warning", "2 req/s")], True),
        ([0.96, 0.96], [("invalid", None)] * 2, False),
        ([0.96], [("invalid", None)], False),
    ],
)
def test_a_load_that_cannot_be_sent_costs_the_others_nothing(
    shares: list[float], flags: list[tuple[str, str | None]], valid: bool
) -> None:
    loads = [
        iteration(rows()).model_copy(
            update={
                "client": ClientUse(cpu_share=share, loop_delay_median_s=0.0, loop_delay_p99_s=0.0),
                "point": LoadPoint(request_rate=rate),
            }
        )
        for share, rate in zip(shares, (2.0, 8.0), strict=False)
    ]
    found = load_flags(loads, [])
    assert [(flag.severity, flag.load) for flag in found] == flags
    assert make_online(make_online_spec(), requests=8, flags=found)[0].valid == valid


REFUSED, BROKEN = WORDS[0][1], WORDS[-2][1]


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([(None, REFUSED)] * 3, "server_gone"),
        ([(200, BROKEN), (None, REFUSED)], "server_gone"),
        ([(None, "ClientConnectorError: Cannot connect to host a:1 [Connect call failed ('a', 1)]")], "server_gone"),
        ([(200, BROKEN)] * 6, "server_gone"),
        ([(200, BROKEN)] * 3, "requests_failed"),
        ([(429, "429 Too Many Requests: connection refused")] * 6, "requests_failed"),
        ([(503, "503 busy")] * 3 + [(None, REFUSED)], "requests_failed"),
        ([(200, "no whole answer in 3 s (request_timeout_s)")] * 9, "requests_failed"),
    ],
    ids=["refused", "one broken off", "another harness", "most broken off", "some", "429", "mostly busy", "late"],
)
def test_a_server_that_went_away_is_told_from_one_that_is_overloaded(
    errors: list[tuple[int | None, str]], code: str
) -> None:
    good = rows()[: 10 - len(errors)]
    failed = [rows()[0].model_copy(update={"status": status, "error": error}) for status, error in errors]
    (flag,) = load_flags([iteration(good)], [*good, *failed])
    assert (flag.code, flag.severity) == (code, "invalid")
    assert flag.sentence.startswith(f"{len(errors)} of {len(good) + len(errors)} measured requests failed")


@pytest.mark.parametrize(
    ("linear", "methods", "flags"),
    [
        ({"int8": 950, "bfloat16": 50}, {"CompressedTensorsW8A8Int8": 4}, 0),
        ({"int8": 850, "bfloat16": 150}, {"CompressedTensorsW8A8Int8": 4}, 1),
        ({"int8": 950, "bfloat16": 50}, {"CompressedTensorsW8A8Int8": 3, "UnquantizedLinearMethod": 1}, 1),
        ({"bfloat16": 1000}, {"UnquantizedLinearMethod": 4}, 2),
        ({}, {}, 2),
    ],
)
def test_a_quantization_is_proven_by_bytes_and_methods(
    linear: dict[str, int], methods: dict[str, int], flags: int
) -> None:
    quant = tiny_spec(quant={"name": "w8a8", "linear_dtypes": ["int8"], "linear_method": "Int8"}).quant
    found = quant_flags(quant, facts(linear, methods))
    assert [(flag.code, flag.severity) for flag in found] == [("quant_not_proven", "invalid")] * flags


_DYNAMIC, _STATIC = "AscendW8A8DynamicLinearMethod", "AscendW8A8LinearMethod"
_EXPERTS, _EXPERTS_4 = "AscendW8A8DynamicFusedMoEMethod", "AscendW4A8DynamicFusedMoEMethod"


@pytest.mark.parametrize(
    ("quant", "linear", "methods", "cache", "proven"),
    [
        ("w8a8", {"int8": 1000}, [_STATIC, _EXPERTS], "bfloat16", True),
        ("w8a8-static", {"int8": 1000}, [_STATIC], "bfloat16", True),
        ("w8a8-static", {"int8": 1000}, [_DYNAMIC], "bfloat16", False),
        ("w4a8", {"int32": 940, "int8": 60}, [_DYNAMIC, _EXPERTS_4], "bfloat16", True),
        ("w4a8", {"int8": 1000}, [_DYNAMIC, _EXPERTS], "bfloat16", False),
        ("w8a8-kv8", {"int8": 1000}, [_DYNAMIC], "int8", True),
        ("w8a8-kv8", {"int8": 1000}, [_DYNAMIC], "bfloat16", False),
    ],
)
def test_each_quantization_of_ascend_is_proven_by_what_vllm_ascend_loads(
    quant: str, linear: dict[str, int], methods: list[str], cache: str, proven: bool
) -> None:
    """The names are those of vllm-ascend 0.23.0 and its main of August 2026, read in its source."""
    known = QuantSpec(name=quant, **BUILT_IN["ascend"][quant].model_dump(include=set(Quantization.model_fields)))
    found = quant_flags(known, facts(linear, dict.fromkeys(methods, 2), {cache: 2}))
    assert (not found) == proven, found


@pytest.mark.parametrize(
    ("promised", "cache", "words"),
    [
        (None, {"bfloat16": 2}, None),
        (None, None, None),
        ("fp8", {"fp8": 2}, None),
        ("fp8_e4m3", {"fp8": 2}, None),
        ("fp8", {"bfloat16": 2}, "wants a KV cache of fp8 in each layer; saw bfloat16 (2 layers), 2,048 bytes a token"),
        ("fp8", {"fp8_e5m2": 2}, "saw fp8_e5m2 (2 layers)"),
        ("fp8", {"bfloat16": 1, "fp8": 1}, "saw bfloat16 (1 layers), fp8 (1 layers)"),
        ("fp8", None, "saw none that could be read; attention backend: CPU_ATTN"),
    ],
)
def test_a_kv_cache_is_proven_in_every_layer(promised: str | None, cache: dict[str, int] | None, words: str | None):
    quant = tiny_spec(quant={"name": "kv8", "kv_cache_dtype": promised}).quant
    found = quant_flags(quant, facts({"bfloat16": 1000}, {"UnquantizedLinearMethod": 4}, cache))
    assert [(flag.code, flag.severity) for flag in found] == [("quant_not_proven", "invalid")] * (words is not None)
    assert words is None or words in found[0].sentence


@pytest.mark.parametrize(
    ("held", "difference", "load_format", "words"),
    [
        (1000, 0.5, "auto", None),
        (500, 0.5, "auto", "its layers hold 500 of the 1,000 values"),
        (1000, 1e-4, "auto", "differ by 0.0001 nats at most"),
        (1000, 1e-6, "dummy", None),
        (1000, 0.0, "dummy", "differ by 0 nats at most"),
    ],
)
def test_an_adapter_that_does_not_act_makes_a_launch_invalid(
    held: int, difference: float, load_format: str, words: str | None
) -> None:
    spec = tiny_spec(engine={"args": {"load_format": load_format}}).model_copy(update={"lora": Lora(rank=8)})
    adapter = AdapterFacts(tensors=2, values=1000, bytes=2000, held_values=held, logprob_difference=difference)
    engine = facts({"bfloat16": 1000}, {"UnquantizedLinearMethod": 4}).model_copy(update={"adapter": adapter})
    found = adapter_flags(spec, engine)
    assert [(flag.code, flag.severity) for flag in found] == [("lora_not_proven", "invalid")] * (words is not None)
    assert words is None or words in found[0].sentence


def test_an_adapter_of_which_an_engine_says_nothing_is_not_proven() -> None:
    spec = tiny_spec().model_copy(update={"lora": Lora(rank=8)})
    assert [flag.code for flag in adapter_flags(spec, facts({}, {}))] == ["lora_not_proven"]
    assert adapter_flags(tiny_spec(), facts({}, {})) == []


@pytest.mark.parametrize(
    ("count", "output_tokens", "ignore_eos", "words"),
    [
        (8, 16, True, None),
        (7, 15, True, ("7 sequences instead of 8", "15 output tokens instead of 16")),
        (8, 3, True, ("3 output tokens instead of 16",)),
        (8, 3, False, None),
    ],
    ids=["as asked", "missing and short", "early end", "early end allowed"],
)
def test_missing_and_short_sequences_are_flagged(
    count: int, output_tokens: int, ignore_eos: bool, words: tuple[str, ...] | None
) -> None:
    found = rows(output_tokens=output_tokens)[:count]
    flags = token_flags(tiny_spec(workload={"ignore_eos": ignore_eos}).workload, ASKED, iteration(found), found)
    assert [(flag.code, flag.severity) for flag in flags] == ([("token_count", "invalid")] if words else [])
    assert words is None or all(word in flags[0].sentence for word in words)


@pytest.mark.parametrize(
    ("prefix", "cached", "flagged"),
    [
        (None, (0, 128) * 4, False),
        (None, (128, 128) + (0, 0) * 3, True),
        (None, (130,) * 8, True),
        (None, (0, 128) + (128, 128) * 3, True),
        ({"tokens": 128}, (0, 128) + (128, 128) * 3, False),
        ({"tokens": 128}, (0, 128) * 3 + (130, 130), True),
    ],
)
def test_prompts_that_were_cached_before_their_first_sample_are_flagged(
    prefix: dict[str, int] | None, cached: tuple[int, ...], flagged: bool
) -> None:
    asked = Source(tiny_spec(workload={"shared_prefix": prefix}).workload, 2048, "tiny").requests(0, 1)
    flags = prefix_cache_flags(asked, iteration(rows(cached)), rows(cached))
    assert [flag.code for flag in flags] == ["cross_iteration_prefix_hits"] * flagged


@pytest.mark.parametrize(
    ("turns", "changes", "flagged"),
    [
        (2, {}, True),
        (2, {"cached_prompt_tokens": None}, True),
        (2, {"cached_prompt_tokens": 0}, False),
        (2, {"warmup": True}, False),
        (1, {}, False),
    ],
    ids=["again", "silent server", "no prefix cache", "warm-up", "once"],
)
def test_counted_requests_that_repeat_a_prompt_are_flagged(turns: int, changes: dict, flagged: bool) -> None:
    sent = [(number, turn) for turn in range(turns) for number in range(4)]
    flags = repeated_flags(iteration(rows()).model_copy(update=changes), sent)
    assert [(flag.code, flag.severity) for flag in flags] == [("prompts_repeated", "warning")] * flagged
    assert all("4 of 8 requests (50 %)" in flag.sentence for flag in flags)


def test_a_pass_that_runs_out_of_prompts_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = online_spec({"points": [{"concurrency": 1, "request_rate": "inf", "duration_s": 1.0}]})
    sent = [(number % 2, number // 2) for number in range(3)]
    outcomes = [RequestOutcome(sent_s=0.1, pieces_s=[0.2], piece_tokens=[16], output_tokens=16) for _ in sent]
    done = LoadPass(0.0, 1.0, outcomes, ClientUse(cpu_share=0.1), sent)
    monkeypatch.setattr(worker, "prepare", lambda *_: lambda: done)
    opened = Mock(vocabulary=2048, between_passes=contextlib.nullcontext)
    opened.connection.metrics.return_value = None
    job = Job(spec=spec, model="tiny", launch=0, timeout_s=600)
    source = Source(spec.workload, 2048, "tiny")
    sending = worker.LoadPasses(job, spec.load, opened, source, EngineContext(lambda event: None, lambda: None))
    assert "prompts_repeated" in [flag.code for flag in sending.send(spec.load.points[0], 0, False).flags]


def test_each_sequence_is_held_to_its_own_length() -> None:
    spec = tiny_spec(workload={"output_tokens": {"distribution": "uniform", "low": 1, "high": 16}})
    asked = Source(spec.workload, 2048, "tiny").requests(0, 1)
    as_asked = [
        row.model_copy(update={"output_tokens": request.output_tokens})
        for row, request in zip(rows(), asked, strict=True)
    ]
    assert len({request.output_tokens for request in asked}) > 2
    assert token_flags(spec.workload, asked, iteration(as_asked), as_asked) == []
    swapped = [row.model_copy(update={"output_tokens": asked[-1 - n].output_tokens}) for n, row in enumerate(as_asked)]
    (flag,) = token_flags(spec.workload, asked, iteration(swapped), swapped)
    assert "sequences of another length than asked" in flag.sentence


def test_a_shell_variable_withheld_from_engines_is_named():
    shell = {"OMP_NUM_THREADS": "1", "VLLM_X": "1"}
    first, second = dropped_variables(read_config(merged_with("{}")), shell)
    assert first.startswith("OMP_NUM_THREADS of your shell: given to no engine")
    assert "engine: {environment: {OMP_NUM_THREADS: '1'}}" in second
    given = read_config(merged_with("engine: {environment: {OMP_NUM_THREADS: '1'}}"))
    assert list(dropped_variables(given, shell)) == []
    rule = (REPOSITORY / "workflow" / "rules" / "measure.smk").read_text()
    assert all(f"-u {name}" in rule for name in THREAD_VARIABLES)


def drafting_spec(config: dict[str, object]) -> Spec:
    return tiny_spec(engine={"args": {**SPEC.engine.args, "speculative_config": config}})


@pytest.mark.parametrize(
    ("accepted", "drafted", "codes"),
    [
        # 10,000 drafts, of which each accepts one token or two: 5 standard deviations are 250
        (15_000, 30_000, []),
        (15_240, 30_000, []),
        (15_260, 30_000, ["acceptance_not_proven"]),
        (14_740, 30_000, ["acceptance_not_proven"]),
        (14_740, 29_900, []),  # shorter drafts, at the end of the context
        (15_260, 29_900, ["acceptance_not_proven"]),
        (0, 30_000, ["acceptance_not_proven"]),
    ],
)
def test_drafts_accepted_by_chance_must_be_as_many_as_asked(accepted: int, drafted: int, codes: list[str]) -> None:
    config = {"num_speculative_tokens": 3, "rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.5}
    half = Drafting(
        drafts=5000, draft_tokens=drafted // 2, accepted_tokens=accepted // 2, accepted_by_position=[accepted // 2]
    )
    measured = [iteration(rows()).model_copy(update={"drafting": half})] * 2
    spec = drafting_spec(config)
    flags = acceptance_flags(spec, measured)
    assert [flag.code for flag in flags] == ["text_not_real", *codes]
    assert [flag.severity for flag in flags[1:]] == ["invalid"] * len(codes)
    assert [flag.code for flag in acceptance_flags(spec, [iteration(rows())])] == [
        "text_not_real",
        "acceptance_not_proven",
    ]
    assert acceptance_flags(drafting_spec({"method": "ngram"}), measured) == []


ROUTED = tiny_spec(engine={"args": {**SPEC.engine.args, "enable_return_routed_experts": True}})


@pytest.mark.parametrize(("named", "lacking"), [(145, 0), (144, 8), (None, 8)])
def test_an_engine_that_replays_the_router_names_the_experts_of_all_tokens(named: int | None, lacking: int) -> None:
    found = [row.model_copy(update={"routed_tokens": named}) for row in rows()]  # of 130 + 16, the last in no layer
    flags = routed_flags(ROUTED, found)
    assert [(flag.code, flag.severity) for flag in flags] == [("routing_not_proven", "invalid")] * bool(lacking)
    assert all(flag.sentence.startswith(f"{lacking} of 8 sequences came without the experts") for flag in flags)
    assert routed_flags(SPEC, rows()) == []


def test_ids_of_experts_are_counted_with_the_sequence_that_they_belong_to() -> None:
    experts = np.zeros((145, 48, 8), np.uint8)
    completions = [SimpleNamespace(token_ids=[1] * 16, finish_reason="length", routed_experts=experts)] * 2
    output = SimpleNamespace(outputs=completions, prompt_token_ids=[1] * 130, num_cached_tokens=0, metrics=None)
    found = sequence_rows([output], [Request(prompt=0, sample=0, prompt_token_ids=[1] * 130, output_tokens=16)], 1, 0.0)
    assert [(row.routed_tokens, row.routed_bytes) for row in found] == [(145, 145 * 48 * 8)] * 2
    assert routed_bytes_of(found) == 2 * 145 * 48 * 8
    assert routed_bytes_of(rows()) is None
