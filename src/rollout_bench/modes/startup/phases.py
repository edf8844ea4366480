"""Turns the notes of a start into its phases, which do not overlap."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from rollout_bench.contracts.record import Flag
from rollout_bench.modes.startup.notes import StartNote
from rollout_bench.modes.startup.record import PhaseName, StartCourse, StartPhase
from rollout_bench.modes.startup.settings import CacheState


class StartSpan(NamedTuple):
    """A span of time on the monotonic clock, in seconds; other spans may lie inside it."""

    name: PhaseName
    began: float
    ended: float


OVER: tuple[PhaseName, ...] = (
    "cached_graphs",
    "dynamo",
    "inductor",
    "graph_capture",
    "weights",
    "model_build",
    "platform",
    "kv_cache",
    "memory_profiling",
    "first_token",
    "worker_start",
    "config",
    "engine_ready",
    "import",
    "process",
)
"""Overlapping time belongs to the first of these phases, so inner phases come before outer ones."""


def phases_between(spans: Iterable[StartSpan], began: float, ended: float) -> tuple[list[StartPhase], float]:
    """Return the phases between two times, by start time, and the seconds that belong to no phase."""
    inside = [(max(span.began, began), min(span.ended, ended), OVER.index(span.name)) for span in spans]
    inside = [each for each in inside if each[1] > each[0]]
    edges = sorted({began, ended, *(edge for first, last, _ in inside for edge in (first, last))})
    pieces_of: dict[int, list[tuple[float, float]]] = {}
    rest_s = 0.0
    for first, last in pairwise(edges):
        ranks = [rank for left, right, rank in inside if left <= first and last <= right]
        if ranks:
            pieces_of.setdefault(min(ranks), []).append((first, last))
        else:
            rest_s += last - first
    phases = [
        StartPhase(
            name=OVER[rank],
            began_s=pieces[0][0] - began,
            ended_s=pieces[-1][1] - began,
            elapsed_s=sum(last - first for first, last in pieces),
        )
        for rank, pieces in pieces_of.items()
    ]
    return sorted(phases, key=lambda phase: phase.began_s), rest_s


SECONDS = re.compile(r"(?:took|takes) ([0-9.]+) ?s\b")


def noted_spans(notes: Sequence[StartNote], config_ended: float, constructed: float) -> list[StartSpan]:
    """Return the spans that vLLM's notes describe.

    Args:
        notes: notes of all processes, by time.
        config_ended: time at which the front end had its configuration.
        constructed: time at which the front end had its engine.
    """
    notes = [note for note in notes if config_ended <= note.at <= constructed]
    first, last = partial(_first_time, notes), partial(_first_time, notes[::-1])
    loads = first(r"Starting to load model")
    if loads is None:  # vLLM 0.23's runner for GPUs only logs the end of loading, with its seconds
        loads = next((n.at - (_seconds(n) or 0.0) for n in notes if "Model loading took" in n.text), None)
    if loads is None:
        return []
    built = first(r"Initializing model took|Loading weights on", loads)
    weights = last(r"Initializing model took|Loading weights on") or loads
    profiles = first(r"Warming up model for the compilation", loads)
    read = last(r"Loading weights took|Loading weights on") or weights
    # The CPU runner does not log the end of loading. For an engine without compilation, the next line is the layout
    # of the KV cache, immediately afterwards.
    loaded = last(r"Model loading took") or profiles or first(r"KV cache layout", read)
    profiled = last(r"Warming up done|for KV cache on node|Available KV cache memory|Memory profiling takes")
    initialised, captured = last(r"init engine \("), last(r"Graph capturing finished")
    sized = first(r"KV cache size", profiled or loads)
    captures = None if sized is None else first(r"Capturing a cudagraph on", sized)
    if captured is not None:
        captures = captures or captured - (_seconds(next(n for n in notes if n.at == captured)) or 0.0)
    ends: dict[PhaseName, tuple[float | None, float | None]] = {
        "worker_start": (config_ended, loads),
        "model_build": (loads, built),
        # Starts at the first of two successive lines: on a busy machine the process may wait between them.
        "weights": (loads if built is None else built, loaded or read),
        "memory_profiling": (profiles or loaded or read, profiled),
        "graph_capture": (captures, captured),
        "kv_cache": (profiled, captures or initialised),
        "engine_ready": (captured or initialised, constructed),
    }
    spans = [
        StartSpan(name, began, ended)
        for name, (began, ended) in ends.items()
        if began is not None and ended is not None and ended > began
    ]
    return spans + _compile_spans(notes)


COMPILING: Mapping[str, PhaseName] = {
    "Directly load": "cached_graphs",
    "Dynamo bytecode transform time": "dynamo",
    "Compiling a graph for": "inductor",
}
"""Text of a log line with seconds -> phase of these seconds."""


def _compile_spans(notes: Sequence[StartNote]) -> list[StartSpan]:
    """Return the spans of compiling and of loading compiled graphs, for all processes.

    On a CPU vLLM only logs the start of compilation and the saving of the graphs, so Inductor's time includes Dynamo's.
    """
    spans: list[StartSpan] = []
    for process_notes in ([note for note in notes if note.pid == pid] for pid in {note.pid for note in notes}):
        find, whole = partial(_first_time, process_notes), None
        for before, note in pairwise(process_notes):
            if "Compiling model again" in note.text:  # the loaded artifact was unusable
                spans.append(StartSpan("cached_graphs", before.at, note.at))
            name = next((kind for line, kind in COMPILING.items() if line in note.text), None)
            seconds = _seconds(note)
            if name is not None and seconds is not None:
                spans.append(StartSpan(name, note.at - seconds, note.at))
            elif "torch.compile" in note.text and seconds is not None:
                whole = StartSpan("cached_graphs", note.at - seconds, note.at)
        if whole and find("Directly load AOT") and find("bytecode transform|the compiled graph") is None:
            spans.append(whole)  # no other line has the seconds of loading an artifact
        began, saved = find("Start compiling function"), find("saved AOT compiled function")
        if began is not None and saved is not None and find("Dynamo bytecode transform time") is None:
            spans.append(StartSpan("inductor", began, saved))
    return spans


def cache_flags(wanted: CacheState, course: StartCourse) -> list[Flag]:
    """Return a flag if caches should be warm but the start compiled without reading a graph from them."""
    compiled_s = course.phase_s("inductor")
    if wanted == "cold" or compiled_s is None or course.phase_s("cached_graphs") is not None:
        return []
    sentence = (
        f"caches: warm was asked for, and the engine compiled all the same: Inductor took {compiled_s:.1f} s, and no "
        f"compiled graph was read from the caches, which had {course.cache_files or 0} files."
    )
    return [Flag(code="caches_not_as_asked", severity="invalid", sentence=sentence)]


def _first_time(notes: Sequence[StartNote], pattern: str, since: float = 0.0) -> float | None:
    """Return the time of the first of `notes` with a pattern, from a given time on."""
    return next((note.at for note in notes if note.at >= since and re.search(pattern, note.text)), None)


def _seconds(note: StartNote) -> float | None:
    match = SECONDS.search(note.text) or re.search(r"(?:time:|finished in|GiB and) ([0-9.]+) s", note.text)
    return None if match is None else float(match[1])
