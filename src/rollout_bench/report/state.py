"""Read the input of a summary, and decide whether the summary is still up to date.

This module is imported while the workflow is parsed, so it lists folders and opens one small file, but no record.
"""

import argparse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rollout_bench import __version__
from rollout_bench.contracts.forecasts import FORECASTS
from rollout_bench.contracts.store import find_results
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import read_json
from rollout_bench.core.places import newest_source
from rollout_bench.plan.planfile import PLAN, PlanFile, read_plan
from rollout_bench.plan.serving import Slo

if TYPE_CHECKING:
    from rollout_bench.analysis.timed.experiments import ResultSet

SUMMARY_FILES = ("summary.md", "summary.html", "summary.csv", "summary.txt")
"""Files of a summary, besides its state."""

STATE_FILE = "summary.json"
"""File with the input of the summary."""

SUMMARIES = "summaries"
"""Folder inside the results folder: the last summary and figures of each config, in a folder with its name.

The summary in the results folder itself is of the last run, whichever config it used.
"""

STATE_VERSION = 1
"""Increased when summaries of earlier versions must be made again."""

SOURCES = ("analysis", "report", "modes", "numbers", "commands/summarise.py")
"""Packages and modules that make a summary."""

LISTED = ("records", "sequences", "failures")
"""Files of launches that a summary is made from."""

INPUTS = (*LISTED, FORECASTS)
"""What a summary is made from."""

State = dict[str, Any]


def results_of(folder: Path) -> Path:
    """Return the results folder for `folder`: itself, or the folder around a summary that is kept in it.

    Raises:
        UserError: the folder has a summary and nothing that it was made from, so that a new one would be empty.
    """
    place = folder if folder.parent.name == SUMMARIES else folder.absolute()  # the current folder may be "."
    is_kept = place.parent.name == SUMMARIES and (place / STATE_FILE).is_file()
    # With records it is a results folder that happens to be in a folder of that name.
    found = find_results(place)
    if is_kept and not found.records:
        return place.parents[1]
    if (place / STATE_FILE).is_file() and not found.records and not found.failures:
        problem = f"{folder}: has a summary, but not the records that it was made from"
        raise UserError(problem, "open summary.html there; for a new summary, name the results folder or its pack")
    return folder


def summary_state(results: Path, plan: PlanFile | None) -> State:
    """Return the input of a summary of `results` under `plan`: the plan, and size and mtime_ns of each file."""
    found, forecast = find_results(results), results / FORECASTS
    return {
        "schema_version": STATE_VERSION,
        "plan": None if plan is None else plan.model_dump(mode="json"),
        **{part: {path: [file.size, file.mtime_ns] for path, file in getattr(found, part).items()} for part in LISTED},
        FORECASTS: forecast.stat().st_mtime_ns if forecast.exists() else None,
    }


def is_stale(results: Path, plan: PlanFile | None, *places: Path) -> bool:
    """Return whether the summary in one of `places` (default: `results`) must be made again.

    The reasons are a missing file of the summary, an added, removed or changed record, side file or failure, or another
    plan. A damaged record is a reason as well, so that each run reports it. Expected durations of launches do not
    matter.
    """
    now = summary_state(results, plan)
    return any(
        state is None
        or state.get("damaged")
        or any(state.get(part) != now[part] for part in INPUTS)
        or _essence(state.get("plan")) != _essence(now["plan"])
        for state in map(_state_in, places or (results,))
    )


def kept_answer(folder: Path, results: Path, plan: PlanFile | None) -> str | None:
    """Return what `show` prints of an up-to-date summary in `folder`; None without one by this version of the code."""
    state = _state_in(folder)
    if state is None or state.get("version") != __version__ or is_stale(results, plan, folder):
        return None
    answer, written = state.get("answer"), (folder / STATE_FILE).stat().st_mtime_ns
    is_current = isinstance(answer, str) and written > newest_source(*SOURCES).stat().st_mtime_ns
    return answer if is_current else None


def _state_in(folder: Path) -> State | None:
    """Return the input of the summary in `folder`; None if one of its files is missing or unreadable."""
    if not all((folder / name).is_file() for name in SUMMARY_FILES):
        return None
    try:
        state = read_json(folder / STATE_FILE, "")
    except UserError:
        return None
    return state if isinstance(state, dict) and state.get("schema_version") == STATE_VERSION else None


def plan_of_summary(folder: Path) -> PlanFile | None:
    """Return the plan of the summary in `folder`; None without a summary or a plan.

    Raises:
        UserError: the state file is not valid.
    """
    path = folder / STATE_FILE
    remedy = "ask for everything (--all), or move the file away"
    if not path.exists():
        return None
    state = read_json(path, remedy)
    if not isinstance(state, dict) or "plan" not in state:
        raise UserError(f"{path}: plan: is missing", remedy)
    try:
        return None if state["plan"] is None else PlanFile.model_validate(state["plan"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("plan", *first["loc"]))
        raise UserError(f"{path}: {where}: {first['msg']}", remedy) from None


def with_limits(collection: "ResultSet", results: Path, plan: PlanFile | None) -> "ResultSet":
    """Return `collection`, which without a plan has the limits of all summaries that are kept in `results`."""
    return collection if plan else replace(collection, slo=limits_of_all(results))


def limits_of_all(results: Path) -> Slo:
    """Return the limits of all summaries that are kept in `results`; none if they differ."""
    found: dict[str, Slo] = {}
    for folder in (results, *sorted((results / SUMMARIES).glob("*"))):
        with suppress(UserError):
            plan = plan_of_summary(folder)
            found |= {} if plan is None else {plan.slo.model_dump_json(): plan.slo}
    return next(iter(found.values())) if len(found) == 1 else Slo()


def _essence(plan: Any) -> Any:
    if not isinstance(plan, dict):
        return plan
    names = ("baseline", "comparison", "precision", "slo", "experiments", "skipped")
    parts = {name: plan.get(name) for name in names}
    # The number of devices does not affect any result.
    parts["experiments"] = [{**e, "devices": None} for e in parts["experiments"] or [] if isinstance(e, dict)]
    return parts


def add_results(parser: argparse.ArgumentParser) -> None:
    """Add RESULTS_DIR to `parser`."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="RESULTS_DIR",
        help=f"the results folder, wherever it lies, or one config's summary in it, RESULTS_DIR/{SUMMARIES}/NAME "
        "(default: %(default)s)",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add RESULTS_DIR, --plan and --all to `parser`."""
    add_results(parser)
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="plan file: which experiments and launches are selected "
        "(default: the plan of the summary in RESULTS_DIR, else of the last run there, if there is one)",
    )
    selection.add_argument(
        "--all", action="store_true", help="take every experiment that is found, whatever was planned"
    )


def selected_plan(arguments: argparse.Namespace) -> PlanFile | None:
    """Return the selected plan, None for everything.

    Raises:
        UserError: the plan cannot be read.
    """
    if arguments.all:
        return None
    if arguments.plan:
        return read_plan(arguments.plan)
    if not (arguments.results / STATE_FILE).exists():
        with suppress(UserError):  # none, or a damaged one
            return read_plan(arguments.results / PLAN)  # of a run that wrote no summary
    return plan_of_summary(arguments.results)
