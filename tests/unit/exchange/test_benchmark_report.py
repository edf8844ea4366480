"""rollout-bench export: every value of a Benchmark Report 0.2.1 is what the launch measured, and 0.2.1 permits it."""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparing import Done, run
from every_mode import SAMPLES, save_mode
from hypothesis import given
from hypothesis import strategies as st
from permitted_report import PERCENTILES, problems, without_units
from samples.messages import make_messages, make_messages_spec
from samples.online import Server, make_online, make_online_spec
from synthetic_records import OUTPUT_TOKENS, PROMPT_TOKENS, make_failure, make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.columns import table
from rollout_bench.analysis.timed.latencies import distributions, pool_sequences
from rollout_bench.analysis.timed.rows import rows_of
from rollout_bench.commands import export
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.record import Flag
from rollout_bench.contracts.store import record_path, write_launched
from rollout_bench.exchange import benchmark_report
from rollout_bench.exchange.benchmark_report import statistics_of

INVALID = Flag(code="token_count", severity="invalid", sentence="1 token is missing.")
WARNED = Flag(code="cpu_shared", severity="warning", sentence="Something else ran.")

SLOW, FAST = LoadPoint(concurrency=2), LoadPoint(request_rate=20.0)


def exported(folder: Path, *arguments: str) -> Done:
    """Export results below `folder` to reports there, anew."""
    shutil.rmtree(folder / "reports", ignore_errors=True)
    return run(folder, "results", "--out", "reports", *arguments, main=export.main)


def reports(folder: Path) -> dict[str, Any]:
    """Return every report below `folder`, by its path without the experiment's name."""
    found = sorted((folder / "reports").rglob("*.yaml"))
    return {f"{path.parent.parent.name}/{path.name}": yaml.load(path.read_text(), yaml.CSafeLoader) for path in found}


def the_report(folder: Path, name: str) -> Any:
    done = exported(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return reports(folder)[name]


def aggregate(report: Any) -> Any:
    return report["results"]["request_performance"]["aggregate"]


def standard_load(report: Any) -> Any:
    return report["scenario"]["load"]["standardized"]


def test_an_online_launch_is_told_load_by_load(tmp_path: Path) -> None:
    record, rows = make_online(make_online_spec(points=[SLOW, FAST]), 3, Server(failing=8))
    save(tmp_path / "results", (record, rows))
    # loads stand from the lightest: 20 requests a second, then 2 at once
    for stage, (point, load, other) in enumerate(
        ((FAST, "rate_qps", "concurrency"), (SLOW, "concurrency", "rate_qps"))
    ):
        report = the_report(tmp_path, f"online/launch-3.stage-{stage}.yaml")
        standard = standard_load(report)
        assert (standard["stage"], standard["tool"], other in standard) == (stage, "rollout-bench", False)
        assert standard[load] == getattr(point, {"rate_qps": "request_rate"}.get(load, load))
        passes = [each for each in record.iterations if each.point == point and not each.warmup]
        own = [row for row in rows if row.iteration in {each.index for each in passes}]
        good = [row for row in own if not row.failed]
        requests, rates = aggregate(report)["requests"], aggregate(report)["throughput"]
        assert (requests["total"], requests["failures"], requests["incomplete"]) == (len(own), len(own) - len(good), 0)
        assert (requests["input_length"]["mean"], requests["output_length"]["max"]) == (PROMPT_TOKENS, OUTPUT_TOKENS)
        elapsed_s = sum(each.elapsed_s for each in passes)
        assert rates["output_token_rate"]["mean"] == pytest.approx(len(good) * OUTPUT_TOKENS / elapsed_s)
        assert rates["request_rate"]["mean"] == pytest.approx(len(good) / elapsed_s)


def test_cut_requests_are_incomplete_and_stages_keep_their_numbers(tmp_path: Path) -> None:
    # though the second load is the lighter one
    points = [LoadPoint(concurrency=number, duration_s=5.0, stage=stage) for stage, number in ((1, 4), (2, 2))]
    record, rows = make_online(make_online_spec(points=points), iterations=1)
    # the last request of each pass had got 5 tokens when it was cut
    early = {"output_tokens": 5, "finish_reason": None, "last_token_s": None, "gaps_us": None, "cut_s": 5.0}
    rows = [row.model_copy(update=early if row.prompt == 7 and row.sample == 3 else {}) for row in rows]
    passes = [
        each.model_copy(
            update={
                "sequences": each.sequences - 1,
                "output_tokens": each.output_tokens - OUTPUT_TOKENS + 5,
                "prompt_tokens": each.prompt_tokens - PROMPT_TOKENS,
                "incomplete": 1,
            }
        )
        for each in record.iterations
    ]
    save(tmp_path / "results", (record.model_copy(update={"iterations": passes}), rows))
    for stage, point in enumerate(points):
        report = the_report(tmp_path, f"online/launch-0.stage-{stage}.yaml")
        assert (standard_load(report)["stage"], standard_load(report)["concurrency"]) == (stage, point.concurrency)
        requests = aggregate(report)["requests"]
        assert [requests[name] for name in ("total", "failures", "incomplete")] == [32, 0, 1]
        assert requests["output_length"]["min"] == OUTPUT_TOKENS
        (elapsed_s,) = [each.elapsed_s for each in passes if each.point == point and not each.warmup]
        rates = aggregate(report)["throughput"]
        assert rates["request_rate"]["mean"] == pytest.approx(31 / elapsed_s)
        assert rates["output_token_rate"]["mean"] == pytest.approx((31 * OUTPUT_TOKENS + 5) / elapsed_s)
        assert aggregate(report)["latency"]["request_latency"]["max"] < 5


def test_launches_that_are_no_results_are_named_and_not_written(tmp_path: Path) -> None:
    spec = make_spec()
    records = [make_record(spec, 0, flags=[WARNED]), make_record(spec, 1, flags=[INVALID])]
    save(tmp_path / "results", *records, make_failure(spec, 2))
    alone = make_messages(make_messages_spec())
    write_launched(record_path(tmp_path / "results", "messages", alone.experiment, 0), alone)
    done = exported(tmp_path)
    assert done.returncode == 0
    place = f"offline/{spec.experiment()}"
    assert f"{place} launch 1: not exported: invalid (token_count)" in done.stderr
    assert f"{place} launch 2: not exported: failed (no_kv_cache_memory: no memory is left" in done.stderr
    assert "a Benchmark Report has no place for mode messages" in done.stderr
    found = reports(tmp_path)
    assert set(found) == {"offline/launch-0.yaml", "offline/experiment.yaml"}
    assert found["offline/experiment.yaml"]["results"]["observability"]["validity"] == {
        "valid_launches": 1, "flags": [{"code": "cpu_shared", "severity": "warning", "times": 1}],
    }  # fmt: skip
    index = json.loads((tmp_path / "reports" / "index.json").read_text())
    assert (len(index["reports"]), len(index["left_out"])) == (2, 3)


def test_a_launch_exports_to_the_same_uid_and_file_anywhere(tmp_path: Path) -> None:
    record = make_record(launch=4)
    for place in ("here", "there"):
        save(tmp_path / place / "results", record, make_record(make_spec(quant="w8a8"), 4))
        assert exported(tmp_path / place).returncode == 0
    here, elsewhere = (
        {path.relative_to(folder): path.read_text() for path in folder.rglob("*.yaml")}
        for folder in (tmp_path / "here" / "reports", tmp_path / "there" / "reports")
    )
    assert here == elsewhere
    runs = [yaml.load(text, yaml.CSafeLoader)["run"] for text in here.values()]
    assert (len({run["uid"] for run in runs}), len({run["eid"] for run in runs})) == (4, 2)
    assert {uuid.UUID(run["uid"]).version for run in runs} == {5}


WRONG = [
    (["nowhere", "--out", "reports"], "nowhere: does not exist", "give the results folder"),
    (["empty", "--out", "reports"], "empty: contains no record of a launch", "give the results folder"),
    (["results", "--out", "taken"], "taken: is there already", "name another folder with --out"),
    (["results", "--out", "theirs"], "theirs: is there already", "name another folder with --out"),
    (["results", "--out", "results"], "--out results: is the results folder itself", "name a separate folder"),
    (["results", "--out", "results/offline"], "--out results/offline: lies in the results, results", "separate folder"),
    (["results", "--out", ""], "--out: is empty", "name a folder"),
    (["invalid", "--out", "reports"], "invalid: contains no valid launch to report", "summarise"),
]


@pytest.mark.parametrize(("arguments", "problem", "remedy"), WRONG, ids=[w[0][0] + "-" + w[0][2] for w in WRONG])
def test_a_failed_export_gives_two_lines_and_writes_nothing(
    tmp_path: Path, arguments: list[str], problem: str, remedy: str
) -> None:
    record = make_record()
    save(tmp_path / "results", record)
    save(tmp_path / "invalid", make_record(flags=[INVALID]))
    (tmp_path / "taken").touch()
    (tmp_path / "theirs" / "offline").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run(tmp_path, *arguments, main=export.main)
    assert (done.returncode, done.stdout) == (1, "")
    *above, first, second = done.stderr.splitlines()
    assert problem in first
    assert remedy in second
    assert all("not exported" in line for line in above)
    assert sorted(tmp_path.rglob("*")) == before


finite = st.floats(0, 1e12)


@given(st.lists(finite | st.just(float("nan")), max_size=200))
def test_a_statistic_is_of_the_values_that_there_are(values: list[float]) -> None:
    found = statistics_of(values, "s")
    known = sorted(value for value in values if value == value)
    if not known:
        assert found is None
        return
    assert (found["min"], found["max"]) == (known[0], known[-1])
    assert known[0] <= found["mean"] <= known[-1]
    assert (found["stddev"] is None) == (len(known) == 1)
    percentiles = [found[name] for name in PERCENTILES]
    assert percentiles == sorted(percentiles)
    assert set(percentiles) <= set(known)


@pytest.mark.parametrize("mode", [mode for mode in SAMPLES if MODES[mode].generates])
def test_a_report_is_permitted_and_says_what_the_summary_has(mode: str, tmp_path: Path) -> None:
    for launch in range(2):
        save_mode(tmp_path, mode, launch)
    save_mode(tmp_path, mode, 2, absurd=True, flags=[INVALID])
    made = benchmark_report.export(tmp_path).reports
    collection = collect(tmp_path, None)
    rows = table(rows_of(collection), [distributions(each) for each in pool_sequences(collection)])
    for report in made.values():
        content = yaml.load(benchmark_report.yaml_text(report), yaml.CSafeLoader)
        assert (list(problems(content)), list(without_units(content))) == ([], [])
    whole = [each for name, each in sorted(made.items()) if "/experiment" in name]
    assert len(whole) == len(rows)
    lines = sorted(
        zip(rows["experiment"], rows["workload"], rows.to_dict("records"), strict=True), key=lambda row: row[:2]
    )
    for report, (_, _, line) in zip(whole, lines, strict=True):
        found = aggregate(report)
        assert report["results"]["observability"]["validity"]["valid_launches"] == line["launches_valid"] == 2
        if mode != "startup":
            assert found["throughput"]["output_token_rate"]["mean"] == pytest.approx(line["output_tokens_per_s"])
        if mode == "online":
            for field, metric in (("time_to_first_token", "ttft_s"), ("request_latency", "e2el_s")):
                assert found["latency"][field]["mean"] == pytest.approx(line[metric], rel=0.01)
            assert found["requests"]["failures"] / found["requests"]["total"] == pytest.approx(line["failed_share"])
