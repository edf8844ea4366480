"""Blocks that other processes disturbed, judged for all launches of a block from all of their readings.

A share of a short time varies more. If each launch were judged by its own readings, launches with shorter iterations
would be dropped more often, and the remaining ones would be the lucky ones. In a block the engines alternate their
iterations, so all readings together cover nearly the whole time of its rounds. Only gaps between iterations are
missing: the next prompts, garbage collection, and starts of engines in groups. A disturbance therefore affects all
launches of the block equally, and excluding a block favours none of them. `docs/trust.md` lists the bias of each rule.

Launches that ran one after the other have no such readings, because starts of engines lie between their iterations.
They keep their own flags. Pooled readings would favour the launch with the shorter iterations even more: the launch
with the longer iterations would decide.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout_bench.analysis.timed.experiments import TimedExperiment
from rollout_bench.contracts.host_limits import HOST_LIMITS, Limit, LostTime, lost_time
from rollout_bench.contracts.record import Flag, HostUse, Record
from rollout_bench.core.mappings import grouped

Which = tuple[str, int]
"""A launch: the key of its experiment and its index."""


@dataclass(frozen=True)
class BlockLoss:
    """Loss of a block's launches with respect to one limit.

    `pooled` is over all launches together, `own` over each launch; launches without readings are missing from `own`.
    """

    limit: Limit
    pooled: LostTime
    own: Mapping[Which, LostTime]

    @property
    def spoilt(self) -> bool:
        """Whether all launches of the block are invalid."""
        return self.pooled.certain > self.limit.invalid or self.most.certain > self.limit.alone

    @property
    def most(self) -> LostTime:
        """The largest loss of a single launch."""
        return max(self.own.values(), key=lambda lost: lost.certain)

    def flag(self, record: Record) -> Flag | None:
        """Return the flag of a launch of the block; None if its loss is too small for one."""
        own = self.own.get(_which(record))
        if self.spoilt:
            return Flag(code=self.limit.code, severity="invalid", sentence=self._why_spoilt(own))
        if own is None or own.certain <= self.limit.warning:
            return None
        return Flag(code=self.limit.code, severity="warning", sentence=self._why_kept(own))

    def _why_spoilt(self, own: LostTime | None) -> str:
        if self.pooled.certain > self.limit.invalid:
            shares = f"all launches of its block were measured {self._lost(self.pooled, self.limit.invalid)}"
            shares += f"; {_percent(own.mean)} while it was itself" if own is not None else ""
        else:
            shares = f"one launch of its block was measured {self._lost(self.most, self.limit.alone)}"
            shares += f"; {_percent(self.pooled.mean)} while all were"
        return f"While {shares}. So no launch of the block counts."

    def _why_kept(self, own: LostTime) -> str:
        return (
            f"While it was measured {self._lost(own, self.limit.warning)}; "
            f"{_percent(self.pooled.mean)} while all launches of its block were, which counts up to "
            f"{100 * self.limit.invalid:.0f} %."
        )

    def _lost(self, lost: LostTime, allowed: float) -> str:
        who = f", most of it {lost.busiest}" if lost.busiest else ""
        return f"{_percent(lost.mean)} {self.limit.what}{who} (limit {100 * allowed:.0f} %)"


def _which(record: Record) -> Which:
    return record.key, record.launch


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def with_blocks_decided(
    experiments: Sequence[TimedExperiment], mates: Iterable[Record] = ()
) -> tuple[TimedExperiment, ...]:
    """Return `experiments` with the flags for host use by other processes decided anew for each block on a CPU.

    Either all launches of a block are invalid for a code of `HOST_LIMITS`, or none is. Launches above the warning
    limit get a warning. Host use by the block's other launches deliberately counts as use by others, because they
    should be idle. All other launches keep their flags: outside of blocks, on accelerators, of endpoints, or without
    readings. Flags with other codes are kept.

    `mates` are unselected records of the same blocks. With them, the decision does not depend on the selected launches.
    """
    blocks = grouped(
        (record.block.id, record)
        for record in itertools.chain(*(experiment.records for experiment in experiments), mates)
        if record.block is not None and is_decided_whole(record)
    )
    decided = {
        _which(record): flags
        for records in blocks.values()
        for record, flags in zip(records, _flags(records), strict=True)
    }
    return tuple(replace(each, records=tuple(_judged(each.records, decided))) for each in experiments)


def is_decided_whole(record: Record) -> bool:
    """Return whether disturbance by other processes is judged for the whole block of `record`."""
    return record.block is not None and record.spec.platform == "cpu" and record.spec.endpoint is None


def _judged(records: Iterable[Record], decided: Mapping[Which, list[Flag]]) -> Iterable[Record]:
    for record in records:
        flags = decided.get(_which(record), record.validity)
        yield record if flags == record.validity else record.model_copy(update={"validity": flags})


def _flags(records: Sequence[Record]) -> list[list[Flag]]:
    found = [list(record.validity) for record in records]
    for limit in HOST_LIMITS:
        loss = _loss(limit, records)
        for record, flags in zip(records, found, strict=True):
            if loss is not None and (loss.spoilt or _which(record) in loss.own):
                _put(flags, limit.code, loss.flag(record))
    return found


def _loss(limit: Limit, records: Sequence[Record]) -> BlockLoss | None:
    read = {_which(record): _readings(record) for record in records}
    own = {which: lost for which, hosts in read.items() if (lost := lost_time(limit, hosts)) is not None}
    pooled = lost_time(limit, [host for hosts in read.values() for host in hosts])
    return BlockLoss(limit, pooled, own) if pooled is not None else None


def _readings(record: Record) -> list[HostUse]:
    return [each.host for each in record.iterations if each.host is not None and not each.warmup]


def _put(flags: list[Flag], code: str, flag: Flag | None) -> None:
    """Replace the flag with this code by `flag`, or remove it if None; equivalent flags stay unchanged."""
    place = next((number for number, each in enumerate(flags) if each.code == code), None)
    if place is None:
        flags.extend([flag] if flag is not None else [])
    elif flag is None:
        del flags[place]
    elif flag.severity == "invalid" or flags[place].severity == "invalid":
        flags[place] = flag
