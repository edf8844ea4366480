"""compare.py as a user runs it: two folders in, a table out, and what may not be compared told in two lines."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import compare
import pytest
import summarise
from synthetic_records import make_failure, make_plan, make_record, make_spec, save

from rollout_bench.errors import run_command
from rollout_bench.plan.planfile import write_plan
from rollout_bench.plan.spec import Spec
from rollout_bench.records.record import Flag, Record
from rollout_bench.reporting.terminal import WIDTH

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
BF16, W8A8, W8A16 = make_spec(), make_spec(quant="w8a8"), make_spec(quant="w8a16")
OLD, NEW = (100.0, 101.0, 102.0, 100.5), (120.0, 121.5, 119.5, 120.7)
OTHER_ENGINE = {"engine_version": "0.33.0", "torch_version": "2.14.0+cpu"}
OTHER_MACHINE = {"device_model": "AMD EPYC 7B13", "cpu_model": "AMD EPYC 7B13", "cpu_cores": 4}
INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


@dataclass
class Done:
    """How the command ended; `flat` is what it printed, with single spaces."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def flat(self) -> str:
        return " ".join(self.stdout.split())


def launches(spec: Spec, rates: Sequence[float], environment: Mapping[str, Any] | None = None) -> list[Record]:
    return [make_record(spec, i, [rate] * 3, environment=environment) for i, rate in enumerate(rates)]


def run(folder: Path, *arguments: str, main: Any = compare.main) -> Done:
    """Runs compare.py in `folder`, inside this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stderr(stderr),
        contextlib.redirect_stdout(stdout),
        mock.patch.object(sys, "argv", ["compare.py", *arguments]),
        pytest.raises(SystemExit) as end,
    ):
        run_command(main)
    return Done(int(end.value.code or 0), stdout.getvalue(), stderr.getvalue())


def compared(folder: Path, a: Sequence[Record], b: Sequence[Record], *arguments: str) -> Done:
    """Saves the two sides as folders a and b, and compares them."""
    save(folder / "a", *a)
    save(folder / "b", *b)
    return run(folder, "a", "b", *arguments)


def refused(folder: Path, a: Sequence[Record], b: Sequence[Record], *arguments: str) -> str:
    """The two lines of a refusal."""
    done = compared(folder, a, b, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2
    return done.stderr


def cell(done: Done, quant: str = "bf16") -> list[str]:
    """The words of a line of the table."""
    return next(line.split() for line in done.stdout.splitlines() if line.startswith(f"{quant} "))


def test_two_times_of_measuring_are_compared_with_all_launches_of_both(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW[:3]))
    assert (done.returncode, done.stderr) == (0, "")
    assert cell(done) == ["bf16", "4", "3", "100.9", "120.3", "1.193x", "^", "[1.171,", "1.215]"]
    assert "Engine and machine agree: two times of measuring." in done.flat
    assert "Nothing took turns: whatever drifted between A and B is part of each speed-up." in done.flat
    assert "no statistics can take it out" in done.flat
    assert "Warnings" not in done.stdout


def test_swapped_folders_mirror_the_verdict(tmp_path: Path) -> None:
    there = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    back = run(tmp_path, "b", "a")
    assert cell(there)[5:7] == ["1.194x", "^"]
    assert cell(back)[5:7] == ["0.838x", "v"]


@pytest.mark.parametrize(("environment", "group"), [(OTHER_ENGINE, "engine"), (OTHER_MACHINE, "machine")])
def test_one_of_engine_and_machine_may_differ_and_is_what_is_compared(
    tmp_path: Path, environment: dict[str, Any], group: str
) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW, environment))
    assert cell(done)[6] == "^"
    assert f"The {group}, and nothing else of engine and machine (A -> B):" in done.flat
    old = make_record().environment.model_dump()
    for fact, value in environment.items():
        assert f"{fact} {old[fact]} -> {value}" in done.flat


def test_engine_and_machine_together_are_refused_until_they_are_accepted(tmp_path: Path) -> None:
    problem, remedy = refused(
        tmp_path, launches(BF16, OLD), launches(BF16, NEW, OTHER_ENGINE | OTHER_MACHINE)
    ).splitlines()
    for word in ("a and b differ in engine and in machine", "engine_version 0.32.0 -> 0.33.0", "cpu_cores 2 -> 4"):
        assert word in problem
    assert "--differ engine machine" in remedy
    done = run(tmp_path, "a", "b", "--differ", "engine", "machine")
    assert cell(done)[6] == "^"
    assert "Engine and machine at once, as --differ allows: what either contributes can not be told" in done.flat
    for fact in ("engine_version 0.32.0 -> 0.33.0", "torch_version 2.13.0+cpu -> 2.14.0+cpu", "cpu_cores 2 -> 4"):
        assert fact in done.flat


def test_what_was_not_to_differ_is_refused_alone_too(tmp_path: Path) -> None:
    told = refused(tmp_path, launches(BF16, OLD), launches(BF16, NEW, OTHER_MACHINE), "--differ", "engine")
    assert "a and b differ in machine, which was not to differ: machine: device_model" in told
    assert run(tmp_path, "a", "b", "--differ", "machine").returncode == 0


@pytest.mark.parametrize("fact", [{"engine_version": "0.33.0"}, {"device_model": "AMD EPYC 7B13"}])
@pytest.mark.parametrize("side", ["a", "b"])
def test_a_mix_inside_one_folder_is_refused_with_the_launches_named(
    tmp_path: Path, side: str, fact: dict[str, str]
) -> None:
    mixed = [*launches(BF16, OLD[:2]), make_record(BF16, 2, [101.0], environment=fact)]
    sides = {"a": launches(BF16, OLD), "b": launches(BF16, NEW), side: mixed}
    told = refused(tmp_path, sides["a"], sides["b"])
    (name, value), *_ = fact.items()
    assert f"{side}: its launches differ in {name}" in told
    assert "qwen3-90m bf16 small launch 0, qwen3-90m bf16 small launch 1)" in told
    assert f"{value} (qwen3-90m bf16 small launch 2)" in told


def test_a_mix_between_experiments_of_one_folder_is_refused_and_one_with_other_names_does_not_matter(
    tmp_path: Path,
) -> None:
    other = launches(W8A8, OLD, OTHER_ENGINE)
    assert compared(tmp_path, launches(BF16, OLD), [*launches(BF16, NEW), *other]).returncode == 0
    assert "its launches differ in engine_version" in refused(tmp_path, launches(W8A8, OLD), [])


@pytest.mark.parametrize(
    "environment",
    [
        {"hostname": "bench-2"},
        {"kernel": "Linux 6.2.0"},
        {"git_commit": "fedcba9876543210"},
        {"variables": {"OMP_NUM_THREADS": "1"}},
    ],
)
def test_a_circumstance_that_differs_is_a_warning(tmp_path: Path, environment: dict[str, Any]) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW, environment))
    assert cell(done)[6] == "^"
    (name,) = environment
    assert f"differs too (A -> B): {name}" in done.flat
    assert "Engine and machine agree" in done.flat


def test_a_little_memory_more_or_less_is_the_same_machine(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW, {"memory_bytes": 24 * 2**30 - 5_000_000}))
    assert "Engine and machine agree" in done.flat
    done = compared(tmp_path, [], launches(BF16, NEW, {"memory_bytes": 16 * 2**30}))
    assert "memory_bytes 24.0 GiB -> 16.0 GiB" in done.flat


def test_engine_arguments_that_differ_are_warned_of_by_name(tmp_path: Path) -> None:
    changed = make_spec(args={"max_num_seqs": 128})
    done = compared(tmp_path, launches(make_spec(args={"max_num_seqs": 64}), OLD), launches(changed, NEW))
    assert cell(done)[6] == "^"
    assert "differs too (A -> B): args.max_num_seqs 64 -> 128" in done.flat


def test_among_several_of_one_name_the_one_with_the_same_arguments_counts(tmp_path: Path) -> None:
    eager = make_spec(args={"enforce_eager": True})
    done = compared(tmp_path, [*launches(BF16, OLD), *launches(eager, NEW)], launches(eager, NEW[::-1]))
    assert cell(done)[5] == "1.000x"
    done = compared(tmp_path, [], launches(make_spec(args={"seed": 1}), NEW))
    assert "2 experiments of its names in a could be meant" in done.flat


def test_another_load_is_never_a_ratio(tmp_path: Path) -> None:
    heavier = make_spec(quant="w8a8", prompts=4)
    done = compared(
        tmp_path, [*launches(BF16, OLD), *launches(W8A8, OLD)], [*launches(BF16, NEW), *launches(heavier, NEW)]
    )
    assert cell(done, "w8a8") == ["w8a8", "0", "4", "-", "-", "-", "[1]"]
    assert "[1] a measured another load: workload.prompts 8 -> 4." in done.flat
    assert cell(done)[5] == "1.194x"


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("workload", {"output_tokens": 64}, "workload.output_tokens 32 -> 64"),
        ("workload", {"temperature": 0.0}, "workload.temperature 1.0 -> 0.0"),
        ("workload", {"requests": "per_prompt"}, "workload.requests per_sequence -> per_prompt"),
        ("measuring", {"warmup_iterations": 0}, "measuring.warmup_iterations 1 -> 0"),
        ("model", {"synthetic": {"hidden_size": 1024}}, "synthetic.hidden_size 768 -> 1024"),
    ],
)
def test_every_part_of_the_load_counts(tmp_path: Path, part: str, change: dict[str, Any], told: str) -> None:
    other = BF16.model_copy(update={part: getattr(BF16, part).model_copy(update=change)})
    done = compared(tmp_path, launches(BF16, OLD), launches(other, NEW))
    assert told in done.flat
    assert cell(done)[3:6] == ["-", "-", "-"]


def test_platforms_are_compared_where_each_side_has_one(tmp_path: Path) -> None:
    cuda = make_spec(platform="cuda")
    done = compared(tmp_path, launches(BF16, OLD), launches(cuda, NEW, {"device_model": "NVIDIA H200"}))
    assert cell(done)[6] == "^"
    assert "platform cpu -> cuda" in done.flat


def test_with_several_platforms_each_is_compared_with_its_own(tmp_path: Path) -> None:
    cuda = make_spec(platform="cuda")
    done = compared(tmp_path, launches(BF16, OLD), [*launches(BF16, NEW), *launches(cuda, NEW)])
    assert "1 experiment of B compared with A" in done.flat
    assert "Only in B, not compared - qwen3-90m bf16 small" in done.flat


@pytest.mark.parametrize("side", ["a", "b"])
def test_one_launch_on_a_side_is_a_ratio_without_verdict(tmp_path: Path, side: str) -> None:
    sides = {"a": launches(BF16, OLD), "b": launches(BF16, NEW), side: launches(BF16, [110.0])}
    assert cell(compared(tmp_path, sides["a"], sides["b"]))[6:] == ["?", "(1", "more)"]


def test_copies_of_one_launch_give_no_verdict(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, [100.0] * 3), launches(BF16, NEW))
    assert cell(done)[5:] == ["1.204x", "?", "[1]"]
    assert "its baseline has the very same value in all launches" in done.flat


def test_a_launch_that_generated_nothing_gives_no_verdict(tmp_path: Path) -> None:
    broken = make_record(BF16, 3)
    nothing = [iteration.model_copy(update={"output_tokens": 0}) for iteration in broken.iterations]
    broken = broken.model_copy(update={"iterations": nothing})
    done = compared(tmp_path, [*launches(BF16, OLD[:3]), broken], launches(BF16, NEW))
    assert cell(done)[5:] == ["?", "[1]"]
    assert "its baseline has a launch (3) whose measurement is zero or no number" in done.flat


def test_invalid_launches_take_no_part_and_are_counted(tmp_path: Path) -> None:
    wrong = make_record(BF16, 4, [900.0], flags=[INVALID], environment=OTHER_ENGINE)
    done = compared(tmp_path, [*launches(BF16, OLD), wrong], launches(BF16, NEW))
    assert cell(done)[1:5] == ["4", "4", "100.9", "120.4"]
    assert "1 launch flagged invalid and not used" in done.flat


def test_what_only_one_side_has_is_listed(tmp_path: Path) -> None:
    done = compared(
        tmp_path, [*launches(BF16, OLD), *launches(W8A16, OLD)], [*launches(BF16, NEW), *launches(W8A8, NEW)]
    )
    assert "1 experiment of B compared with A" in done.flat
    assert "Only in A, not compared - qwen3-90m w8a16 small" in done.flat
    assert "Only in B, not compared - qwen3-90m w8a8 small" in done.flat


def test_more_experiments_ask_for_more_certainty(tmp_path: Path) -> None:
    close = (100.0, 101.5, 102.6, 101.2)
    alone = compared(tmp_path / "alone", launches(BF16, OLD[::-1]), launches(BF16, [x * 1.025 for x in close]))
    specs = [make_spec(quant=f"q{i}") for i in range(8)]
    many = compared(
        tmp_path / "many",
        [r for s in (BF16, *specs) for r in launches(s, OLD[::-1])],
        [r for s in (BF16, *specs) for r in launches(s, [x * 1.025 for x in close])],
    )
    assert cell(alone)[6] == "^"
    assert cell(many)[6:8] == ["~", "(<"]
    assert math.isclose(float(cell(alone)[5][:-1]), float(cell(many)[5][:-1]))


def test_without_anything_in_common_both_sides_are_named(tmp_path: Path) -> None:
    told = refused(tmp_path, launches(make_spec("qwen3-90m"), OLD), launches(make_spec("qwen3-9m"), NEW))
    assert "a has qwen3-90m bf16 small (offline, cpu); b has qwen3-9m bf16 small (offline, cpu)" in told
    assert "nearest are 'qwen3-90m bf16 small (offline, cpu)' and 'qwen3-9m bf16 small (offline, cpu)'" in told


@pytest.mark.parametrize(
    ("a", "problem", "remedy"),
    [
        ("nowhere", "nowhere: does not exist", "the one that holds offline/"),
        ("resluts", "resluts: does not exist", "did you mean 'results'?"),
        ("old/run/results", "old/run/results: does not exist", "did you mean 'old/runs/results'?"),
        ("results/offline", "results/offline: holds no record", "did you mean 'results'?"),
        ("old/runs", "old/runs: holds no record", "did you mean 'old/runs/results'?"),
        ("empty", "empty: holds no record", "the one that holds offline/"),
        ("file", "file: is not a folder", "the one that holds offline/"),
        ("old/../results", "are the same folder", "name two results folders"),
    ],
)
def test_a_wrong_folder_is_two_lines_with_the_one_that_was_meant(
    tmp_path: Path, a: str, problem: str, remedy: str
) -> None:
    save(tmp_path / "results", *launches(BF16, OLD))
    save(tmp_path / "old" / "runs" / "results", *launches(BF16, OLD))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = run(tmp_path, a, "results")
    first, second = done.stderr.splitlines()
    assert problem in first
    assert remedy in second


def test_each_folder_counts_as_its_summary_selects_it_unless_all_is_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "a", *launches(BF16, OLD), *launches(W8A8, OLD, OTHER_ENGINE))
    save(tmp_path / "b", *launches(BF16, NEW), *launches(W8A8, NEW))
    write_plan(tmp_path / "plan.json", make_plan([BF16], 3))
    assert run(tmp_path, "a", "--plan", "plan.json", main=summarise.main).returncode == 0
    done = run(tmp_path, "a", "b")
    assert cell(done)[1] == "3"
    assert "5 records that its summary does not select not read; --all takes all." in done.flat
    assert "a: its launches differ in engine_version" in run(tmp_path, "a", "b", "--all").stderr


def test_a_summary_that_selects_nothing_measured_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a", *launches(BF16, OLD), make_failure(W8A8))
    save(tmp_path / "b", *launches(BF16, NEW))
    write_plan(tmp_path / "plan.json", make_plan([W8A8], 1))
    run(tmp_path, "a", "--plan", "plan.json", main=summarise.main)
    done = run(tmp_path, "a", "b")
    assert "a: nothing of what its summary selects is measured" in done.stderr
    assert "--all" in done.stderr.splitlines()[1]


def test_markdown_and_csv_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    compared(tmp_path, [*launches(BF16, OLD), *launches(W8A8, OLD)], [*launches(BF16, NEW), *launches(W8A8, [90.0])])
    done = run(tmp_path, "a", "b", "--out", "out", "--metric", "output_tokens_per_s", "--metric", "startup_s")
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["compare.csv", "compare.md"]
    assert "# Comparison of two results folders" in (tmp_path / "out" / "compare.md").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "compare.csv").read_text())))
    assert [(row["quant"], row["metric"], row["verdict"]) for row in rows] == [
        ("bf16", "output_tokens_per_s", "faster"),
        ("bf16", "startup_s", "unknown"),
        ("w8a8", "output_tokens_per_s", "unknown"),
        ("w8a8", "startup_s", "unknown"),
    ]
    assert (rows[0]["launches_a"], rows[0]["launches_b"]) == ("4", "4")
    assert float(rows[0]["value_a"]) == pytest.approx(math.prod(OLD) ** 0.25)
    assert float(rows[0]["speedup"]) == pytest.approx((math.prod(NEW) / math.prod(OLD)) ** 0.25)
    assert rows[2]["speedup_low"] == ""


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert not list(tmp_path.rglob("compare.*"))


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [("--confidence", "95", "--confidence: 95"), ("--relevant-difference", "-1", "--relevant-difference: -1")],
)
def test_a_setting_that_can_not_be_is_two_lines(tmp_path: Path, option: str, value: str, told: str) -> None:
    done = run(tmp_path, "a", "b", f"{option}={value}")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_settings_decide(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW), "--relevant-difference", "0.3")
    assert "~ (real, but below 30 %)" in done.flat
    assert cell(run(tmp_path, "a", "b"))[7:] == ["[1.178,", "1.210]"]
    assert cell(run(tmp_path, "a", "b", "--confidence", "0.9999"))[7:] == ["[1.134,", "1.257]"]


def test_the_text_fits_a_terminal(tmp_path: Path) -> None:
    specs = [make_spec(m, q, "verl-default") for m in ("qwen3-1.7b", "pangu-7b") for q in ("bf16", "w8a16", "w8a8")]
    a = [r for s in specs for r in launches(s, [98765.4, 98800.1, 98500.2])]
    b = [r for s in specs for r in launches(s, [123456.7, 123400.1, 123500.2], OTHER_ENGINE)]
    done = compared(tmp_path, a, b)
    assert max(map(len, done.stdout.splitlines())) <= WIDTH
    assert done.stdout.isascii()


def test_the_command_runs_by_itself_and_help_loads_no_heavy_library(tmp_path: Path) -> None:
    save(tmp_path / "a", *launches(BF16, OLD))
    save(tmp_path / "b", *launches(BF16, NEW))
    command = [sys.executable, "-W", "error", str(SCRIPTS / "compare.py"), "a", "b"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import compare; compare.parser(); "
        "print([m for m in ('pandas', 'numpy', 'scipy', 'rich', 'vllm', 'torch', 'snakemake') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
