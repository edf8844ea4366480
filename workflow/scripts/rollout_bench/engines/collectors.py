"""Which collector a mode has, and the folder that traces are in until their record is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout_bench.engines.measurement import Measurement
from rollout_bench.engines.operators_collecting import OperatorsCollecting
from rollout_bench.engines.profile_collecting import ProfileCollecting
from rollout_bench.engines.progress import Progress
from rollout_bench.engines.read_ahead import ReadAhead
from rollout_bench.engines.surroundings import Surroundings
from rollout_bench.plan.spec import Spec
from rollout_bench.records.store import traces_path

Collector = Measurement | ProfileCollecting | OperatorsCollecting


def collector(
    spec: Spec,
    launch: int,
    progress: Progress,
    surroundings: Surroundings,
    read_ahead: ReadAhead,
    traces: Path | None,
) -> Collector:
    """What collects the events of a launch, and writes its record; `traces` is from `folder_for_traces`."""
    if traces is not None:
        return ProfileCollecting(spec, launch, progress, surroundings, read_ahead, traces)
    if spec.operators is not None:
        return OperatorsCollecting(spec, launch, progress, surroundings, read_ahead)
    return Measurement(spec, launch, progress, surroundings, read_ahead)


@contextmanager
def folder_for_traces(spec: Spec, record: Path) -> Iterator[Path | None]:
    """An empty folder beside `record`, gone afterwards unless it was renamed; None where the mode has no traces.

    It is on the file system of the results, so that traces come to their place whole, by a rename.
    """
    if spec.profile is None:
        yield None
        return
    final = traces_path(record)
    folder = final.with_name(f".{final.name}.unfinished").absolute()
    shutil.rmtree(folder, ignore_errors=True)  # of a launch that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
