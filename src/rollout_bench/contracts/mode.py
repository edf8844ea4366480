"""A mode: its properties for plan, launch, analysis, report and rules, and its parts in the files of its folder.

Without pydantic: `rollout-bench --help` asks each mode for its sub-command.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

SEQUENCES, STEPS, TRACES = ".sequences.jsonl.gz", ".steps.jsonl.gz", ".traces"
"""Endings of names beside a record: side files with a row per sequence, or per step, and a folder of traces."""


@dataclass(frozen=True)
class Mode:
    """The work and the output of launches of one mode.

    Its folder has the same files as every mode's, as far as it needs them. Only the process that needs a file imports
    it: the engine's process the worker, the report's process the tables.

    - `settings`: `SECTION`, its section of the config, and `OWN`, the part of the spec that only it has
    - `record`: `ITERATION` and `STARTUP`, fields that only its iterations and its start have, as name -> model and
      description; or `RECORD`, a model of its own, and `ROWS`, the rows of its side file
    - `checks`: `PLANNING`, the `plan.planning.Planning` of its experiments
    - `worker`: `measure`, the job in the engine's process
    - `collector`: `Collector`, which makes the record from the events of that process
    - `hooks`: `HOOKS`, the `measure.launch.hooks.Hooks` on its processes
    - `numbers`: `NUMBERS`, and `columns_of`, their amounts in an iteration
    - `report`: `part_of`, its tables and notes, and without throughput `analyse`, what is found in its records
    - `figures`: `DRAWINGS`, its figures
    - `export`: `more_of`, what a benchmark report says of it
    - `command`: `COMMAND`, a sub-command

    Attributes:
        name: its name in configs and specs, and of its folder below results/.
        title: its measurement, in a few words.
        package: the folder with its files, as a module.
        page: its how-to page in docs/.
        example: an example config.
        side_files: endings of the files that a launch writes beside its record.
        generates: whether its records have tokens per second, so that experiments are compared by them.
        has_loads: whether requests arrive at a server as the workload sets, and are timed individually.
        passes: whether the workload is `repeated` as configured, runs `once` after its warm-up, or does not run (none).
        launches: number of launches of an experiment: as the config sets it, the `least` number for its auto, or one.
        data_parallel: a launch with several replicas measures all, measures one of them, or is refused.
        interleaves: whether compared engines may be alive simultaneously and alternate their iterations. Online is not
            interleaved, because a server that waits between two loads still has clients, timers and metrics of its own
            time window. A launch that traces a step once has no iterations to alternate.
        shares: whether launches leave the engine as it was, so that it can measure another workload afterwards.
        metrics: default metrics of comparisons; none for modes that compare otherwise.
        by_device: metric that comes first if compared experiments have unequal numbers of devices; empty for none.
        settings: key of the config that only this mode has; empty if there is none.
        figures: names of its figures.
    """

    name: str
    title: str
    package: str
    page: str
    example: str
    side_files: tuple[str, ...] = (SEQUENCES,)
    generates: bool = True
    has_loads: bool = False
    passes: Literal["repeated", "once", "none"] = "repeated"
    launches: Literal["config", "least", "one"] = "config"
    data_parallel: Literal["all", "one", "refused"] = "refused"
    interleaves: bool = False
    shares: bool = False
    metrics: tuple[str, ...] = ()
    by_device: str = ""
    settings: str = ""
    figures: tuple[str, ...] = ("throughput", "speedup", "settings", "iterations")

    def part(self, file: str, name: str, default: Any = None) -> Any:
        """Return `name` of a file of its folder; `default` without that file or name."""
        module = f"{self.package}.{file}"
        return getattr(import_module(module), name, default) if find_spec(module) else default
