"""compare.py as a user runs it: two folders in, a table out, and a mistake told in two lines."""

from __future__ import annotations

import csv
import io
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import summarise
from comparing import BF16, NEW, OLD, OTHER_ENGINE, W8A8, W8A16, cell, compared, launches, refused, run
from synthetic_records import make_block, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.contracts.record import DeviceUse, Flag, Record
from rollout_bench.contracts.store import record_path
from rollout_bench.core.errors import LEFT_OUT_STATUS
from rollout_bench.plan.planfile import write_plan
from rollout_bench.report.rendering import WIDTH

SCRIPTS = Path(__file__).parents[3] / "workflow" / "scripts"
INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")


def test_two_times_of_measuring_are_compared_with_all_launches_of_both(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW[:3]))
    assert (done.returncode, done.stderr) == (0, "")
    assert cell(done) == ["bf16", "4", "3", "100.9", "120.3", "1.193x", "^", "[1.171,", "1.215]"]
    assert "Engine and machine agree: two times of measuring." in done.flat
    assert "Nothing took turns: whatever drifted between A and B is part of each speed-up." in done.flat
    assert "statistics cannot remove it" in done.flat
    assert "Warnings" not in done.stdout


def test_swapped_folders_mirror_the_verdict(tmp_path: Path) -> None:
    there = compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    back = run(tmp_path, "b", "a")
    assert cell(there)[5:7] == ["1.194x", "^"]
    assert cell(back)[5:7] == ["0.838x", "v"]


def test_an_engine_that_had_others_beside_it_gets_no_verdict_against_one_that_ran_alone(tmp_path: Path) -> None:
    blocks = [make_block([BF16, W8A8], launch, [[rate] * 3] * 2) for launch, rate in enumerate(OLD)]
    done = compared(tmp_path, [record for block in blocks for record in block], launches(BF16, NEW))
    assert cell(done)[3:] == ["100.9", "120.4", "1.194x", "?", "[1]"]
    assert "launches of a were interleaved, with other engines alive beside them, and others ran alone" in done.flat
    again = compared(
        tmp_path / "both", [block[0] for block in blocks], [record for block in blocks for record in block]
    )
    assert "alive beside them" not in again.flat


@pytest.mark.parametrize("read", [(), (1, 2)])
def test_launches_of_which_some_have_no_energy_are_compared_by_typical_passes(
    tmp_path: Path, read: Sequence[int]
) -> None:
    spec = make_spec(iterations="auto")
    use = DeviceUse(device="GPU-0", energy_j=40, window_s=1)

    def measured(rates: Sequence[float], read: Sequence[int]) -> list[Record]:
        made = [make_record(spec, launch, [rate] * 4 + [rate / 2]) for launch, rate in enumerate(rates)]
        return [
            each.model_copy(
                update={"iterations": [one.model_copy(update={"devices": [use]}) for one in each.iterations]}
            )
            if each.launch in read
            else each
            for each in made
        ]

    done = compared(tmp_path, measured(OLD[:3], read), measured(NEW[:3], (0, 1, 2)))
    assert "1.191x" in done.stdout


@pytest.mark.parametrize("side", ["a", "b"])
def test_one_launch_on_a_side_is_a_ratio_without_verdict(tmp_path: Path, side: str) -> None:
    sides = {"a": launches(BF16, OLD), "b": launches(BF16, NEW), side: launches(BF16, [110.0])}
    assert cell(compared(tmp_path, sides["a"], sides["b"]))[6:] == ["?", "(needs", "1", "more", "launch)"]


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


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_damaged_record_of_either_side_is_told_and_the_others_are_compared(tmp_path: Path, side: str) -> None:
    compared(tmp_path, launches(BF16, OLD), launches(BF16, NEW))
    path = record_path(Path(side), "offline", BF16.experiment(), 3)
    (tmp_path / path).write_text("{")
    done = run(tmp_path, "a", "b")
    assert done.returncode == LEFT_OUT_STATUS
    assert done.stderr.startswith(f"{path}: is not whole JSON")
    assert f"{path}: is not whole JSON" in done.flat
    assert sorted(cell(done)[1:3]) == ["3", "4"]
    for launch in range(3):
        (tmp_path / path).with_name(f"launch-{launch}.json").write_text("{")
    done = run(tmp_path, "a", "b")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2)


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
    assert cell(many)[6:8] == ["~", "(inconclusive)"]
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
        "import sys; from rollout_bench.commands import compare; compare.parser(); "
        "heavy = ('jinja2', 'pandas', 'numpy', 'scipy', 'rich', 'vllm', 'torch', 'snakemake'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
