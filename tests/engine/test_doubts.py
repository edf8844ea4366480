"""Doubts about a launch on the real engine: each is caused, and its flag says what was seen."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from launching import SETTINGS, Launching, own_flags, tiny_spec

from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path
from rollout_bench.measure.launch.flags import most_at_once

pytestmark = pytest.mark.engine


def burn() -> None:
    while True:
        pass


@contextmanager
def busy_machine(processes: int = 2) -> Iterator[None]:
    """Two cores' worth of other work."""
    burning = [multiprocessing.get_context("fork").Process(target=burn, daemon=True) for _ in range(processes)]
    for process in burning:
        process.start()
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory) -> Launching:
    # Five of the eight sequences fit into ten blocks of 128 tokens, a little more as siblings share; the CPU engine
    # has no dual-batch overlap; and somebody else works on the cores while it measures.
    args = {**SETTINGS["engine"]["args"], "num_gpu_blocks_override": 10, "enable_dbo": True}
    spec = tiny_spec(
        engine={"args": args}, workload={"output_tokens": 100}, measuring={"warmup_iterations": 2, "iterations": 4}
    )
    launch = Launching(tmp_path_factory.mktemp("doubtful"), spec)
    launch.wait_for("warmup")
    with busy_machine():
        assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return launch


def test_a_kv_cache_too_small_for_the_batch_is_flagged_with_what_ran_together(doubtful: Launching) -> None:
    (flag,) = [flag for flag in doubtful.record().validity if flag.code == "batch_not_at_once"]
    rows = [row for row in read_sequences(sequences_path(doubtful.out), doubtful.record()) if row.iteration == 2]
    assert f"at most {most_at_once(rows)} of 8 sequences ran together" in flag.sentence
    assert "the KV cache holds 1280 tokens, 5 sequences of 256 (whole blocks) if none share" in flag.sentence


def test_an_option_that_the_engine_drops_is_flagged_with_its_own_words(doubtful: Launching) -> None:
    sentences = [flag.sentence for flag in own_flags(doubtful.record()) if flag.code == "engine_fallback"]
    assert sentences == ["The engine logged: Dual-Batch Overlap is not supported on CPU, disabled."]
    assert {flag.code for flag in own_flags(doubtful.record())} <= {
        "batch_not_at_once",
        "engine_fallback",
        "preemptions",
        "setting_without_effect",
    }


def test_an_argument_that_the_engine_does_not_follow_is_flagged_with_what_it_uses(doubtful: Launching) -> None:
    record = doubtful.record()
    assert record.engine.overruled == {"enable_dbo": False}
    (flag,) = [flag for flag in record.validity if flag.code == "setting_without_effect"]
    assert flag.sentence == "enable_dbo was asked to be true, and the engine uses false."


def test_other_work_on_the_cores_is_flagged_and_recorded_for_each_iteration(doubtful: Launching) -> None:
    record = doubtful.record()
    flags = [flag for flag in record.validity if flag.code == "cpu_shared"]
    assert len(flags) == 1
    assert "% of its cores' time other processes used, most of it " in flags[0].sentence
    for iteration in record.iterations:
        assert iteration.host is not None
        assert iteration.host.other_cpu_share is not None
        # of a CPU there is its energy, where the kernel lets this user read it


def test_host_is_read_outside_the_timed_region(doubtful: Launching) -> None:
    for iteration in doubtful.record().iterations:
        assert iteration.host is not None
        assert iteration.elapsed_s < iteration.host.window_s


@pytest.mark.untimed
def test_sequences_that_lost_their_memory_and_were_computed_again_are_flagged(tmp_path: Path) -> None:
    # Eight prompts of a block each fit into ten blocks; eight sequences that have grown into a second do not.
    args = {**SETTINGS["engine"]["args"], "num_gpu_blocks_override": 10}
    spec = tiny_spec(engine={"args": args}, workload={"prompt_tokens": 100, "output_tokens": 60})
    launch = Launching(tmp_path, spec)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record = launch.record()
    sentences = [flag.sentence for flag in record.validity if flag.code == "preemptions"]
    assert len(sentences) == len(record.iterations)
    assert re.fullmatch(
        r"Iteration 1: \d+ preemptions; the KV cache does not hold all sequences at once\.", sentences[1]
    )
