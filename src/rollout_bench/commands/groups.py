"""The sub-commands: what a user wants to do, with purpose, example and place of each."""

NAME = "rollout-bench"

GROUPS = {
    "measure": {
        "init": (
            "init:main",
            "write a config.yaml: a demo, or one for your trainer, server or llm-d's profile",
            "init",
        ),
        "demo": (
            "demo:main",
            "measure a small model on this machine's CPU with an engine that is installed here",
            "demo",
        ),
        "keys": ("keys:main", "print the keys of a config, and what each takes", "keys slo"),
        "check": ("run:check", "print the facts for a bug report, and a fix for each problem", "check --deep"),
        "plan": (
            "run:plan",
            "print launches done, under way and missing, skipped combinations, and the time left",
            "plan --configfile mine.yaml",
        ),
        "run": (
            "run:run",
            "measure missing launches, then write summary and figures",
            "run --configfile mine.yaml",
        ),
        "kubernetes": (
            "run:kubernetes",
            "write the Kubernetes Job that measures a config",
            "kubernetes --configfile mine.yaml",
        ),
    },
    "read": {
        "show": ("show:main", "print the answer of a results folder again, or any of its tables", "show"),
        "summarise": ("summarise:main", "make the summary of a results folder, also of a copy", "summarise results"),
        "completion": ("completion:main", "print what makes bash or zsh complete commands", "completion >> ~/.bashrc"),
    },
    "convert": {
        "from-verl": (
            "trainers:from_verl",
            "make a config from verl's settings",
            "from-verl training.yaml > mine.yaml",
        ),
        "from-trl": (
            "trainers:from_trl",
            "make a config from TRL's settings",
            "from-trl grpo.yaml num_processes=8 max_prompt_length=512 > mine.yaml",
        ),
        "export": (
            "export:main",
            "write results as llm-d's Benchmark Reports",
            "export results --format benchmark-report --out reports",
        ),
    },
    "compare": {
        "compare": (
            "compare:main",
            "compare two results folders, also as a gate for builds",
            "compare baseline.tar.xz results --fail-if default",
        ),
        "history": (
            "history:main",
            "print and draw the gates that compare --history kept",
            "history gates.jsonl --out drawn",
        ),
    },
    "share": {
        "table": (
            "table:main",
            "print the tokens per second of several results or machines, without names of machines",
            "table results theirs.csv --out shared",
        ),
        "pack": (
            "pack:main",
            "make one small file of a results folder, which compare reads in its place",
            "pack results --out baseline.tar.xz",
        ),
        "collect": (
            "collect:main",
            "copy records from a cluster's volume into the local results",
            "collect /mnt/bench",
        ),
        "kit": (
            "kit:main",
            "measure on a machine without a network: make what it needs, and one file to bring back",
            "kit pack kit --platform cuda --python 3.12",
        ),
    },
}
"""What a user wants to do -> sub-command -> module:function, purpose and an example.

A module without a dot is one of `rollout_bench.commands`.
"""

INTERNAL = {"measure": "measure:main", "build": "build:main"}
"""Sub-command of the workflow's jobs -> module:function."""

_SERVER = f"{NAME} init --from endpoint URL: it measures a server that `vllm serve MODEL` started"
_PLAN, _RUN, _SHOW = f"{NAME} plan: it measures nothing", f"{NAME} run", f"{NAME} show"
_AGAIN = f"{_RUN}: it keeps what is measured; to measure all again, move results/ away"
_EXAMPLE = f"{NAME} init --from example NAME: config/README.md lists them"

OTHERS = {
    **dict.fromkeys(("bench", "benchmark", "continue", "latency", "launch", "resume", "start", "throughput"), _RUN),
    "gate": f"{NAME} compare BASELINE results --fail-if default",
    "profile": f"{_RUN} --config 'modes=[profile]'",
    **dict.fromkeys(("clean", "rerun", "reset"), _AGAIN),
    **dict.fromkeys(("endpoint", "server", "serve", "vllm"), _SERVER),
    **dict.fromkeys(("config", "configure", "create", "new", "setup"), f"{NAME} init"),
    **dict.fromkeys(("dryrun", "list", "ls", "progress", "ps", "status"), _PLAN),
    **dict.fromkeys(("doctor", "env", "info", "test", "validate", "verify"), f"{NAME} check"),
    **dict.fromkeys(("plot", "print", "report", "result", "results"), _SHOW),
    **dict.fromkeys(("example", "examples", "template"), _EXAMPLE),
    "help": f"{NAME} --help",
    "llmd": f"{NAME} init --from llm-d URL: inference-perf/sanity_random against a server",
    "quickstart": f"{NAME} demo",
    "summary": f"{NAME} summarise results",
    "summarize": f"{NAME} summarise results",
    "version": f"{NAME} --version",
}
"""What other programs call a command -> the command here."""

COMMANDS = {**INTERNAL, **{name: place for group in GROUPS.values() for name, (place, _, _) in group.items()}}


def all_groups() -> dict[str, dict[str, tuple[str, str, str]]]:
    """Return `GROUPS` with the commands of the modes, which read; their modules are found when they are needed."""
    from rollout_bench.contracts.modes import MODES

    of_modes = [command for mode in MODES.values() if mode.commands for command in mode.commands.get()]
    return {
        **GROUPS,
        "read": {**GROUPS["read"], **{name: (place, purpose, example) for name, place, purpose, example in of_modes}},
    }
