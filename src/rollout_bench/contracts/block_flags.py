"""Blocks that other processes disturbed, judged for all launches of a block from all of their readings.

A share of a short time varies more. If each launch were judged by its own readings, launches with shorter iterations
would be dropped more often, and the remaining ones would be the lucky ones. In a block the engines alternate their
iterations, so all readings together cover nearly the whole time of its rounds. Only gaps between iterations are
missing: the next prompts and garbage collection. A disturbance therefore affects all launches of the block equally, and
excluding a block favours none of them. `docs/trust.md` lists the bias of each rule.

Launches that ran one after the other have no such readings, because starts of engines lie between their iterations.
They keep their own flags. Pooled readings would favour the launch with the shorter iterations even more: the launch
with the longer iterations would decide.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from rollout_bench.contracts.host_limits import HOST_LIMITS, Limit, LostTime, lost_time
from rollout_bench.contracts.record import Flag, Launched, Record
from rollout_bench.core.mappings import grouped

Which = tuple[str, int]
"""A launch: the key of its experiment and its index."""


def _flag(limit: Limit, pooled: LostTime, most: LostTime, own: LostTime | None) -> Flag | None:
    """Return the flag of a launch of a block; None if its loss is too small for one.

    Args:
        limit: the limit that the block is judged by.
        pooled: loss of all launches of the block together.
        most: largest loss of a single launch.
        own: loss of the launch; None without readings.
    """

    def loss_text(lost: LostTime, allowed: float) -> str:
        who = f", most of it {lost.busiest}" if lost.busiest else ""
        return f"{_percent(lost.mean)} {limit.what}{who} (limit {100 * allowed:.0f} %)"

    if pooled.certain > limit.invalid:
        itself = "" if own is None else f"; {_percent(own.mean)} while it was itself"
        shares = f"all launches of its block were measured {loss_text(pooled, limit.invalid)}{itself}"
    elif most.certain > limit.alone:
        one = f"one launch of its block was measured {loss_text(most, limit.alone)}"
        shares = f"{one}; {_percent(pooled.mean)} while all were"
    elif own is not None and own.certain > limit.warning:
        sentence = (
            f"While it was measured {loss_text(own, limit.warning)}; {_percent(pooled.mean)} while all launches of its "
            f"block were, which counts up to {100 * limit.invalid:.0f} %."
        )
        return Flag(code=limit.code, severity="warning", sentence=sentence)
    else:
        return None
    sentence = f"While {shares}. So no launch of the block counts."
    return Flag(code=limit.code, severity="invalid", sentence=sentence)


def _which(record: Launched) -> Which:
    return record.key, record.launch


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def decided_flags(records: Iterable[Record]) -> dict[Which, list[Flag]]:
    """Return the flags of launches among `records`, with host use by others decided anew for each block on a CPU.

    Either all launches of a block are invalid for a code of `HOST_LIMITS`, or none is. Launches above the warning
    limit get a warning. Host use by the block's other launches deliberately counts as use by others, because they
    should be idle. All other launches keep their flags, and are not in the result: outside of blocks, on accelerators,
    of endpoints. Flags with other codes, and of launches without readings, are kept.
    """
    blocks = grouped(
        (record.block.id, record) for record in records if record.block is not None and is_decided_whole(record)
    )
    return {_which(one): flags for of in blocks.values() for one, flags in zip(of, _flags(of), strict=True)}


def judged_flags(records: Iterable[Launched], decided: Mapping[Which, list[Flag]]) -> list[list[Flag]]:
    """Return the flags of each of `records`: those `decided` with its block, or its own."""
    return [decided.get(_which(record), record.validity) for record in records]


def judged_together(records: Sequence[Launched]) -> list[list[Flag]]:
    """Return the flags of each launch of a block, in any mode, as a summary has them."""
    return judged_flags(records, decided_flags(one for one in records if isinstance(one, Record)))


def is_decided_whole(record: Record) -> bool:
    """Return whether disturbance by other processes is judged for the whole block of `record`."""
    return record.block is not None and record.spec.platform == "cpu" and record.spec.endpoint is None


def _flags(records: Sequence[Record]) -> list[list[Flag]]:
    """Return the flags of the launches of a block, decided anew for each of `HOST_LIMITS` with readings."""
    flags_of = [list(record.validity) for record in records]
    for limit in HOST_LIMITS:
        read = [[i.host for i in each.iterations if i.host is not None and not i.warmup] for each in records]
        losses, pooled = (
            [lost_time(limit, hosts) for hosts in read],
            lost_time(limit, list(itertools.chain(*read))),
        )
        if pooled is None:
            continue
        most = max((lost for lost in losses if lost is not None), key=lambda lost: lost.certain)
        for lost, flags in zip(losses, flags_of, strict=True):
            flag = _flag(limit, pooled, most, lost)
            if lost is not None or flag is not None:
                _replace_flag(flags, limit.code, flag)
    return flags_of


def _replace_flag(flags: list[Flag], code: str, flag: Flag | None) -> None:
    """Replace the flag with this code by `flag`, or remove it if None; equivalent flags stay unchanged."""
    place = next((number for number, each in enumerate(flags) if each.code == code), None)
    if place is None:
        flags.extend([flag] if flag is not None else [])
    elif flag is None:
        del flags[place]
    elif flag.severity == "invalid" or flags[place].severity == "invalid":
        flags[place] = flag
