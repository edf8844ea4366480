"""The commands of the documentation do what it says, as far as no engine is needed: planned here, in process."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docs_pages import REPOSITORY, Command, blocks, commands, named_configs, pages
from snakemake.cli import get_argument_parser, parse_config
from snakemake.utils import update_config
from training_runs import ROLLOUT, VERL

from rollout_bench.plan.schedule import Schedule
from rollout_bench.rules.planned import plan_of_call

TARGETS = {"plan", "check", "kubernetes", "results/summary.md"}

DRY = {"-n", "--dry-run"}

INFORMATION = {"--list-rules", "--report", "--lint"}
"""Options with which Snakemake runs nothing anyway."""


def planned(page: Path) -> list[Command]:
    """Return the distinct commands of a page that plan something."""
    found = {
        tuple(word for word in command.words if word not in DRY): command for command in commands(page, "snakemake")
    }
    return [command for words, command in found.items() if not set(words) & INFORMATION]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the project's configs, in which this process works and `snakemake` seems to be called."""
    (tmp_path / "config").symlink_to(REPOSITORY / "config")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["snakemake"])
    return tmp_path


def plan_of(words: tuple[str, ...]) -> Schedule:
    """Return what a call of snakemake with these words plans, merged as Snakemake merges."""
    asked = get_argument_parser().parse_args(list(words))
    assert set(asked.targets) <= TARGETS
    given = SimpleNamespace(configfiles=asked.configfile or [], config=parse_config(asked.config))
    merged = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    for settings in (*(yaml.safe_load(Path(file).read_text()) for file in given.configfiles), given.config):
        update_config(merged, settings)
    return plan_of_call(merged, given, on_cluster=False, is_main=True)[0].schedule


def printed(folder: Path, *words: str) -> str:
    """Return what `rollout-bench` prints in the folder."""
    command = [sys.executable, "-m", "rollout_bench", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_configs(folder: Path, page: Path) -> dict[str, str]:
    """Return the configs that a page's commands make from a trainer's files on that page: file name -> content."""
    for block in blocks(page, "text"):
        if named := re.match(r"# (\S+\.yaml)\n", block.text):
            (folder / named[1]).write_text(block.text)
    calls = [
        command.words for command in commands(page, "rollout-bench") if not {"--lengths", "--log"} & {*command.words}
    ]
    calls = [words for words in calls if words[1] in ("from-verl", "from-trl") and (folder / words[2]).exists()]
    return {words[-1]: printed(folder, *words[1:-2]) for words in calls}


@pytest.mark.parametrize("page", [page for page in pages() if planned(page)], ids=lambda page: page.stem)
def test_the_snakemake_commands_of_a_page_can_be_planned(folder: Path, page: Path):
    shown = {**named_configs(page), **made_configs(folder, page)}
    for file, content in shown.items():
        (folder / file).write_text(content)
    for command in planned(page):
        assert {word for word in command.words if word.endswith(".yaml") and "/" not in word} <= set(shown)
        assert plan_of(command.words[1:]).launches, command


PREDECESSOR = REPOSITORY / "docs" / "from-verl-rollout-bench.md"
EFFECTS = {
    "--offline": (8, lambda spec: spec.mode == "offline"),
    "--online": (8, lambda spec: spec.mode == "online"),
    "--max-concurrency": (8, lambda spec: spec.load.points[0].concurrency == 128),
    "--diagnostic": (1, lambda spec: spec.model.name == "qwen3-1.7b" and spec.workload.prompts == 4),
    "--models": (6, lambda spec: spec.model.name in ("qwen3-1.7b", "pangu-7b")),
    "--quants": (5, lambda spec: spec.quant.name in ("bf16", "w8a16")),
    "--num-prompts": (8, lambda spec: spec.workload.prompts == 64),
    "-n": (8, lambda spec: spec.workload.samples_per_prompt == 4),
    "--input-len": (8, lambda spec: spec.workload.prompt_tokens == 256),
    "--output-len": (8, lambda spec: spec.workload.output_tokens == 128),
    "--gpu-mem-util": (8, lambda spec: spec.engine.args["gpu_memory_utilization"] == 0.9),
    "--no-profile": (8, lambda spec: "profiler_config" not in spec.engine.args),
    "--model-base": (8, lambda spec: True),
    "(none)": (8, lambda spec: spec.engine.args["gpu_memory_utilization"] == 0.4 and spec.workload.prompts == 32),
}  # fmt: skip
"""Flag -> number of experiments, and what is true of every spec, that its equivalent selects."""


def test_every_flag_of_the_predecessor_has_its_equivalent(folder: Path):
    section = PREDECESSOR.read_text().partition("## Flags")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:])
    found = {
        row.strip("`").split()[0]: re.fullmatch(r"`((?:--config|config/).+)`|nothing", text)
        for row, text in rows.items()
    }
    ascend = ["--configfile", "config/ascend.yaml"]
    calls = {flag: [*ascend, *shlex.split(added[1] or "")] for flag, added in found.items() if added}
    assert set(calls) == set(EFFECTS)
    for flag, (number, holds) in EFFECTS.items():
        selected = plan_of(tuple(calls[flag])).matrix.experiments
        assert len(selected) == number, flag
        assert all(holds(experiment.spec) for experiment in selected), flag
        assert flag != "--model-base" or all(e.model_path.startswith("/data/models/") for e in selected)


def test_a_step_too_large_for_the_machine_suggests_one_engine(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "large.yaml").write_text(VERL)
    overrides = ["+trainer.device=cpu", f"trainer.nnodes={len(os.sched_getaffinity(0))}"]
    overrides += [f"{ROLLOUT}.gpu_memory_utilization=0.0001", "actor_rollout_ref.model.path=nobody/of-unknown-size"]
    step = folder / "step.yaml"
    step.write_text(printed(folder, "from-verl", "large.yaml", *overrides))
    with pytest.raises(SystemExit):
        plan_of(("--configfile", step.name))
    assert "-> make one engine's part of the step (from-verl, from-trl: --one-engine)" in capsys.readouterr().err
    step.write_text(printed(folder, "from-verl", "large.yaml", *overrides, "--one-engine"))
    assert len(plan_of(("--configfile", step.name)).launches) == 3
