"""Experiments whose blocks were disturbed, with the flags of their launches decided for each block whole."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.contracts.block_flags import Which, decided_flags, judged_flags
from rollout_bench.contracts.record import Flag, Record


def with_blocks_decided(
    experiments: Sequence[TimedExperiment], mates: Iterable[Record] = ()
) -> tuple[TimedExperiment, ...]:
    """Return `experiments` with the flags of `decided_flags`.

    `mates` are unselected records of the same blocks. With them, the decision does not depend on the selected launches.
    """
    decided = decided_flags(itertools.chain(*(experiment.records for experiment in experiments), mates))
    return tuple(replace(each, records=tuple(_with_flags(each.records, decided))) for each in experiments)


def _with_flags(records: Iterable[Record], decided: Mapping[Which, list[Flag]]) -> Iterable[Record]:
    records = list(records)
    for record, flags in zip(records, judged_flags(records, decided), strict=True):
        yield record if flags == record.validity else record.model_copy(update={"validity": flags})
