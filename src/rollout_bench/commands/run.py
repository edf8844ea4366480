"""Sub-commands with Snakemake's arguments: run the workflow, print its plan, check the machine, write a manifest."""

import argparse
import inspect
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rollout_bench.commands.groups import NAME, all_groups
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.options import Parser, completed_by
from rollout_bench.core.places import CONFIG, home

if TYPE_CHECKING:
    from rollout_bench.plan.engine import InstalledEngine
    from rollout_bench.plan.results_state import ResultsState

_TARGETS = """A target, which stands before --config and --configfile, is a file to make: results/summary.md by default,
with .html, .csv, .txt and .json beside it. Without one, all that is missing is measured.
"""
_ENDS = """Ctrl-C ends engines that run: their launches write nothing, results so far stay, and a summary is written.
The same command again measures what is missing.
"""

DEEP = "--deep"
"""Option of `check`, which Snakemake does not have."""


def run(argv: Sequence[str]) -> NoReturn:
    """Measure missing launches, then write summary and figures; or make the targets that the arguments name."""
    _check_call("run", argv, run.__doc__)
    from rollout_bench.rules.arguments import with_shipped
    from rollout_bench.rules.checks import check_words

    check_words(argv)
    here = next(path for path in (Path(".snakemake"), Path()) if path.exists())
    if not os.access(here, os.W_OK | os.X_OK):
        raise UserError(
            f"{here.absolute()}: cannot be written, and a run has its state there", "work in another folder"
        )
    ours: list[str] = []
    if not Path("Snakefile").exists() and not {"-s", "--snakefile"} & set(argv):
        ours = ["--snakefile", str(home() / "workflow" / "Snakefile")]
        ours += ["--workflow-profile", str(home() / "profiles" / "default")]
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *ours, *with_shipped(argv)])


def plan(argv: Sequence[str]) -> int:
    """Print launches done, under way and missing, skipped combinations with reasons, and the minutes left."""
    _, made, engine = planned_call("plan", argv, plan.__doc__)
    # Not earlier: --help need not wait for these.
    from rollout_bench.commands.plan import show, shown_file, still_wanted
    from rollout_bench.plan.schedule import RESULTS
    from rollout_bench.rules.run import keep_plan, problems_here

    keep_plan(made)
    show(still_wanted(shown_file(made), RESULTS), RESULTS)
    for problem in problems_here(made, engine):  # with which `rollout-bench run` ends
        print(f"problem here: {problem}")
    return 0


def check(argv: Sequence[str]) -> int:
    """Print the facts for a bug report, and a fix for each problem; exit status 1 if there is a problem."""
    is_deep = DEEP in argv
    merged, state, engine = planned_call("check", [word for word in argv if word != DEEP], check.__doc__)
    from rollout_bench.contracts.engine_memory import utilization  # not earlier: --help need not wait for it

    made = state.schedule
    models = dict.fromkeys(
        (
            "synthetic" if e.checkpoint else "hub" if e.spec.model.is_on_hub else e.spec.load_format,
            f"{e.spec.model.name}/{e.spec.quant.name}",
            e.model_path,
            e.spec.model.weights or "",
        )
        for e in made.matrix.experiments
        if e.spec.endpoint is None
    )
    words = [word for model in models for word in ("--model", *model)]
    asked = dict.fromkeys(e.spec.endpoint.model_dump_json() for e in made.matrix.experiments if e.spec.endpoint)
    words += [word for endpoint in asked for word in ("--endpoint", endpoint)]
    engines = [e.spec for e in made.matrix.experiments if e.spec.endpoint is None]
    share = max(map(utilization, engines), default=0.0) if made.matrix.platform == "cuda" else 0.0
    words += ["--memory-share", str(share)]
    if not engine.name and engine.python != sys.executable:  # it may lack what check imports
        from rollout_bench.plan.engine import probe_engine

        probe_engine(engine.python)
    words = ["-m", "rollout_bench.commands.check", "--platform", made.matrix.platform, *words]
    if not is_deep:
        os.execvp(engine.python, [engine.python, *words])
    if not engines:
        raise UserError(
            f"{DEEP} proves an engine that is started here, and all of this config are at endpoints",
            "leave out --deep, or endpoints",
        )
    from rollout_bench.commands import deep

    facts = subprocess.run([engine.python, *words], stdout=subprocess.PIPE, text=True, check=False)
    print(facts.stdout, end="")
    return deep.check(made.matrix.platform, merged.get("engine") or {}, engine, facts.stdout) or facts.returncode


def kubernetes(argv: Sequence[str]) -> int:
    """Write the Kubernetes Job that measures the config to results/kubernetes.yaml, for `kubectl apply`."""
    merged, state, _ = planned_call("kubernetes", argv, kubernetes.__doc__)
    # Not earlier: --help need not wait for these.
    from rollout_bench.cluster.kubernetes import manifest
    from rollout_bench.plan.schedule import RESULTS

    made = state.schedule
    out = RESULTS / "kubernetes.yaml"
    write_whole(out, manifest(made.matrix.experiments, made.matrix.platform, made.config, merged).encode())
    print(f"next: kubectl apply -f {out}")
    return 0


def _check_call(command: str, argv: Sequence[str], purpose: str | None) -> None:
    """Print help if it is asked for; raise `UserError` if Snakemake is not installed."""
    if {"-h", "--help"} & set(argv):
        _parser(command, purpose).parse_args(["--help"])  # ends here
    if find_spec("snakemake") is None:
        raise UserError(
            f"{sys.executable} has no Snakemake",
            "install rollout-bench with its dependencies, or call .venv/bin/rollout-bench of a clone",
        )


def _parser(command: str, purpose: str | None) -> Parser:
    """Return a parser that prints the common arguments of `snakemake`; Snakemake itself reads them."""
    measures = command == "run"
    examples = [example for group in all_groups().values() for name, (*_, example) in group.items() if name == command]
    called = "This calls `snakemake` with the same arguments" if measures else "The arguments are those of `snakemake`"
    status = "0, or 1 on an error"
    if measures:
        status = "0 when all is measured, 1 when a launch failed or on an error, 130 after Ctrl-C, 143 after SIGTERM"
    elif command == "check":
        status = "0, or 1 on a problem, an error, or a proof that does not hold"
    notes = [_TARGETS, _ENDS] if measures else []
    parser = Parser(
        prog=f"{NAME} {command}",
        usage="%(prog)s [ARGUMENT ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{inspect.cleandoc(purpose or '')}\n\n{called}, whose --help has the others. Run it in the folder "
        "of config.yaml.",
        epilog="\n".join(
            [f"example:\n  {NAME} {example}" for example in examples] + ["", *notes, f"Exit status: {status}."]
        ),
    )
    parser.add_argument("--configfile", nargs="+", metavar="FILE", help="config files, each laid over the one before")
    values = parser.add_argument(
        "--config",
        nargs="+",
        metavar="KEY=VALUE",
        help="values laid over all files, such as launches=6; quote one that has a space: 'quants=[bf16, w8a8]'; "
        f"`{NAME} keys` lists the keys",
    )
    completed_by(values, _beginnings)
    if command == "check":
        parser.add_argument(
            DEEP,
            action="store_true",
            help="also measure a tiny model for about a minute and prove the numbers: one configuration twice, tokens "
            "by vLLM's own metrics, time by CLOCK_MONOTONIC_RAW, the engine's code, its weights; writes "
            "rollout-bench-check.json; not of running servers, which others start",
        )
    if measures:
        parser.add_argument("-n", "--dry-run", action="store_true", help="list the jobs and run none")
        parser.add_argument("--cores", metavar="N", help="cores of all jobs (default: 1)")
    return parser


def _beginnings() -> list[str]:
    from rollout_bench.plan.config import Config  # --help need not wait for it

    return [f"{key}=" for key in Config.model_fields]


def planned_call(
    command: str, argv: Sequence[str], purpose: str | None
) -> tuple[Mapping[str, Any], "ResultsState", "InstalledEngine"]:
    """Return the merged config, the state of its results and the engine, as `snakemake` would find them."""
    _check_call(command, argv, purpose)
    from snakemake.exceptions import CliException, WorkflowError
    from snakemake.utils import update_config

    from rollout_bench.plan.config_file import with_null
    from rollout_bench.rules.arguments import load, read_call
    from rollout_bench.rules.checks import check_words
    from rollout_bench.rules.planned import check_call, default_config, plan_of_call

    check_words(argv)
    try:
        call = read_call(argv)
        given = call.merged()
    except (CliException, WorkflowError, ValueError, OSError) as error:
        raise UserError(str(error), "mend the arguments; `snakemake --help` lists them") from None
    os.chdir(call.directory)
    default = None if call.alone else default_config(call.configfiles)
    check_call(is_job=False, config=default)
    merged = {} if default is None else load(default)
    below = sorted(merged.keys() - given.keys())
    update_config(merged, given)
    merged = with_null(merged, call.config)
    planned = plan_of_call(merged, call, call.jobs, is_main=True, is_check=command == "check")
    if below and call.configfiles and default == CONFIG:
        over = ", ".join(file.name for file in call.configfiles)
        print(f"{over}: the other keys are those of config.yaml: {', '.join(below)}")
        if {"models", "modes", "quants", "workloads"} <= given.keys():  # a config of its own, as from-verl's
            print("  -> --replace-workflow-config leaves them out")
    return merged, *planned
