"""What processes note while they start becomes phases that do not overlap and add up with what nothing explains."""

import logging
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_sequences
from synthetic_starts import start_record, start_spec

from rollout_bench.measure.launch.progress import Progress
from rollout_bench.measure.launch.protocol import Done, IterationDone, Ready
from rollout_bench.measure.launch.recorder import Given
from rollout_bench.measure.machine.readings import Surroundings
from rollout_bench.modes.startup.collector import Collector
from rollout_bench.modes.startup.events import StartSeen
from rollout_bench.modes.startup.notes import NOTES, StartNote, StartNotes, read_notes
from rollout_bench.modes.startup.phases import OVER, StartSpan, cache_flags, shared_out
from rollout_bench.modes.startup.record import PhaseName
from rollout_bench.modes.startup.settings import CacheState


def notes(*lines: tuple[float, str], pid: int = 1) -> list[StartNote]:
    return [StartNote(at=at, pid=pid, text=text) for at, text in lines]


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
def test_a_start_that_compiles_despite_warm_caches_is_flagged(
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
    progress = Progress(made.spec, 0, tmp_path / "launch-0.json", None)
    collecting = Collector(Given(made.spec, 0, progress, Surroundings("cpu", [{}], lambda: ([], set()))))
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
