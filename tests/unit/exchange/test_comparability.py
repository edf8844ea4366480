"""What must agree before compare.py compares two results folders, what is refused, and what is only told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparing import BF16, NEW, OLD, OTHER_ENGINE, OTHER_MACHINE, W8A8, cell, compared, launches, refused, run
from synthetic_records import make_record, make_spec


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
    mixed = [*launches(BF16, (110.0, 111.0)), make_record(BF16, 2, [112.0], environment=fact)]
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
    assert "its launches differ in engine_version" in refused(tmp_path, launches(W8A8, NEW), [])


def test_a_table_that_is_refused_leaves_the_others_compared(tmp_path: Path) -> None:
    cuda, mixed = make_spec(platform="cuda"), make_record(BF16, 2, [112.0], environment=OTHER_ENGINE)
    sides = [*launches(BF16, OLD), *launches(cuda, OLD)], [*launches(BF16, NEW[:2]), mixed, *launches(cuda, NEW)]
    done = compared(tmp_path, *sides)
    assert [line.split()[3:6] for line in done.stdout.splitlines() if line.startswith("bf16 ")] == [
        ["-", "-", "-"],
        ["100.9", "120.4", "1.194x"],
    ]
    assert "[1] b: its launches differ in engine_version" in done.flat


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


def test_settings_of_the_engine_count_where_both_versions_tell_of_them(tmp_path: Path) -> None:
    sides = []
    for rates, resolved in ((OLD, {"block_size": 16, "policy": "fcfs"}), (NEW, {"block_size": 32, "scheduler": "new"})):
        facts = make_record().engine.model_copy(update={"resolved": resolved})
        sides.append([record.model_copy(update={"engine": facts}) for record in launches(BF16, rates)])
    done = compared(tmp_path, *sides)
    assert "differs too (A -> B): resolved.block_size 16 -> 32" in done.flat
    assert "policy" not in done.flat
    assert "scheduler" not in done.flat


def test_a_variable_that_only_the_config_tells_of_is_warned_of_too(tmp_path: Path) -> None:
    settings = BF16.engine.model_copy(update={"environment": {"MY_ALLOCATOR": "fast"}})
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16.model_copy(update={"engine": settings}), NEW))
    assert "differs too (A -> B): variables.MY_ALLOCATOR not set -> fast" in done.flat


def test_among_several_of_one_name_the_one_with_the_same_arguments_counts(tmp_path: Path) -> None:
    eager = make_spec(args={"enforce_eager": True})
    done = compared(tmp_path, [*launches(BF16, OLD), *launches(eager, NEW)], launches(eager, NEW[::-1]))
    assert cell(done)[5] == "1.000x"
    done = compared(tmp_path, [], launches(make_spec(args={"seed": 1}), NEW))
    assert "2 experiments of its names in a could be meant" in done.flat


def test_a_launch_that_both_folders_hold_is_no_second_measurement(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, (*OLD[:2], *NEW)))
    assert cell(done)[3:] == ["-", "-", "-", "[1]"]
    assert "Engine and machine agree" not in done.flat
    assert "[1] a has the very same record of launch 0, 1, as a copy would." in done.flat


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
