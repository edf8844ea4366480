"""What engines, drivers and tools print is read as it was recorded: fixtures/recorded holds text and what it says."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout_bench.measure.launch.failures import KNOWN_CAUSES, cause_of_death, diagnose
from rollout_bench.measure.launch.flags import fallback_flags, read_log
from rollout_bench.measure.machine.npus import Npus, holders_by_npu
from rollout_bench.modes.startup.notes import StartNote
from rollout_bench.modes.startup.phases import noted_spans, phases_between


def recorded(name: str) -> Any:
    """Return what a file of fixtures/recorded holds."""
    return yaml.safe_load((Path(__file__).parents[2] / "fixtures" / "recorded" / f"{name}.yaml").read_text())


CAUSES, LOGS, STARTS = recorded("causes"), recorded("engine_logs"), recorded("starts")
ENGINE_CORE_DEAD = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
STAMP = "(EngineCore pid=7) ERROR 11-20 06:40:29 [core.py:946] "


@pytest.mark.parametrize("case", CAUSES, ids=lambda case: case["category"])
def test_what_an_engine_says_leads_to_its_category(case: dict[str, str]) -> None:
    log = "".join(f"{STAMP}{line}\n" for line in ["EngineCore failed to start.", *case["said"].splitlines()])
    for cause in (diagnose(case["said"], ""), diagnose(ENGINE_CORE_DEAD, log)):
        assert cause.category == case["category"]
        assert cause.fix
        assert "\n" not in cause.cause
        assert "core.py" not in cause.cause
        assert len(cause.cause) < 450


def test_the_arguments_at_fault_are_named_by_their_keys() -> None:
    said = (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig\n"
        "  Value error, max_num_batched_tokens (4) must be greater than or equal to max_num_seqs (16). "
        "[type=value_error, input_value=ArgsKwargs(...), input_type=ArgsKwargs]"
    )
    assert diagnose(said, "").fix == "correct engine_args.max_num_batched_tokens or engine_args.max_num_seqs"


def test_every_known_cause_was_recorded() -> None:
    assert {known.category for known in KNOWN_CAUSES} == {case["category"] for case in CAUSES}


@pytest.mark.parametrize(
    ("error", "log", "category", "cause"),
    [
        ("KeyError: 'rope'", "ValueError: something earlier\n", "crash", "the engine failed: KeyError: 'rope'"),
        (ENGINE_CORE_DEAD, f"{STAMP}KeyError: 'rope'\n", "crash", "the engine failed: KeyError: 'rope'"),
        (
            "EngineDeadError: EngineCore encountered an issue.",
            "(MainProcess pid=1) WARNING 11-20 06:40:39 [base.py:380] ValueError: No module named 'x'\n",
            "crash",
            "the engine failed: EngineDeadError: EngineCore encountered an issue.",
        ),
    ],
    ids=["unknown", "of the engine core", "a warning is none"],
)
def test_an_unknown_exception_is_quoted(error: str, log: str, category: str, cause: str) -> None:
    found = diagnose(error, log)
    assert (found.category, found.cause) == (category, cause)


def test_an_error_of_50_mb_is_searched_in_no_time() -> None:
    exception = f"RuntimeError: {'Total number of attention heads ' * 1_500_000} CUDA driver version is insufficient"
    began = time.process_time()
    assert diagnose(exception, exception).category == "cuda_driver"
    assert time.process_time() - began < 3


def test_what_an_engine_says_is_harmless_to_a_terminal() -> None:
    cause = diagnose(f"ValueError: no kernel for \x1b[2J\x07{'x' * 1000}", "").cause
    assert "\\x1b[2J\\x07xxx" in cause
    assert cause.isprintable()
    assert len(cause) < 500


def test_how_an_engine_ended_is_told_apart() -> None:
    assert cause_of_death(-11, "", out_of_memory=False).cause == "the engine process was ended by signal 11"
    assert cause_of_death(-9, "", out_of_memory=True).category == "out_of_memory"
    assert (
        cause_of_death(1, "ImportError: libhccl.so: cannot open shared", out_of_memory=False).category == "cann_missing"
    )


@pytest.mark.parametrize("case", recorded("fallbacks"), ids=lambda case: case["said"][:30])
def test_a_fallback_of_the_engine_is_flagged_once(case: dict[str, Any]) -> None:
    line = f"(Worker_TP0 pid=7) WARNING 11-20 07:53:17 [some.py:1] {case['said']}\n"
    flags = fallback_flags(line + line.replace("pid=7", "pid=8"))
    assert [(flag.code, flag.severity) for flag in flags] == [("engine_fallback", "warning")] * case["fallback"]
    assert all(case["said"][:30] in flag.sentence for flag in flags)


@pytest.mark.parametrize("name", LOGS)
def test_a_start_up_log_becomes_numbers(name: str) -> None:
    assert read_log(LOGS[name]["log"]) == LOGS[name]["read"]


@pytest.mark.parametrize("name", STARTS)
def test_a_start_becomes_phases_that_add_up(name: str) -> None:
    notes = [StartNote(at=at, pid=1, text=text) for at, text in STARTS[name]["notes"]]
    phases, rest_s = phases_between(noted_spans(notes, 10.0, 50.0), 10.0, 50.0)
    assert {phase.name: phase.elapsed_s for phase in phases} == pytest.approx(STARTS[name]["phases"])
    assert sum(phase.elapsed_s for phase in phases) + rest_s == pytest.approx(40.0)


def test_npus_are_read_with_who_holds_their_memory() -> None:
    printed = recorded("npu_smi")["printed"]
    first, second = Npus(None, 2, lambda: printed).read()
    assert (first.device, first.temperature_c, first.holders) == ("NPU 0", 47, {})
    assert (second.temperature_c, second.holders) == (63, {4711: 54000 << 20, 815: 900 << 20})
    assert holders_by_npu(printed) == {1: second.holders}
    (only,) = Npus(["1", "0"], 1, lambda: printed).read()
    assert only.device == "NPU 1"
    a3 = recorded("npu_smi")["two_chips"]
    assert [chip.temperature_c for chip in Npus(None, 4, lambda: a3).read()] == [36, 37, 38, 39]
    assert [chip.holders for chip in Npus(["1", "3"], 2, lambda: a3).read()] == [{}, {845053: 59656 << 20}]
    assert Npus(None, 2, lambda: "dcmi module initialize failed. ret is -8005").read() == []


def test_a_chip_without_a_temperature_moves_no_other_chip() -> None:
    a3 = recorded("npu_smi")["two_chips"]
    for unknown in ("- ", "NA", "N/A"):
        printed = a3.replace("-           37", f"-           {unknown}")
        readings = Npus(None, 4, partial(str, printed)).read()
        assert [reading.temperature_c for reading in readings] == [36, None, 38, 39]
        assert [list(reading.holders) for reading in readings] == [[], [], [824166], [845053]]
