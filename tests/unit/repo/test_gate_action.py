"""The scripts of the composite action .ci/gate, run as GitHub's runner would; only measuring is replaced."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from comparing import BF16, OLD, launches
from synthetic_records import save
from workspace import REPOSITORY

ACTION = (REPOSITORY / ".ci" / "gate" / "action.yml").read_text()
SCRIPTS = {step["id"]: step for step in yaml.safe_load(ACTION)["runs"]["steps"] if "run" in step}


def status_of(folder: Path, step: str, values: dict[str, str]) -> int:
    """Run a script with the variables that its step gives it; return its exit status."""
    script = SCRIPTS[step]
    given = {name: values[text.removeprefix("${{ ").removesuffix(" }}")] for name, text in script["env"].items()}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script["run"]],
        cwd=folder / ("bench" if "working-directory" in script else ""),
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(REPOSITORY / "src"),
            "RUNNER_TEMP": str(folder),
            "GITHUB_OUTPUT": str(folder / "output"),
            **given,
        },
        check=False,
    ).returncode


@pytest.mark.parametrize(
    ("rates", "limits", "undecided", "gate", "end"),
    [
        (OLD[::-1], "output_tokens_per_s < -3%\n", "fail", 0, 0),
        ([0.9 * rate for rate in OLD], "step_time_s > 3%\n\n  output_tokens_per_s < -3%", "pass", 1, 1),
        ([101.0, 97.0, 103.0, 99.0], "\n", "fail", 4, 4),
        ([101.0, 97.0, 103.0, 99.0], "default", "pass", 4, 0),
        (OLD[::-1], "$(touch injected); touch injected", "pass", 2, 2),
    ],
    ids=["same", "slower", "undecided", "undecided may pass", "injection"],
)
def test_the_action_ends_as_its_gate(
    tmp_path: Path, rates: list[float], limits: str, undecided: str, gate: int, end: int
):
    values = {
        "inputs.folder": "bench",
        "inputs.python": '/"b',
        "inputs.baseline": "earlier $(touch injected)",
        "inputs.fail-if": limits,
        "inputs.undecided": undecided,
        "steps.compare.outputs.status": str(gate),
    }
    save(tmp_path / values["inputs.baseline"], *launches(BF16, OLD))
    save(tmp_path / "bench/measured", *launches(BF16, rates))
    (tmp_path / "rollout-bench/bin").mkdir(parents=True)
    (tmp_path / "rollout-bench/bin/python").symlink_to(sys.executable)
    command = tmp_path / "rollout-bench/bin/rollout-bench"
    command.write_text(
        "#!/bin/bash\nif [[ $1 == run ]]; then cp -r measured results\n"
        f'else exec {sys.executable} -m rollout_bench "$@"; fi\n'
    )
    command.chmod(0o755)
    steps = ("measure", "compare", "decide", "measure")  # earlier results are not judged
    assert [status_of(tmp_path, step, values) for step in steps] == [0, 0, end, 2]
    assert (tmp_path / "output").read_text() == f"pack={tmp_path}/baseline.tar.xz\nstatus={gate}\n"
    assert yaml.safe_load((tmp_path / "engine.yaml").read_text()) == {"engine": {"python": '/"b'}}
    assert list(tmp_path.rglob("injected")) == []


def test_no_script_has_an_input_in_its_text():
    assert [name for name, script in SCRIPTS.items() if "${{" in script["run"]] == []
