"""Mode offline on the real engine, as a user calls it: two quantizations in blocks, from config to summary.

Both engines measure a second workload afterwards.
"""

import time

import pytest
from launching import HAS_AMX, Launching, own_flags, tiny_spec
from synthetic_records import make_plan
from workspace import TINY, Workspace

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.record import CacheFacts, Record, SequenceRow
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import read_record, sequences_path
from rollout_bench.numbers.launch import parts_of
from rollout_bench.workloads.requests import Source

pytestmark = pytest.mark.engine

SECRET = "hush-4711"

OVERLAY = {
    **TINY,
    "interleave": True,
    "iterations": 8,
    "workloads": ["short", "equal"],
    "engine_args": {"max_model_len": 256, "cudagraph_metrics": True},
    "workload_settings": {
        "equal": TINY["workload_settings"]["short"],
        "short": {
            "prompts": 4,
            "samples_per_prompt": 2,
            "prompt_tokens": {"distribution": "uniform", "low": 129, "high": 190},
            "output_tokens": {"distribution": "lognormal", "median": 12, "sigma": 1, "low": 1, "high": 60},
            "shared_prefix": {"tokens": 128, "groups": 2},
            "engine_args": TINY["workload_settings"]["short"]["engine_args"],
        },
    },
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("offline") / "workspace", OVERLAY)
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "VLLM_HUSH_API_KEY"):
            patch.setenv(variable, SECRET)
        done = workspace.by_itself()
    assert done.returncode == 0, done.stdout
    return workspace


@pytest.fixture(scope="module")
def records(measured: Workspace) -> dict[str, Record]:
    """Return the launches by quant, with the flags that the summary gives them: a block is judged whole."""
    results = measured.path / "results"
    plan = make_plan([read_record(path).spec for path in sorted(results.glob("offline/*_short-*/launch-0.json"))], 1)
    return {record.spec.quant.name: record for each in collect(results, plan).experiments for record in each.records}


@pytest.fixture(scope="module")
def rows(measured: Workspace, records: dict[str, Record]) -> dict[str, list[SequenceRow]]:
    folder = measured.path / "results/offline"
    return {
        name: read_sequences(sequences_path(folder / record.experiment / "launch-0.json"), record)
        for name, record in records.items()
    }


def test_each_quant_has_a_record_without_own_flags(records: dict[str, Record]):
    assert {name: own_flags(record) for name, record in records.items()} == {"bf16": [], "w8a8": []}


def test_steps_that_decode_are_counted_as_the_engine_says(
    records: dict[str, Record], rows: dict[str, list[SequenceRow]]
) -> None:
    for name, record in records.items():
        for iteration in record.iterations:
            longest = max(row.output_tokens for row in rows[name] if row.iteration == iteration.index)
            assert iteration.graphs.decode_steps == longest - 1, "the first tokens come of the prompts' step"
            assert (iteration.graphs.in_graphs, iteration.graphs.largest) == (0, 0), "a CPU has no graphs"
            assert iteration.graphs.most_outside <= iteration.sequences


def test_an_engine_measures_the_next_workload_after_the_first(measured: Workspace):
    found = {path.parent.name: read_record(path) for path in measured.path.glob("results/offline/*/launch-0.json")}
    shared = {f"offline/{name}": record.after for name, record in found.items()}
    firsts = [name for name, after in shared.items() if after is None]
    assert sorted(after for after in shared.values() if after) == [[name] for name in sorted(firsts)]
    for record in found.values():
        first = found[record.after[0].removeprefix("offline/")] if record.after else record
        assert (record.spec.quant, record.startup.init_s) == (first.spec.quant, first.startup.init_s)
        assert (record.engine.resolved, record.block is not None) == (first.engine.resolved, True)
        assert (parts_of(record)["import_s"] == 0) == (record is not first)
        assert own_flags(record) == []
    assert len({record.block.id for record in found.values() if record.block}) == 2
    logs = [path.read_text() for path in measured.path.glob("logs/offline/*/launch-0.log")]
    assert sum("An earlier launch started the engine" in log for log in logs) == 2


def test_the_engine_generates_the_sequences_that_were_drawn(
    records: dict[str, Record], rows: dict[str, list[SequenceRow]]
):
    for name, record in records.items():
        source = Source(record.spec.workload, 2048, "tiny")
        asked = [(it.index, r) for it in record.iterations for r in source.requests(0, it.index)]
        assert [
            (row.iteration, row.prompt, row.sample, row.prompt_tokens, row.output_tokens) for row in rows[name]
        ] == [(index, r.prompt, r.sample, len(r.prompt_token_ids), r.output_tokens) for index, r in asked]
        for it in record.iterations:
            own = [(row.prompt_tokens, row.output_tokens) for row in rows[name] if row.iteration == it.index]
            assert (it.requests, it.sequences) == (8, 8)
            assert (it.prompt_tokens, it.output_tokens) == tuple(map(sum, zip(*own, strict=True)))
    assert len({row.output_tokens for row in rows["bf16"]}) > 5


def test_a_shared_prefix_is_computed_once_in_a_pass(records: dict[str, Record]):
    cached = {it.cached_prompt_tokens for record in records.values() for it in record.iterations}
    assert cached == {6 * 128}  # 2 groups of 2 prompts with 2 samples; nothing of another pass


def test_times_of_a_sequence_rise_and_lie_inside_its_pass(
    records: dict[str, Record], rows: dict[str, list[SequenceRow]]
):
    for name, record in records.items():
        for row in rows[name]:
            times = [row.queued_s, row.scheduled_s, row.first_token_s, row.last_token_s]
            known = [0.0, *(time for time in times if time is not None), record.iterations[row.iteration].elapsed_s]
            assert (len(known), known) == (6, sorted(known))
            assert row.finish_reason == "length"


def test_each_quant_is_proven_by_the_loaded_weights(records: dict[str, Record]):
    bf16, w8a8 = (records[name].engine for name in ("bf16", "w8a8"))
    assert set(bf16.weights_bytes_by_dtype.linear) == {"bfloat16"}
    added = 4 * 4 * (512 + 256 + 1024 + 256) if HAS_AMX else 0  # its kernel adds four bytes to each row of four layers
    assert (w8a8.weights_bytes_by_dtype.linear["int8"] - added) * 2 == bf16.weights_bytes_by_dtype.linear["bfloat16"]
    assert list(w8a8.linear_methods) == ["CompressedTensorsW8A8Int8"]
    token = 4 * 2 * 2 * 64 * 2  # layers, keys and values, heads, width of a head, bytes of a value
    assert bf16.kv_cache == w8a8.kv_cache == CacheFacts(layers={"bfloat16": 4}, bytes_per_token=token)


def test_a_forked_start_is_timed_and_its_log_read(measured: Workspace):
    found = [read_record(path) for path in measured.path.glob("results/offline/*/launch-0.json")]
    starts = [(record.startup, record.wall_s) for record in found if not record.after]
    assert len(starts) == 2
    for start, wall_s in starts:
        assert start.forked
        assert start.reported["engine_init_s"] > 0
        assert 0 < start.process_s + start.init_s < wall_s


def test_passes_go_in_turn_and_as_many_count_in_each(records: dict[str, Record]):
    counted = [[it.round for it in record.iterations if not it.warmup] for record in records.values()]
    assert len(counted[0]) == len(counted[1])
    assert 8 <= len(counted[0]) <= 32
    first, second = (record.block for record in records.values())
    assert (first.id, first.order) == (second.id, second.order)
    assert len({tuple(of) for of in first.order}) > 1
    assert counted == [[number for number, of in enumerate(first.order) if place in of] for place in range(2)]


def test_only_results_are_left_and_no_file_has_a_secret(measured: Workspace):
    deadline = time.monotonic() + 5  # the starter ends when it notices the end of snakemake
    while measured.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert measured.processes() == []
    names = {path.name for path in measured.path.glob("results/offline/*/*")}
    assert names == {"launch-0.json", "launch-0.sequences.jsonl.gz", "spec.json"}
    files = [path for path in measured.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Launching:
    """Return a launch that claims a quantization that its weights lack, and an option that the engine drops.

    Five of the eight sequences fit into ten blocks of 128 tokens; and n samples go in one request.
    """
    args = {"load_format": "dummy", "max_model_len": 256, "max_num_seqs": 8, "enforce_eager": True}
    spec = tiny_spec(
        quant={"name": "w8a8", "linear_dtypes": ["int8"], "linear_method": "Int8", "kv_cache_dtype": "fp8"},
        workload={"requests": "per_prompt", "prompt_tokens": 100, "output_tokens": 60},
        engine={"args": {**args, "num_gpu_blocks_override": 10, "enable_dbo": True}},
    )
    launch = Launching(tmp_path_factory.mktemp("doubtful"), spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


def test_what_is_wrong_with_a_launch_is_flagged(doubtful: Launching):
    record = doubtful.record()
    flags = {flag.code: flag for flag in own_flags(record)}
    assert {"quant_not_proven", "engine_fallback", "setting_without_effect", "preemptions"} <= set(flags)
    assert {flag.severity for flag in record.validity if flag.code == "quant_not_proven"} == {"invalid"}
    assert not record.valid
    assert "Dual-Batch Overlap is not supported on CPU" in flags["engine_fallback"].sentence
    assert record.engine.overruled == {"enable_dbo": False}


def test_one_request_with_n_samples_has_counts_but_no_times(doubtful: Launching):
    record = doubtful.record()
    assert [(it.requests, it.sequences, it.output_tokens) for it in record.iterations] == [(4, 8, 8 * 60)] * 3
    found = read_sequences(sequences_path(doubtful.out), record)
    assert {(row.queued_s, row.last_token_s, row.cached_prompt_tokens) for row in found} == {(None, None, None)}
