"""Make the plan of a Snakemake call from the merged config, with all checks that come before the first launch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rollout_bench.contracts.fields import AUTO
from rollout_bench.core.errors import UserError
from rollout_bench.core.places import CONFIG, CONFIGS, name_of, python_path, shipped
from rollout_bench.core.processor import emulates_bf16
from rollout_bench.measure.launch.progress import VIEW
from rollout_bench.measure.machine.gpus import Gpus
from rollout_bench.plan.checks import check_weights
from rollout_bench.plan.config import Config
from rollout_bench.plan.config_file import check_config_file, check_folder, check_metadata, read_config
from rollout_bench.plan.engine import InstalledEngine, probe_engine
from rollout_bench.plan.fit.memory import MachineMemory, check_fits, fit_lines
from rollout_bench.plan.interleaving import interleaving
from rollout_bench.plan.lines import changed_lines, gone_lines, joined_lines, reasons_line
from rollout_bench.plan.matrix import Matrix, automatic_model, expand
from rollout_bench.plan.remeasuring import (
    measured_with_other_files,
    of_unsound_blocks,
    scanned_records,
    with_partners,
)
from rollout_bench.plan.results_state import ResultsState, order_seed
from rollout_bench.plan.schedule import PLAN_FILE, RESULTS, Schedule, schedule
from rollout_bench.rules.arguments import load
from rollout_bench.rules.call import stopping
from rollout_bench.rules.device_slots import check_devices
from rollout_bench.rules.entries import as_entry, depth, proven
from rollout_bench.rules.rounds import wanted_launches


def default_config(files: Sequence[Path]) -> Path:
    """Return the config that the config files of a call are laid over.

    It is config.yaml of this folder. If there is none, the `files` are laid over the package's, as in a clone.
    """
    return shipped(CONFIG) if files else CONFIG


@stopping()
def check_call(is_job: bool, config: Path | None = CONFIG) -> None:
    """Stop Snakemake early if the default config, the output folders or Snakemake's metadata can't be used.

    Jobs can import this package from now on.

    Args:
        is_job: whether this is a job on a cluster. Jobs skip the check of the metadata, because the user's call has
            made it and it reads one file for each output.
        config: the default config; None if another workflow gives the config.
    """
    os.environ["PYTHONPATH"] = python_path()  # of jobs, whose Python need not have this package
    os.environ["PYTHONSAFEPATH"] = "1"  # a folder vllm/ or a file platform.py of the user's is no module of ours
    if is_job:
        os.environ.pop(VIEW, None)  # of the call that submitted it: the job's log has its progress
    for folder in (RESULTS, Path("logs")):
        check_folder(folder)
    if not is_job:
        check_metadata(Path(".snakemake") / "metadata")
    if config is not None:
        check_config_file(config)


@contextmanager
def _naming_source(given: Any) -> Iterator[None]:
    """Let an error of a config name the file that sets the value, or --config, where the call has such."""
    try:
        yield
    except UserError as error:
        place = error.problem.removeprefix("config: ")
        sources = [(name_of(file), load(file)) for file in given.configfiles] + [("--config", given.config)]
        depths = [depth(place, config) for _, config in sources]
        if place.startswith("nothing to measure") and given.configfiles:
            raise UserError(f"{sources[-2][0]}: {place}", error.remedy, error.status) from error
        if place == error.problem or not any(depths):
            raise
        last = max(index for index, depth in enumerate(depths) if depth == max(depths))
        name, remedy = sources[last][0], error.remedy
        values = given.config
        if place.startswith("settings:") and "sweep" in values and "settings" not in values:
            values = {**values, "settings": []}  # of another sweep
        is_of_call = name == "--config" or values is not given.config
        is_of_demo = Path(name).parent == CONFIGS and not Path(name).exists()
        if "is not defined" in place and CONFIG.exists() and is_of_demo and not is_of_call:
            remedy = f"{name} stands on the demo's {CONFIG}, and this folder has another: do it in an empty folder"
        if is_of_call:
            remedy = proven(as_entry(remedy, place, values), given.configfiles)
        raise UserError(f"{name}: {place}", remedy, error.status) from error


@stopping()
def plan_of_call(
    merged: Mapping[str, Any], given: Any, on_cluster: bool, *, is_main: bool, is_check: bool = False
) -> tuple[ResultsState, InstalledEngine]:
    """Return the results' state under the merged config, which has its plan, and the engine.

    An error stops Snakemake with two lines.

    Args:
        merged: the config.
        given: Snakemake's config settings: files besides the default config, and values of the command line.
        on_cluster: whether jobs are submitted to a cluster, or this process is such a job.
        is_main: whether this is the user's call and not one of its jobs. Only this call decides which records are
            measured again.
        is_check: whether to leave out the checks that `rollout-bench check` makes itself.
    """
    for file in given.configfiles:
        check_config_file(file)
    with _naming_source(given):
        return _plan_of_call(merged, given, on_cluster, is_main=is_main, is_check=is_check)


def _plan_of_call(
    merged: Mapping[str, Any], given: Any, on_cluster: bool, *, is_main: bool, is_check: bool
) -> tuple[ResultsState, InstalledEngine]:
    config = read_config(merged, given.config)
    if "quants" in given.config and not config.models:
        raise UserError(
            "--config quants: no engine is started here, and a server has the quantization that it was started with",
            f"leave it out; endpoints.{next(iter(config.endpoints), 'NAME')}.quant names the server's for the tables",
        )
    for file in given.configfiles:
        if key := next((key for key, value in load(file).items() if value == {} and merged.get(key)), None):
            raise UserError(
                f"{name_of(file)}: {key}: {{}} is laid over the keys of another file, and takes none back",
                f"write {key}: null, or leave it out",
            )
    engine = _engine_of(config, is_check=is_check)
    _refuse_automatic_model_elsewhere(config, on_cluster)
    matrix = expand(config, engine)
    is_measured_here = is_main and not on_cluster and engine.platform() == matrix.platform
    if is_measured_here and not is_check:
        _check_machine(config, matrix)
    device = _smallest_device(matrix, on_cluster)
    if is_measured_here or (is_main and matrix.platform != "cpu"):
        check_fits(matrix.experiments, device.memory_bytes, device.name)
    blocks = interleaving(config, matrix, _memory(config, device, on_cluster), on_cluster=on_cluster)
    plan = replace(schedule(config, matrix, order_seed(PLAN_FILE), blocks), on_cluster=on_cluster)
    plan = _with_notes(plan, given, device)
    return measured_again(ResultsState(plan)) if is_main else ResultsState(plan), engine


def _engine_of(config: Config, *, is_check: bool) -> InstalledEngine:
    """Return the engine of the config, which is needed only where launches start one."""
    starts_engines = bool(config.models) or not config.endpoints
    try:
        return probe_engine(config.engine.python, is_needed=starts_engines and not is_check)
    except UserError as error:
        raise UserError(f"config: {error.problem}" if config.engine.python else error.problem, error.remedy) from None


def _refuse_automatic_model_elsewhere(config: Config, on_cluster: bool) -> None:
    if on_cluster and config.models == [AUTO]:
        raise UserError(
            "models: auto chooses by this machine's processor, and -j and --executor run launches on others",
            "leave them out, or name the model: --config models=[qwen3-90m]",
        )


def _check_machine(config: Config, matrix: Matrix) -> None:
    """Raise `UserError` if this machine lacks weights of the experiments, or devices."""
    loaded = [(e.spec.model, e.model_path, e.spec.load_format) for e in matrix.experiments]
    check_weights(config, loaded)
    check_devices(config, matrix)


class _Device(NamedTuple):
    """The device with the least memory, in words, and this memory; None if unknown."""

    name: str
    memory_bytes: int | None


def _smallest_device(matrix: Matrix, on_cluster: bool) -> _Device:
    name, memory_bytes = Gpus().smallest() if matrix.platform == "cuda" and not on_cluster else (None, None)
    return _Device(f"one {name}", memory_bytes)


def _memory(config: Config, device: _Device, on_cluster: bool) -> MachineMemory:
    at_once = (config.devices or 1) if config.isolation == "per_device" else 1  # launches or blocks, on divided cores
    return MachineMemory(on_cluster, at_once, device.memory_bytes)


def _with_notes(plan: Schedule, given: Any, device: _Device) -> Schedule:
    """Return the plan with where its values come from, what fits the device, and why a model was chosen."""
    config, matrix, choice = plan.config, plan.matrix, ""
    if config.models == [AUTO] and matrix.platform == "cpu" and emulates_bf16():
        choice = f"this processor has no AVX-512 and emulates bf16, so the model is {automatic_model(matrix.platform)}"
    return replace(
        plan,
        files=tuple(map(name_of, given.configfiles)),
        overrides=tuple(override(key, value) for key, value in given.config.items()),
        fits=tuple(fit_lines(matrix.experiments, device.memory_bytes, device.name)),
        choice=choice,
    )


def override(key: str, value: object) -> str:
    """Return the word KEY=VALUE that gives this value after `--config`, as `value_of` reads it."""
    if value is None or isinstance(value, str | int | float):
        return f"{key}={'' if value is None else value}"
    # below a key Snakemake reads all values as texts
    flow = yaml.dump(value, Dumper=_AsTyped, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return f"{key}={flow.strip()}"


class _AsTyped(yaml.SafeDumper):
    """Writes texts that look like numbers without quotes."""


_AsTyped.yaml_implicit_resolvers = {}


def measured_again(state: ResultsState) -> ResultsState:
    """Return the state with the records to measure again.

    They are those whose model files have changed since, with those compared with them, and those of unsound blocks.
    """
    plan, scans = state.schedule, scanned_records(state)
    other_files = measured_with_other_files(state, scans)
    unsound = of_unsound_blocks(state, scans)
    changed = {record for records in other_files.values() for record in records}
    again = with_partners(state, changed) | unsound
    lines = [*changed_lines(state, other_files), *gone_lines(state, scans), *joined_lines(state, scans)]
    if again:
        lines.append(reasons_line(again, unsound))
    if plan.config.launches == "auto" and again:
        wanted = wanted_launches(state)
        again = {record for record in again if plan.by_record[record][1].index < wanted[Path(record).parent.name]}
    return replace(state, again=frozenset(again), changed=tuple(lines))
