"""The workflow as a module of another one: its rules under other names, its config in theirs, in another folder."""

import json
import re
import subprocess
import sys

import stand_in
import yaml
from workspace import REPOSITORY


def test_the_printed_example_plans_as_it_stands(tmp_path):
    page = (REPOSITORY / "config" / "README.md").read_text()
    (snakefile,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (config,) = re.findall(r"```yaml\n(# mine.yaml\n.*?)```", page, flags=re.DOTALL)
    (tmp_path / "Snakefile").write_text(snakefile.replace("path/to/rollout-bench", str(REPOSITORY)))
    (tmp_path / "mine.yaml").write_text(config)
    command = [sys.executable, "-m", "snakemake", "-n", "--rerun-triggers", "mtime"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    for quant in ("bf16", "w8a8"):
        assert ["offline", "qwen3-12m", quant, "default", "short", "3"] in said, done.stdout + done.stderr


def test_another_workflow_uses_its_rules_as_the_page_says(tmp_path):
    page = (REPOSITORY / "config" / "README.md").read_text()
    (snakefile,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "Snakefile").write_text(snakefile.replace("path/to/rollout-bench", str(REPOSITORY)))
    engine = {"python": stand_in.install(tmp_path / "engine")}
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"rollouts": {**stand_in.CONFIG, "launches": 1, "engine": engine}})
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-triggers", "mtime"]
    for said in ("rule rollouts_summary", "Nothing to be done"):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
        assert len(stand_in.starts(tmp_path)) == 2
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 3
    plan = json.loads((tmp_path / "results" / "plan.json").read_text())
    assert [one["quant"] for one in plan["experiments"]] == ["bf16", "w8a8"]
