"""The command plan: what it prints of launches that are done, failed or missing, in every mode."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from planned import REPOSITORY, merged_with
from samples.profile import BF16, make_profile, make_steps
from snakemake.utils import update_config
from synthetic_records import INVALID, make_failure, make_plan, make_record, make_spec, save

from rollout_bench.commands import plan as command
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path, write_launched
from rollout_bench.plan.config_file import read_config
from rollout_bench.plan.engine import probe_engine
from rollout_bench.plan.matrix import expand
from rollout_bench.plan.planfile import PlanFile
from rollout_bench.plan.results_state import ResultsState
from rollout_bench.plan.schedule import schedule
from rollout_bench.plan.settings import idle_lines

SPEC = make_spec()


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[PlanFile], str]:
    """Return a function that shows a plan and returns what it printed."""

    def show(plan: PlanFile) -> str:
        command.show(plan, tmp_path)
        return capsys.readouterr().out

    return show


def test_complete_records_of_every_mode_are_done(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    profile = make_profile(steps=make_steps(BF16))
    save(tmp_path, make_record(SPEC))
    write_launched(record_path(tmp_path, profile.spec.mode, profile.spec.experiment(), profile.launch), profile)
    printed = said(make_plan([SPEC, profile.spec], launches=1))
    assert "2 of 2 launches done, 0 to run" in printed
    assert "failed:" not in printed


def test_a_failure_names_phase_and_log_of_its_launch(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    failure = make_failure(SPEC)
    save(tmp_path, failure)
    assert (
        f"failed: {failure.experiment} launch 0: initializing: {failure.cause}\n  -> {failure.fix} (log: {failure.log})"
    ) in said(make_plan([SPEC], launches=1))


def test_invalid_launches_are_counted(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    flags = {1: [INVALID], 2: [Flag(code="not_steady", severity="warning", sentence="Slower.")]}
    save(tmp_path, *(make_record(SPEC, launch, flags=flags.get(launch, ())) for launch in range(3)))
    plan = make_plan([SPEC], launches=4)
    printed = said(plan)
    for words in ("invalid: 1 launch of those done", "3 of 4 launches done (1 invalid), 1 to run"):
        assert words in printed
    record = str(record_path(Path(plan.results), "offline", SPEC.experiment(), 1))
    again = said(plan.model_copy(update={"again": [record]}))
    assert ("invalid:" in again, "2 of 4 launches done, 2 to run" in again) == (False, True)


def test_a_damaged_record_is_told_of_with_what_to_do(tmp_path: Path, said: Callable[[PlanFile], str]) -> None:
    save(tmp_path, make_record(SPEC, 0, [400.0]))
    path = record_path(tmp_path, "offline", SPEC.experiment(), 0)
    path.write_text(path.read_text()[:100])
    printed = said(make_plan([SPEC], launches=1))
    assert re.search(r"^damaged: 1 record of those done.*move them away", printed, re.MULTILINE)
    assert f"\ndamaged: {path}: is not whole JSON" in printed


def lines_on_the_baseline(overlay: dict[str, Any]) -> list[str]:
    config = read_config(merged_with(overlay))
    plan = schedule(config, expand(config, probe_engine(None)), 0)
    return command.compared_with_nothing(ResultsState(plan).plan_file())


SETTINGS = {"setting_settings": {name: {"engine_args": {"max_num_seqs": n}} for n, name in enumerate("ab", 4)}}
SERVERS = {name: {"url": f"http://{name}:1/v1", "model": name} for name in "xy"}
NAMED_ALIKE = {
    name: {**SERVERS[name], "quant": quant, "model_name": "x"} for name, quant in {"x": "bf16", "y": "w8a8"}.items()
}
ONLINE = {"modes": ["online"], "models": [], "baseline": {"quant": "bf16"}}


@pytest.mark.parametrize(
    ("overlay", "remedies"),
    [
        ({}, []),
        ({"quants": ["bf16"]}, []),
        ({"quants": ["w8a8"]}, ["quants: [bf16, w8a8]"]),
        ({"quants": ["w8a8", "w8a16"]}, ["quants: [bf16, w8a8, w8a16]", "baseline: {quant: w8a8}"]),
        ({"quants": ["bf16"], "models": ["qwen3-12m", "qwen3-90m"]}, ["baseline: {quant: null, model: qwen3-12m}"]),
        ({"quants": ["bf16"], "settings": ["a", "b"], **SETTINGS}, []),  # another line tells it
        (
            {"settings": ["a", "b"], "baseline": {"quant": None, "setting": "default"}, **SETTINGS},
            ["settings: [default, a, b]"],
        ),
        ({"quants": ["bf16"], "sweep": {"max_num_seqs": [4, 8]}}, []),
        ({"quants": ["bf16"], "workloads": ["demo", "verl-default"]}, ["baseline: {quant: null, workload: demo}"]),
        ({**ONLINE, "endpoints": {"x": SERVERS["x"]}}, []),
        ({**ONLINE, "endpoints": SERVERS}, ["baseline: {quant: null, model: x}"]),
        ({"quants": ["w8a8"], "modes": ["steps"]}, []),
    ],
)
def test_what_has_nothing_to_be_compared_with_is_told_what_to_write(overlay: dict[str, Any], remedies: list[str]):
    baseline = "setting: default" if "setting" in overlay.get("baseline", {}) else "quant: bf16"
    problem = f"nothing is compared with {{{baseline}}} -> "
    assert lines_on_the_baseline(overlay) == ([problem + ", or ".join(remedies)] if remedies else [])
    for remedy in remedies:
        typed = copy.deepcopy(overlay)
        update_config(typed, yaml.safe_load(remedy))
        assert lines_on_the_baseline(typed) == [], remedy


@pytest.mark.parametrize(
    ("overlay", "line"),
    [
        ({}, "compared: w8a16, w8a8 with bf16"),
        (
            {"quants": ["bf16"], "sweep": {"max_num_seqs": [4, 8]}},
            "compared: max-num-seqs-4, max-num-seqs-8 with default",
        ),
        ({"quants": ["bf16"], "sweep": {"engine_args.max_num_seqs": [4]}}, "compared: max-num-seqs-4 with default"),
        ({**ONLINE, "endpoints": NAMED_ALIKE}, "compared: w8a8 with bf16"),
        ({"quants": ["bf16"]}, ""),
    ],
)
def test_what_is_compared_is_told(overlay: dict[str, Any], line: str):
    config = read_config(merged_with(overlay))
    plan = schedule(config, expand(config, probe_engine(None)), 0)
    assert command.compared_lines(ResultsState(plan).plan_file()) == ([line] if line else [])


def test_servers_with_other_names_are_told_how_they_are_compared():
    theirs = {name: {**one, "model_name": name} for name, one in NAMED_ALIKE.items()}
    (line,) = lines_on_the_baseline({**ONLINE, "endpoints": theirs})
    assert line.endswith("-> model_name: x in each of the endpoints, which have other names now")


OWN_QUANT = {"weights_format": "bf16", "linear_dtypes": ["bfloat16"]}


@pytest.mark.parametrize(
    ("overlay", "place", "measures"),
    [
        ({"workload_settings": {"demo": {"online": {"request_rate": 8}}}}, "workload_settings.demo.online", "online"),
        ({"launches": {"online": 5}}, "launches.online", "online"),
        ({"slo": {"ttft_ms": 9}}, "slo", "online"),
        ({"endpoints": {"x": SERVERS["x"]}}, "endpoints", "online"),
        ({"cycle": {"repeats": 7}}, "cycle", "cycle"),
    ],
)
def test_what_only_another_mode_reads_is_said_to_change_nothing(overlay: dict[str, Any], place: str, measures: str):
    (line,) = expand(read_config(merged_with(overlay)), probe_engine(None)).remarks
    assert line.startswith(f"{place}: changes nothing, since mode {measures} is not measured; ")
    typed = {**overlay, **yaml.safe_load(line.partition("; ")[2].partition(" measures it")[0])}
    assert typed["modes"] == ["offline", measures]
    assert expand(read_config(merged_with(typed)), probe_engine(None)).remarks == []


@pytest.mark.parametrize(("timeout_s", "told"), [(None, False), (3600, True), (10**6, False)])
def test_a_limit_that_may_end_a_launch_is_told(timeout_s: int | None, told: bool) -> None:
    long = {"demo": {"prompts": 256, "samples_per_prompt": 64, "output_tokens": 400, "engine_args": {}}}
    config = {"platform": "cuda", "quants": ["bf16"], "workload_settings": long, "timeout_s": timeout_s}
    read = read_config(merged_with(config))
    planned = schedule(read, expand(read, probe_engine(None)))
    lines = planned.limit_lines()
    assert bool(lines) is told
    assert told == ("timeout_s: ends a launch after 60 min" in " ".join(lines))
    assert timeout_s or planned.timeout_s > 3600, "without one it is as long as launches usually take"


def test_arguments_of_an_engine_change_nothing_where_only_servers_are_measured() -> None:
    servers = {**ONLINE, "models": [], "endpoints": {"x": SERVERS["x"]}, "engine_args": {"seed": 7}}
    lines = expand(read_config(merged_with(servers)), probe_engine(None)).remarks
    assert "engine_args: changes nothing, since a server that is up has its own: start it with them" in lines


@pytest.mark.parametrize(
    ("key", "own"),
    [
        ("quants", OWN_QUANT),
        ("workloads", {"prompts": 8, "prompt_tokens": 8, "output_tokens": 8}),
        ("models", {"synthetic": {"preset": "qwen3-tiny"}}),
    ],
)
def test_an_own_entry_that_is_not_selected_is_told(key: str, own: dict[str, Any]) -> None:
    own = {f"{key[:-1]}_settings": {"mine": own}}
    (line,) = expand(read_config(merged_with(own)), probe_engine(None)).remarks
    assert line.startswith(f"{key[:-1]}_settings.mine: changes nothing, since mine is not selected; {key}: [")
    typed = own | yaml.safe_load(line.partition("; ")[2].removesuffix(" measures it"))
    assert expand(read_config(merged_with(typed)), probe_engine(None)).remarks == []


@pytest.mark.parametrize("path", [path.name for path in (REPOSITORY / "config").glob("*.yaml")])
def test_no_shipped_config_has_what_changes_nothing(path: str) -> None:
    config = read_config(merged_with((REPOSITORY / "config" / path).read_text()))
    assert idle_lines(config) == []
