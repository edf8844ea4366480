"""Launches that are in doubt and are to be measured again, with those that they are compared with."""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import UTC, datetime
from pathlib import Path

from rollout_bench.contracts.postmortem import state_of
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import present
from rollout_bench.plan.config import Config
from rollout_bench.plan.schedule import RESULTS, Schedule

ASIDE = RESULTS / "aside"
"""Records that were measured again since, by the moment at which; nothing reads them."""


def measured_again(plan: Schedule, doubtful: Container[str]) -> set[str]:
    """Return the records that are there and are to be measured again, where those in `doubtful` are.

    With a launch that is in doubt go those of its index that are compared with it: measured alone it would not have
    taken turns with them, and be no pair.
    """
    there = present(launch.record for launch in plan.launches)
    compared: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    groups = []
    for launch in plan.launches:
        group = launch.index, _compared_with(launch.experiment.spec, plan.config)
        compared.setdefault(group, []).append(launch.record)
        if launch.record in doubtful:
            groups.append(group)
    return {record for group in groups for record in compared[group]} & there


def _compared_with(spec: Spec, config: Config) -> tuple[str, ...]:
    """Return the names that an experiment shares with all that it is compared with."""
    names = {"mode": spec.mode, **spec.axes}
    return tuple(name for of, name in names.items() if of not in config.baseline.named)


def in_torn_blocks(plan: Schedule) -> set[str]:
    """Return records of blocks that lack others: measured now, these would be no pair with those that are there.

    What has failed is no reason to measure the others again, and what has lost a race is not lacking.
    """
    if plan.config.launches == "auto" and plan.config.precision.race:
        return set()
    found: set[str] = set()
    for group in plan.interleaving.groups:
        members = {(experiment.spec.mode, experiment.name) for experiment in group.members}
        blocks: dict[int, dict[str, str]] = {}
        for launch in plan.launches:
            if (launch.experiment.spec.mode, launch.experiment.name) in members:
                blocks.setdefault(launch.index, {})[launch.record] = state_of(Path(launch.record))
        for states in blocks.values():
            if "missing" in states.values():
                found |= {record for record, state in states.items() if state == "measured"}
    return found


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


def moved_since(plan: Path) -> set[str]:
    """Return the records that were set aside since the plan file `plan` was written: those of the run that wrote it."""
    try:
        began_ns = plan.stat().st_mtime_ns
        folders = [folder for folder in ASIDE.iterdir() if folder.stat().st_mtime_ns >= began_ns]
    except OSError:  # nothing was ever set aside, or planned
        return set()
    return {str(RESULTS / path.relative_to(folder)) for folder in folders for path in folder.glob("*/*/launch-*.json")}
