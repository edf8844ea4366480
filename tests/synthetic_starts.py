"""Records of starts for tests: any record with a course whose phases a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synthetic_records import make_record, make_spec

from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.starts import (
    CacheState,
    PhaseName,
    StartCourse,
    StartFormat,
    StartPhase,
    StartupSpec,
)


def start_spec(
    caches: CacheState = "cold",
    loads: StartFormat = "auto",
    setting: str | None = None,
) -> Spec:
    """Return the spec of a start."""
    startup = StartupSpec(caches=caches, load_formats=loads)
    named = setting or f"caches-{caches}"
    return make_spec(iterations=1).model_copy(update={"mode": "startup", "startup": startup, "setting": named})


COLD: dict[PhaseName, float] = {"process": 0.4, "import": 6.6, "config": 9.0, "inductor": 20.0, "first_token": 0.1}
"""Seconds of the phases of a made start."""


def start_record(
    spec: Spec,
    launch: int = 0,
    phases: Mapping[PhaseName, float] = COLD,
    rest_s: float = 0.1,
    flags: Sequence[Flag] = (),
    after_s: float | None = None,
) -> Record:
    """Return the record of a launch that went through `phases` one after the other."""
    record = make_record(spec, launch, rates=(100.0,), warmup_rates=(), flags=flags)
    at, passed = 0.0, []
    for name, seconds in phases.items():
        passed.append(StartPhase(name=name, began_s=at, ended_s=at + seconds, elapsed_s=seconds))
        at += seconds
    course = StartCourse(
        phases=passed,
        rest_s=rest_s,
        until_token_s=at + rest_s,
        after_s=after_s,
        weights_bytes=None if spec.startup is None or spec.startup.load_formats == "dummy" else 10**9,
        cache_files=0,
    )
    imported = phases.get("import", 1.0)
    startup = record.startup.model_copy(
        update={"import_s": imported, "init_s": at - imported - phases.get("process", 0.0), "course": course}
    )
    return record.model_copy(update={"startup": startup, "wall_s": at + rest_s + 60.0})
