"""Lines for people on a schedule and its results: what launches cost, and why some are measured again."""

from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime
from pathlib import Path

from rollout_bench.contracts.axes import name_of, with_setting
from rollout_bench.contracts.failures import RecordScan, has_failed
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import first_few, number, several
from rollout_bench.plan.planfile import Span
from rollout_bench.plan.results_state import ResultsState

FEW_S, SHORT_S = 360, 90
"""Seconds of devices from which on they are told as hours, and of a time below which it is told in seconds."""

LONG_MIN = 120
"""Minutes from which the time is given in hours."""


def cost_in_words(launches: Iterable[tuple[Span | None, int]], *, least: bool = False) -> str:
    """Return the time of launches in sequence; each is given by its span and its number of devices.

    `least`: the time is a lower limit.
    """
    low_s = high_s = device_s = 0.0
    is_open = False
    for span, devices in launches:
        if span is None:
            return "time unknown before one is measured; the run then tells what is left"
        shortest, longest = span
        is_open |= longest is None
        low_s += shortest
        high_s += longest or shortest
        device_s += (longest or shortest) * devices
    if is_open:
        return f"at least {_time(low_s)}, longer where requests arrive faster than they are answered"
    if low_s < high_s:
        (low, unit), (high, last) = _time(low_s).split(), _time(high_s).split()
        low = low if unit == last else f"{low} {unit}"
        return f"usually {low} to {high} {last}{', and more as is needed' if least else ''}"
    hours = f"; {number(device_s / 3600, 2)} device hours" if device_s >= FEW_S else ""
    return f"{'at least' if least else 'about'} {_time(low_s)}{hours}"


def _time(seconds: float) -> str:
    if seconds < SHORT_S:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{seconds / 60:.0f} min" if seconds / 60 < LONG_MIN else f"{number(seconds / 3600, 2)} h"


def cost_of(state: ResultsState, records: Iterable[str]) -> str:
    """Return in words the cost of measuring `records`."""
    return cost_in_words(state.spans(records), least=state.schedule.config.launches == "auto")


def changed_lines(state: ResultsState, changed: Mapping[str, Mapping[str, list[str]]]) -> Iterator[str]:
    """Yield a line for each model with its files that changed, and when, after launches were measured.

    `changed` is from `measured_with_other_files`.
    """
    for model, records in changed.items():
        names = list(dict.fromkeys(name for names in records.values() for name in names))
        files = [Path(model) / name for name in names]
        changed_s = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
        launches = f"{several(len(records), 'launch')} {'was' if len(records) == 1 else 'were'} measured"
        if changed_s <= max(state.path(record).stat().st_mtime for record in records):
            yield f"{first_few(files)}: not as when {launches}: measured again"
        else:
            when = datetime.fromtimestamp(changed_s, UTC)
            yield f"{first_few(files)} changed {when:%Y-%m-%d %H:%M} UTC, after {launches}: measured again"


def joined_lines(state: ResultsState, scans: Mapping[str, RecordScan]) -> Iterator[str]:
    """Yield a line for each interleaved group whose records are measured again because experiments joined it."""
    records = grouped((launch.experiment.name, launch.record) for launch in state.schedule.launches)
    for group in state.schedule.interleaving.groups:
        new = [e for e in group.members if not any(r in scans or has_failed(state.path(r)) for r in records[e.name])]
        found = [record for e in group.members for record in records[e.name] if record in scans]
        kept = [record for record in found if not scans[record].is_transient]  # others are measured again anyway
        if new and kept:
            names = first_few([with_setting(e.spec.quant.name, e.spec.axes["setting"]) for e in new])
            whole = cost_of(state, (record for e in group.members for record in records[e.name]))
            alone = cost_of(state, (record for e in new for record in records[e.name]))
            yield (
                f"{names}: to compare it with the others, engines alternate, so theirs too are measured again"
                f" ({several(len(kept), 'launch')}; {whole}); --config interleave=false keeps them, and gives"
                f" {names} numbers without a verdict ({alone})"
            )


def gone_lines(state: ResultsState, scans: Mapping[str, RecordScan]) -> Iterator[str]:
    """Yield a line for each load of a sweep whose server went away, and whose launch is therefore measured again."""
    names = {experiment.experiment: name_of(experiment) for experiment in state.schedule.experiments}
    launches = (launch for launch in state.schedule.launches if launch.record in scans)
    lost = ((names[each.experiment.name], load) for each in launches for load in scans[each.record].lost_loads)
    for name, load in dict.fromkeys(lost):
        yield f"{name}, {load}: the server went away: measured again, with all loads of its launch"


def reasons_line(again: Set[str], unsound: Set[str]) -> str:
    """Return how many records are measured `again`, and why: they belong to `unsound` blocks, or depend on files."""
    reasons = (
        (len(unsound), "of blocks with an invalid, a damaged or a missing one"),
        (len(again - unsound), "of models with other files now, or compared with such"),
    )
    why = "; ".join(f"{count:,d} {reason}" for count, reason in reasons if count)
    return f"measured again: {several(len(again), 'launch')}: {why}"
