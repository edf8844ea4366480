"""Which records are measured again: those of unsound blocks, and those of models whose files have changed since."""

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rollout_bench.contracts.axes import AXES, names_of
from rollout_bench.contracts.block_flags import judged_together
from rollout_bench.contracts.failures import RecordScan, are_transient, deciding_codes, has_failed, scan_record
from rollout_bench.contracts.record import Launched
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED
from rollout_bench.contracts.store import read_launched, record_path
from rollout_bench.core.errors import UserError
from rollout_bench.core.mappings import grouped
from rollout_bench.core.model_files import NAMING, differing_files, model_files
from rollout_bench.plan.planfile import PLAN
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import RESULTS

ASIDE = "aside"
"""Records that were measured again since, by the time of the move; no command reads them."""


def scanned_records(state: ResultsState) -> dict[str, RecordScan]:
    """Return the facts in each existing record of the schedule; launches of a block are judged together."""
    found = {launch.record: scan_record(state.path(launch.record)) for launch in state.schedule.launches}
    scans = {record: scan for record, scan in found.items() if scan is not None}
    for block in state.schedule.blocks:
        modes = {each.record: each.experiment.spec.mode for each in block.launches if each.record in scans}
        if any(scans[record].is_transient for record in modes):
            scans |= _judged_together(state, scans, modes)
    return scans


def _judged_together(
    state: ResultsState, scans: Mapping[str, RecordScan], modes: Mapping[str, str]
) -> dict[str, RecordScan]:
    """Return the facts in the undamaged records of a block, which `modes` has, judged as a summary judges them."""
    made: dict[str, Launched] = {}
    for record, mode in modes.items():
        with suppress(UserError):
            made[record] = read_launched(state.path(record), mode)
    return {
        record: replace(scans[record], is_transient=are_transient(deciding_codes(flags)))
        for record, flags in zip(made, judged_together([*made.values()]), strict=True)
    }


def with_partners(state: ResultsState, doubtful: Container[str]) -> set[str]:
    """Return the existing records that are measured again with those in `doubtful`.

    These are the launches of the same index that are compared with them: launches that are measured far apart form no
    pair.
    """
    baseline = state.schedule.config.baseline.axes
    groups = grouped(
        (
            (index, e.mode, *(name for axis, name in zip(AXES, names_of(e), strict=True) if axis not in baseline)),
            str(record_path(RESULTS, e.mode, e.experiment, index)),
        )
        for e in state.schedule.experiments
        for index in range(e.launches)
    )
    in_doubt = (records for records in groups.values() if any(record in doubtful for record in records))
    return {record for records in in_doubt for record in records if state.exists(record)}


def of_unsound_blocks(state: ResultsState, scans: Mapping[str, RecordScan]) -> set[str]:
    """Return the existing records of blocks that are measured again whole; `scans` are from `scanned_records`.

    These are blocks with an invalid or a damaged record, with a missing one, and with records of several blocks. A
    launch that is measured alone is not interleaved with the others, so it forms no pair with them. A failed launch,
    and the later launches of its experiment, are not missing: they would fail again. Once they are measured, the next
    call measures their blocks whole.
    """
    found: set[str] = set()
    for block in state.schedule.blocks:
        records = {launch.record for launch in block.launches}
        block_scans = {record: scans[record] for record in records & scans.keys()}
        lost = block_scans and any(not has_failed(state.path(record)) for record in records - block_scans.keys())
        mixed = len(block_scans) == len(records) and len({scan.block for scan in block_scans.values()}) > 1
        if lost or mixed or any(scan.is_transient for scan in block_scans.values()):
            found |= block_scans.keys()
    return found


def measured_with_other_files(
    state: ResultsState, scans: Mapping[str, RecordScan]
) -> Mapping[str, Mapping[str, list[str]]]:
    """Return the names of files that have changed since a launch was measured: model's folder -> record -> names.

    `scans` are from `scanned_records`. Models that are not on this machine are not checked.
    """
    now: dict[str, dict[str, str]] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for launch in state.schedule.launches:
        if launch.record not in scans or not (then := scans[launch.record].model_files):
            continue
        model, spec = launch.experiment.model_path, launch.experiment.spec
        weights = spec.load_format not in NO_WEIGHTS_NEEDED
        loaded = f"{model} {weights} {[spec.engine.args.get(name) for name in NAMING]}"
        if loaded not in now:
            now[loaded] = model_files(model, spec.engine.args, weights=weights)
        if now[loaded] and (names := differing_files(then, now[loaded])):
            found.setdefault(model, {})[launch.record] = names
    return found


def set_aside(records: Iterable[Path], results: Path) -> Path | None:
    """Move `records` in `results` and their side files to a separate folder; return it, or None without records.

    Raises:
        OSError: the folder is not writable.
    """
    folder = results / ASIDE / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    moved = False
    for record in records:
        place = folder / record.parent.relative_to(results)
        place.mkdir(parents=True, exist_ok=True)
        # the record last: after a kill, a record without its side files must not remain
        beside = [path for path in record.parent.glob(f"{record.stem}.*") if path != record]
        for path in (*beside, record):
            path.rename(place / path.name)
        moved = True
    return folder if moved else None


def moved_in_this_run(results: Path) -> set[str]:
    """Return the records of `results` that were set aside since its plan file was written, so by the run that did."""
    try:
        began_ns = (results / PLAN).stat().st_mtime_ns
        folders = [folder for folder in (results / ASIDE).iterdir() if folder.stat().st_mtime_ns >= began_ns]
    except OSError:  # no records were ever set aside, or no plan exists
        return set()
    return {str(RESULTS / path.relative_to(folder)) for folder in folders for path in folder.glob("*/*/launch-*.json")}
