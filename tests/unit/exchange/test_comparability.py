"""What must agree before compare.py compares two results folders, what is refused, and what is only told."""

from pathlib import Path
from typing import Any

import pytest
from comparing import BF16, NEW, OLD, OTHER_ENGINE, OTHER_MACHINE, W8A8, cell, compared, launches, refused, run
from synthetic_records import make_record, make_spec


@pytest.mark.parametrize(("environment", "group"), [(OTHER_ENGINE, "engine"), (OTHER_MACHINE, "machine")])
def test_either_engine_or_machine_may_differ_and_is_compared(
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
def test_a_mixed_folder_is_refused_with_its_launches_named(tmp_path: Path, side: str, fact: dict[str, str]) -> None:
    mixed = [*launches(BF16, (110.0, 111.0)), make_record(BF16, 2, [112.0], environment=fact)]
    sides = {"a": launches(BF16, OLD), "b": launches(BF16, NEW), side: mixed}
    told = refused(tmp_path, sides["a"], sides["b"])
    (name, value), *_ = fact.items()
    assert f"{side}: its launches differ in {name}" in told
    assert "qwen3-90m bf16 small launch 0, qwen3-90m bf16 small launch 1)" in told
    assert f"{value} (qwen3-90m bf16 small launch 2)" in told


def test_a_launch_that_both_folders_hold_is_no_second_measurement(tmp_path: Path) -> None:
    done = compared(tmp_path, launches(BF16, OLD), launches(BF16, (*OLD[:2], *NEW)))
    assert cell(done)[3:] == ["-", "[1]"]
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
    assert cell(done)[3:] == ["-", "[1]"]
