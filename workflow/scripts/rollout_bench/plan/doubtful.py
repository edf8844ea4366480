"""Launches that are in doubt and are to be measured again, with those that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import present, read_launched
from rollout_bench.core.errors import UserError
from rollout_bench.plan.config import EARLIER_AXES, Config, Doubt
from rollout_bench.plan.schedule import RESULTS, Schedule

ASIDE = RESULTS / "aside"
"""Records that were measured again since, by the moment at which; nothing reads them."""


def measured_again(plan: Schedule) -> set[str]:
    """Return the records that `remeasure` asks for, of launches that are there.

    A launch that is in doubt, and with it those of its index that are compared with it: measured alone it would not
    have taken turns with them, and be no pair. A record that can't be read is told by the summary.
    """
    doubt = plan.config.remeasure
    if doubt is None:
        return set()
    there = present(launch.record for launch in plan.launches)
    compared: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    doubtful = []
    for launch in plan.launches:
        group = launch.index, _compared_with(launch.experiment.spec, plan.config)
        compared.setdefault(group, []).append(launch.record)
        if launch.record in there and _is_doubtful(Path(launch.record), launch.experiment.spec.mode, doubt):
            doubtful.append(group)
    return {record for group in doubtful for record in compared[group]} & there


def _compared_with(spec: Spec, config: Config) -> tuple[str, ...]:
    """Return the names that an experiment shares with all that it is compared with."""
    ((axis, _),) = config.baseline.named.items()
    names = {"mode": spec.mode, **spec.axes}
    return tuple(name for of, name in names.items() if of != axis or axis in EARLIER_AXES)


def _is_doubtful(path: Path, mode: str, doubt: Doubt) -> bool:
    try:
        record: Launched = read_launched(path, mode)
    except UserError:
        return False
    return bool(record.validity) if doubt == "flagged" else not record.valid


def set_aside(records: Iterable[str]) -> Path | None:
    """Move `records`, and what lies beside each of them, to a folder of their own; None where there are none.

    Raises:
        OSError: it can't be written.
    """
    folder = ASIDE / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    moved = False
    for record in map(Path, records):
        place = folder / record.parent.relative_to(RESULTS)
        place.mkdir(parents=True, exist_ok=True)
        # the record last: what was torn off by a kill is not taken for measured without its side files
        beside = [path for path in record.parent.glob(f"{record.stem}.*") if path != record]
        for path in (*beside, record):
            path.rename(place / path.name)
        moved = True
    return folder if moved else None
