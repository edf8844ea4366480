"""What is planned of a config: experiments, what stands in their specs, and what is left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from planned import REPOSITORY, merged_with, planned
from refusals import hold, write_files

from rollout_bench.contracts.spec import Spec, devices_needed, replicas
from rollout_bench.contracts.store import reference_path
from rollout_bench.modes.placement.record import placed_engines
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import Matrix, expand
from rollout_bench.plan.schedule import schedule

ROWS = yaml.safe_load(Path(__file__).with_name("plans.yaml").read_text())["rows"]


def laid(overlay: str | dict[str, Any]) -> dict[str, Any]:
    """Return the default config under one of plans.yaml."""
    return merged_with((REPOSITORY / overlay).read_text() if isinstance(overlay, str) else overlay)


def keys(overlay: dict[str, Any]) -> set[str]:
    """Return the keys of all that is planned of a config."""
    return {experiment.spec.key() for experiment in planned(overlay).experiments}


def facts(config: dict[str, Any]) -> tuple[list[dict[str, Any]], Matrix]:
    """Return what a row may say of each experiment, in the order of the plan, and the plan."""
    read = read_config(config)
    matrix = expand(read, probe_engine(read.engine.python))
    plan = schedule(read, matrix)
    launches = Counter(launch.experiment.name for launch in plan.launches)
    needed = Counter(launch.experiment.name for launch in plan.launches if launch.needed)
    for launch in plan.launches:
        assert reference_path(Path(launch.record), launch.experiment.spec) in (None, *map(Path, launch.needed))
    names = {e.spec.experiment(): f"{e.spec.quant.name} {e.spec.axes['setting']}" for e in matrix.experiments}
    found = []
    for one in matrix.experiments:
        spec, placed = one.spec, one.spec.placement
        assert Spec.model_validate_json(spec.model_dump_json()) == spec
        own = {
            "devices": devices_needed(spec) if spec.endpoint is None else None,
            "replicas": replicas(spec) if spec.endpoint is None else None,
            "engines": [list(engine) for engine in placed_engines(spec)] if placed else None,
            "generating": len(placed.generating) if placed else None,
            "training": len(placed.training) if placed else None,
            "loads": [point.label for point in spec.load.points] if spec.load else None,
            "reference": names.get(str(spec.drift.reference)) if spec.drift else None,
            "config_only": one.checkpoint.config_only if one.checkpoint else None,
            "weights": one.model_path and one.model_path.replace(str(Path.home()), "HOME"),
            "dataset": one.dataset_path,
            "launches": launches[one.name],
            "needed": needed[one.name],
        }
        found.append({**spec.model_dump(mode="json"), **own})
    return found, matrix


def at(content: Any, key: str) -> Any:
    """Return what stands at a dotted key; None where nothing does."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_what_is_planned_is_as_its_row_says(row: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_files(__file__, tmp_path)
    found, matrix = facts(laid(row["config"]))
    assert [{key: at(fact, key) for key in wanted} for fact, wanted in zip(found, row["plan"], strict=True)] == row[
        "plan"
    ]
    skipped = [f"{one.quant} {one.setting}: {one.reason}" for one in matrix.skipped]
    assert hold(skipped, row.get("skipped", []))
    own = {experiment.spec.key() for experiment in matrix.experiments}
    assert "same" not in row or keys(row["same"]) <= own
    assert "other" not in row or not keys(row["other"]) & own
