"""Which blocks others' use of the machine spoilt: decided for all launches of a block from all of their readings.

A launch judged by its own readings only is dropped more often the shorter its passes are, because a share over a short
time varies more, and those that are left are the lucky ones. In a block the engines make their passes in turn, so all
readings together cover the whole time of its rounds but for what lies between two passes (the next prompts, collecting
garbage; starts where engines come in groups), and what they show hits all of its launches alike. Whether a block
counts then says nothing for or against one of its launches. `docs/trust.md` has how much each rule favours whom.

Launches that ran one after the other have no such reading: starts of engines lie between their passes. They keep what
they found out about themselves, since readings pooled over them would favour the launch with the shorter passes by far
more: the launch with the longer passes decides.
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
    """What the launches of a block lost of what one limit is for.

    `pooled` is over all of them together, `own` over each launch; of one without readings there is none.
    """

    limit: Limit
    pooled: LostTime
    own: Mapping[Which, LostTime]

    @property
    def spoilt(self) -> bool:
        """Whether none of the launches counts."""
        return self.pooled.certain > self.limit.invalid or self.most.certain > self.limit.alone

    @property
    def most(self) -> LostTime:
        """What the launch lost that lost most."""
        return max(self.own.values(), key=lambda lost: lost.certain)

    def flag(self, record: Record) -> Flag | None:
        """Return what there is to say of a launch of the block, None where it lost too little to be marked."""
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
    """Return `experiments` with the flags for others' use of the host decided anew for each block on a CPU.

    Of a block either all launches are invalid for a code of `HOST_LIMITS`, or none is, and those that lost more than
    the limit of warnings are marked. What its mates used counts as others' use in each launch's readings, on purpose:
    they are to be idle. Launches outside of blocks, on accelerators, of endpoints, or without readings keep their
    flags, and all flags of other codes are kept.

    `mates` are records of the same blocks that are not selected: what is read of a block does not depend on which of
    its launches a summary is of.
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
    """Put `flag` into the place of that with its code, or take that away; what says the same stays as it is."""
    place = next((number for number, each in enumerate(flags) if each.code == code), None)
    if place is None:
        flags.extend([flag] if flag is not None else [])
    elif flag is None:
        del flags[place]
    elif flag.severity == "invalid" or flags[place].severity == "invalid":
        flags[place] = flag
