"""The measuring command on the real engine writes a record that holds what happened."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Launching, own_flags, tiny_spec

from rollout_bench.contracts.record import CacheFacts
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import failure_path, read_record, sequences_path, write_record
from rollout_bench.core.errors import UserError

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


SECRET = "hush-4711"


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Launching:
    folder = tmp_path_factory.mktemp("in-process")
    spec = tiny_spec()
    record = f"results/offline/{spec.experiment()}/launch-0.json"
    plan = {"launches": [{"record": f"{folder}/{record}", "expected_s": 20}, {"record": "other", "expected_s": 60}]}
    (folder / "plan.json").write_text(json.dumps(plan))
    earlier = failure_path(folder / record)
    earlier.parent.mkdir(parents=True)
    earlier.write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "VLLM_HUSH_API_KEY"):
            patch.setenv(variable, SECRET)
        launch = Launching(folder, spec, ["--progress", str(folder / "plan.json")])
    launch.wait_for("measuring")
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


@pytest.fixture(scope="module")
def multiprocess(tmp_path_factory: pytest.TempPathFactory) -> Launching:
    # Claims a quantization that weights and KV cache don't have, sends n samples in one request, and as often as auto
    # comes to.
    spec = tiny_spec(
        measuring={"iterations": "auto"},
        engine={"multiprocess": True},
        quant={"name": "w8a8", "linear_dtypes": ["int8"], "linear_method": "Int8", "kv_cache_dtype": "fp8"},
        workload={"requests": "per_prompt"},
    )
    launch = Launching(tmp_path_factory.mktemp("multiprocess"), spec)
    launch.wait_for("measuring")
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


def test_secrets_that_the_engine_inherits_are_in_no_file(in_process: Launching) -> None:
    files = [path for path in in_process.folder.rglob("*") if path.is_file()]
    assert {in_process.out, in_process.log} <= set(files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert SECRET not in in_process.said


def test_tokens_are_counted_from_what_the_engine_returned(in_process: Launching) -> None:
    record = in_process.record()
    assert record.key == in_process.spec.key()
    assert [iteration.warmup for iteration in record.iterations] == [True, False, False]
    for iteration in record.iterations:
        assert (iteration.requests, iteration.sequences) == (8, 8)
        assert iteration.prompt_tokens == 8 * 130
        assert iteration.output_tokens == 8 * 16
        assert iteration.elapsed_s > 0
    assert own_flags(record) == []


def test_a_record_of_a_cpu_says_why_it_has_no_energy(in_process: Launching) -> None:
    record = in_process.record()
    assert all(iteration.devices is None for iteration in record.iterations)
    assert record.no_energy == "the energy of a CPU is not read"


def test_siblings_share_their_prompt_and_iterations_share_nothing(in_process: Launching) -> None:
    for iteration in in_process.record().iterations:
        assert iteration.cached_prompt_tokens == 4 * 128  # the second sample of each prompt, its one full block


def test_sequence_times_are_in_order_and_inside_their_iteration(in_process: Launching) -> None:
    record = in_process.record()
    rows = read_sequences(sequences_path(in_process.out), in_process.record())
    expected = [(i, prompt, sample) for i in range(3) for prompt in range(4) for sample in range(2)]
    assert [(row.iteration, row.prompt, row.sample) for row in rows] == expected
    for row in rows:
        assert row.queued_s is not None
        assert row.scheduled_s is not None
        assert row.first_token_s is not None
        assert row.last_token_s is not None
        elapsed_s = record.iterations[row.iteration].elapsed_s
        assert 0 <= row.queued_s <= row.scheduled_s < row.first_token_s < row.last_token_s <= elapsed_s


def test_loaded_weights_are_counted_to_the_byte(in_process: Launching) -> None:
    engine = in_process.record().engine
    layer = (128 + 64 + 64) * 128 + 128 * 128 + 2 * 256 * 128 + 256 * 128
    assert engine.weights_bytes_by_dtype.linear == {"bfloat16": 2 * layer * 2}
    assert engine.linear_methods == {"UnquantizedLinearMethod": 8}
    assert engine.resolved["max_model_len"] == 256
    assert engine.resolved["attention_backends"] == ["CPU_ATTN"]
    assert engine.kv_cache_tokens is not None
    assert engine.kv_cache_tokens > 100_000


def test_the_kv_cache_is_counted_to_the_byte(in_process: Launching) -> None:
    layer = 2 * 2 * 32 * 2  # keys and values, heads, width of a head, bytes of a value
    assert in_process.record().engine.kv_cache == CacheFacts(layers={"bfloat16": 2}, bytes_per_token=2 * layer)


def test_record_says_where_it_ran_and_what_starting_took(in_process: Launching) -> None:
    record = in_process.record()
    assert record.environment.engine_version == "0.32.0"
    assert record.environment.variables["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert record.environment.device_memory_bytes
    assert record.startup.import_s > 0
    assert record.startup.init_s > 0
    assert record.startup.reported["engine_init_s"] > 0
    assert record.startup.process_s
    assert record.startup.process_s + record.startup.import_s + record.startup.init_s < record.wall_s


def test_a_success_leaves_no_failure_no_process_and_no_temporary_file(in_process: Launching) -> None:
    experiment = in_process.spec.experiment()
    names = ["launch-0.json", "launch-0.sequences.jsonl.gz"]
    assert in_process.left_behind() == [f"offline/{experiment}/{name}" for name in names]
    assert in_process.survivors() == []
    assert "/tmp/rollout-engine-" in " ".join(in_process.child_lines)
    assert not any(Path(line.split()[-1]).exists() for line in in_process.child_lines if "guardian" in line)


def test_progress_says_place_rate_and_time_left(in_process: Launching) -> None:
    lines = [line for line in in_process.said.splitlines() if "others use" not in line]
    assert lines[0].startswith("[1/2] tiny bf16 short (offline), launch 0: importing; about ")
    assert any("iteration 1/2, " in line and "tok/s; about " in line for line in lines)
    assert in_process.errors() == []


def test_one_request_with_n_samples_has_counts_but_no_times(multiprocess: Launching) -> None:
    record = multiprocess.record()
    passes = len(record.iterations)
    assert [(i.requests, i.sequences, i.output_tokens) for i in record.iterations] == [(4, 8, 128)] * passes
    assert [i.cached_prompt_tokens for i in record.iterations] == [4 * 128] * passes
    rows = read_sequences(sequences_path(multiprocess.out), multiprocess.record())
    assert {(row.queued_s, row.last_token_s, row.cached_prompt_tokens) for row in rows} == {(None, None, None)}


def test_a_claimed_quantization_that_the_weights_lack_is_flagged_invalid(multiprocess: Launching) -> None:
    flags = own_flags(multiprocess.record())
    assert {(flag.code, flag.severity) for flag in flags} == {("quant_not_proven", "invalid")}
    assert "w8a8 wants int8" in flags[0].sentence
    assert "0.6 MB bfloat16" in flags[0].sentence
    assert flags[-1].sentence == (
        "w8a8 wants a KV cache of fp8 in each layer; saw bfloat16 (2 layers), 512 bytes a token; "
        "attention backend: CPU_ATTN."
    )


def test_auto_takes_its_number_from_the_start_and_one_warm_up_pass(multiprocess: Launching) -> None:
    record = multiprocess.record()
    warm, *counted = record.iterations
    assert [iteration.warmup for iteration in record.iterations] == [True] + [False] * len(counted)
    assert record.startup.process_s is not None
    start_s = record.startup.process_s + record.startup.import_s + record.startup.init_s
    wanted = round(0.5 * start_s / warm.elapsed_s)  # what the supervisor saw of the start is a moment longer
    assert min(max(wanted, 8), 32) <= len(counted) <= min(max(wanted + 1 + wanted // 10, 8), 32)
    lines = [line for line in multiprocess.said.splitlines() if "launch 0: iteration " in line]
    places = [line.partition("launch 0: ")[2].partition(",")[0] for line in lines]
    assert places == [f"iteration {1 + n}/{len(counted)}" for n in range(len(counted))]
    assert multiprocess.errors() == []


def test_multiprocess_engine_leaves_no_process(multiprocess: Launching) -> None:
    assert len([line for line in multiprocess.child_lines if line.startswith("VLLM::")]) == 2  # engine core and worker
    assert multiprocess.survivors() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", folder], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_an_error_and_leaves_no_truncated_file(in_process: Launching, small_disk: Path) -> None:
    record, rows = read_record(in_process.out), read_sequences(sequences_path(in_process.out), in_process.record())

    def write_many() -> None:
        for launch in range(9):
            write_record(small_disk / f"launch-{launch}.json", record, rows)

    with pytest.raises(UserError, match=r"No space left on device[^$]*free some space"):
        write_many()
    written = sorted(small_disk.glob("*.json"))
    assert 0 < len(written) < 9
    assert [read_record(path).key for path in written] == [record.key] * len(written)
    assert all(read_sequences(path, record) == rows for path in small_disk.glob("*.gz"))
    assert list(small_disk.glob(".*")) == []
    shutil.rmtree(small_disk, ignore_errors=True)
