"""The scripts of the composite action .ci/gate, run as GitHub's runner would; only measuring is replaced."""

import json
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


def command(folder: Path, measure: str) -> None:
    """Put a Python and a command rollout-bench where the action installs them; `measure` replaces its `run`."""
    place = folder / "rollout-bench/bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    (place / "rollout-bench").write_text(
        f'#!/bin/bash\nif [[ $1 == run ]]; then {measure}\nelse exec {sys.executable} -m rollout_bench "$@"; fi\n'
    )
    (place / "rollout-bench").chmod(0o755)


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
        "inputs.baseline-python": "",
        "inputs.launches": "",
        "inputs.baseline": "earlier $(touch injected)",
        "inputs.fail-if": limits,
        "inputs.undecided": undecided,
        "steps.compare.outputs.status": str(gate),
    }
    save(tmp_path / values["inputs.baseline"], *launches(BF16, OLD))
    save(tmp_path / "bench/measured", *launches(BF16, rates))
    command(tmp_path, "cp -r measured results")
    steps = ("measure", "compare", "decide", "measure")  # earlier results are not judged
    assert [status_of(tmp_path, step, values) for step in steps] == [0, 0, end, 2]
    assert (tmp_path / "output").read_text() == f"pack={tmp_path}/baseline.tar.xz\nstatus={gate}\n"
    assert yaml.safe_load((tmp_path / "engine.yaml").read_text()) == {"engine": {"python": '/"b'}}
    assert list(tmp_path.rglob("injected")) == []


def test_launches_of_two_engines_alternate_and_each_side_keeps_its_results(tmp_path: Path):
    values = {
        "inputs.folder": "bench",
        "inputs.python": "/own",
        "inputs.baseline-python": "/baseline",
        "inputs.launches": "4",
        "inputs.baseline": "",
        "inputs.fail-if": "output_tokens_per_s < -3%",
        "inputs.undecided": "fail",
        "steps.compare.outputs.status": "1",
    }
    times = ("/baseline", "/own", "/own", "/baseline", "/baseline", "/own", "/own", "/baseline")
    for engine, rates in (("/baseline", OLD), ("/own", [0.9 * each for each in OLD[::-1]])):
        minutes = [minute for minute, each in enumerate(times) if each == engine]
        for minute, record in zip(minutes, launches(BF16, rates), strict=True):
            started = {"started_at": f"2025-01-01T00:{minute:02d}:00Z"}
            save(tmp_path / f"measured{engine}/{record.launch + 1}", record.model_copy(update=started))
    (tmp_path / "bench").mkdir()
    command(
        tmp_path,
        f"{sys.executable} - \"$@\" <<'END'\n"
        "import json, pathlib, shutil, sys\n"
        "engine = json.loads(pathlib.Path(sys.argv[3]).read_text())['engine']['python']\n"
        "number = sys.argv[5].removeprefix('launches=')\n"
        "pathlib.Path('../order').open('a').write(f'{engine} {number}\\n')\n"
        "shutil.copytree(f'../measured{engine}/{number}', 'results', dirs_exist_ok=True)\n"
        "pathlib.Path('logs').mkdir(exist_ok=True)\n"
        "END",
    )
    assert [status_of(tmp_path, step, values) for step in ("measure", "compare", "decide")] == [0, 0, 1]
    assert (tmp_path / "output").read_text().endswith("\nstatus=1\n"), "slower than the baseline, and not the reverse"
    numbers = (1, 1, 2, 2, 3, 3, 4, 4)
    assert (tmp_path / "order").read_text().split("\n")[:-1] == [
        f"{engine} {number}" for engine, number in zip(times, numbers, strict=True)
    ]
    gate = json.loads((tmp_path / "gate.json").read_text())
    assert (gate["alternated"], gate["tests"][0]["used"]) == (True, [4, 4])


@pytest.mark.parametrize(
    ("step", "given", "status"),
    [
        ("install", {"inputs.baseline": "/", "inputs.baseline-python": "/usr/bin/python3"}, 2),
        ("install", {"inputs.baseline": "missing"}, 2),
        ("measure", {"inputs.baseline-python": "/usr/bin/python3", "inputs.launches": "1"}, 2),
        ("measure", {"inputs.baseline-python": "/usr/bin/python3", "inputs.launches": "x[$(touch injected)]"}, 2),
    ],
    ids=["two baselines", "no such baseline", "one launch", "injection"],
)
def test_the_action_refuses_inputs_that_give_no_gate(tmp_path: Path, step: str, given: dict[str, str], status: int):
    (tmp_path / "bench").mkdir()
    names = ("baseline", "baseline-python", "launches", "python", "workflow-python")
    assert status_of(tmp_path, step, {**{f"inputs.{name}": "" for name in names}, **given}) == status
    assert not list(tmp_path.rglob("injected"))


def test_no_script_has_an_input_in_its_text():
    assert [name for name, script in SCRIPTS.items() if "${{" in script["run"]] == []
