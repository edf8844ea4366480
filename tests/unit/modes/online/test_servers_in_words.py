"""What a summary says of a server: the rate that it keeps up with, and its latencies and limits there."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples.online import Server, make_online, make_online_spec
from synthetic_records import make_record, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.axes import UNKNOWN
from rollout_bench.contracts.load import LoadPoint
from rollout_bench.contracts.record import Flag
from rollout_bench.plan.serving import OnlineLoad, Slo
from rollout_bench.report.summary import Summary, summary_of

pytestmark = pytest.mark.slow

USUAL = Server()


def summary(folder: Path, *points: LoadPoint, requests: int = 64, server: Server = USUAL, **slo: float) -> Summary:
    """Return the summary of two launches of a server with 8 slots that needs 0.36 s a request: some 22 req/s."""
    spec = make_online_spec(points=list(points))
    for launch in range(2):
        save(folder, make_online(spec, launch, server, requests=requests))
    return summary_of(folder, replace(collect(folder, None), slo=Slo(**slo)))


def rates(*rates: float) -> list[LoadPoint]:
    return [LoadPoint(request_rate=rate) for rate in rates]


def test_the_conclusion_has_the_rates_within_limits_and_kept_up_with_and_latencies(tmp_path: Path):
    lead = summary(tmp_path, *rates(2, 8, 30), requests=512, ttft_ms=200, tpot_ms=20, attainment=0.95).answers[0].lead
    assert re.fullmatch(
        r"bf16 meets the limits \(TTFT 200 ms and TPOT 20 ms for 95 % of the requests\) "
        r"at 8 req/s \((100|9\d) %\), not at 30 \(\d %\); "
        r"it keeps up with 8 req/s, not with 30 \(it answers 2\d(\.\d)?\); "
        r"at 8 req/s: TTFT p50 (about )?5\d(\.\d)? ms, p99 (about )?\d\d(\.\d)? ms; "
        r"TPOT p50 (about )?10\.?\d? ms, p99 (about )?10\.?\d? ms\.",
        lead,
    ), lead


WAITING = Server(slots=38, step_s=0.128)
"""A server that needs 4 s a request, and answers 9.4 of them a second."""


HIGHEST, LOWER = "raise the rate until the limits are missed", "measure lower rates"


@pytest.mark.parametrize(
    ("limit_ms", "asked", "requests", "meets", "step"),
    [
        (
            500,
            (2, 12),
            256,
            r"at 2 req/s \(100 %\), not at 12 \(\d+ %\); it keeps up",
            "measure rates between 2 and 12",
        ),
        (500, (2, 8.8, 12), 256, r"not at 12 \(.*\); 8.8 req/s is undecided: 128", "send more requests at 8.8 req/s"),
        (
            500,
            (2, 4),
            256,
            r"with 4 req/s and meets .* there \(100 %\), the highest rate that was asked; at 4",
            HIGHEST,
        ),
        (40, (4, 12), 512, r"does not meet .* at 4 req/s \(0 %\); it keeps up with 4 req/s, not with 12", LOWER),
        (500, (2, 8.8), 16, r"is not shown to meet .*; 2, 8.8 req/s are undecided", "send more requests"),
    ],
)
def test_limits_say_which_rates_are_served_and_measured_next(
    tmp_path: Path, limit_ms: float, asked: tuple[float, ...], requests: int, meets: str, step: str
):
    answer = summary(tmp_path, *rates(*asked), requests=requests, server=WAITING, ttft_ms=limit_ms).answers[0]
    assert re.search(meets, answer.lead), answer.lead
    assert answer.items[-1].startswith(f"Next: {step}"), answer.items


def test_a_queue_that_grows_shows_in_few_requests_that_a_server_falls_behind(tmp_path: Path):
    answer, *_ = summary(tmp_path, *rates(4, 8, 16), requests=80, server=WAITING).answers
    assert "not with 16 (it answers at least 6" in answer.lead, answer.lead
    assert "16, 32]" not in answer.command, "a higher rate would bring no more answers"


def test_a_rate_above_the_most_that_a_server_answers_is_too_high(tmp_path: Path):
    made = summary(tmp_path, *rates(4, 9, 11, 13), requests=400, server=WAITING)
    lead = made.answers[0].lead
    assert re.match(r"bf16 keeps up with (4|9) req/s, not with 11 \(it answers [89]\.\d+\)", lead), lead
    throughput = next(view for view in made.views if view.title.startswith("Throughput"))
    place = [column.header for column in throughput.columns].index("keeps up")
    assert [line[place] for line in throughput.cells][2:] == ["no", "no"], "as the sentence says"


@pytest.mark.parametrize(
    ("asked", "lead"),
    [
        ((2, 8), "bf16 keeps up with 8 req/s, the highest rate that was asked"),
        ((30, 40), "bf16 does not keep up with 30 req/s (it answers 2"),
        ((8,), "bf16 keeps up with 8 req/s: TTFT p50"),
    ],
)
def test_a_limit_is_only_named_where_it_was_found(tmp_path: Path, asked: tuple[float, ...], lead: str):
    assert summary(tmp_path, *rates(*asked), requests=512).answers[0].lead.startswith(lead)


@pytest.mark.parametrize(
    ("asked", "requests", "step", "change"),
    [
        (
            (2, 8),
            256,
            "raise the rate until the server falls behind (about 6 min)",
            "[8, 16, 32], requests: [128, 256, 512]",
        ),
        (
            (8, 30),
            256,
            "measure rates between 8 and 30 req/s (about 3 min)",
            "request_rate: [8, 12, 19, 24, 30], requests: [32, 64,",
        ),
        (
            (30, 40),
            256,
            "measure lower rates (about 2 min)",
            "request_rate: [11, 19, 24, 30], requests: [64, 64, 64, 32]",
        ),
        ((20.5, 25), 1024, None, ""),
    ],
)
def test_the_next_step_finds_the_highest_rate(
    tmp_path: Path, asked: tuple[float, ...], requests: int, step: str | None, change: str
):
    answer, *_ = summary(tmp_path, *rates(*asked), requests=requests).answers
    lines = [line for line in answer.items if line.startswith("Next")]
    assert lines == ([] if step is None else [f"Next: {step}:"])
    assert change in answer.command
    assert bool(answer.command) == bool(change)


@pytest.mark.parametrize(
    "pacing", [{"duration_s": 20}, {"duration_s": [20, 20]}, {"requests": 64}, {"concurrency": [4, 8]}]
)
def test_the_command_of_the_next_step_goes_with_what_the_config_says(tmp_path: Path, pacing: dict[str, Any]):
    written = {"request_rate": [2, 8], **pacing}
    answer, *_ = summary(tmp_path, *OnlineLoad(**written).points, requests=256).answers
    changed = yaml.safe_load(shlex.split(answer.command)[-1].partition("=")[2])["small"]["online"]
    assert OnlineLoad(**written | changed).points[0].request_rate == 8


def test_passes_that_are_too_short_to_tell_are_no_limit_and_ask_for_more_requests(tmp_path: Path):
    answer, *_ = summary(tmp_path, *rates(8, 60), requests=16).answers
    assert "8 req/s" in answer.lead
    assert "not with" not in answer.lead, answer.lead
    assert "Next: send more requests (about 2 min):" in answer.items
    (needed,) = (int(count) for count in re.findall(r"(\d+) requests or more are likely to tell", answer.lead))
    assert f"request_rate: [8, 60], requests: {[needed, needed]}" in answer.command
    assert needed > 64, "the same requests would tell no more"


def test_passes_that_differ_ask_for_more_of_them_and_not_for_more_requests(tmp_path: Path):
    spec = make_online_spec(points=rates(4, 30))
    for launch, late in enumerate([(6,), (7, 10)]):  # passes at 4 req/s whose requests wait for a while
        record, rows = make_online(spec, launch, iterations=8)
        moved = [
            row.model_copy(update={"first_token_s": row.first_token_s + 0.3, "last_token_s": row.last_token_s + 0.3})
            if row.iteration in late
            else row
            for row in rows
        ]
        save(tmp_path, (record, moved))
    answer = summary_of(tmp_path, replace(collect(tmp_path, None), slo=Slo(ttft_ms=200))).answers[0]
    assert answer.lead.startswith("bf16 keeps up with 4 req/s; it does not meet the limits")  # as the former is known
    assert "4 req/s is undecided: 12 iterations or more are likely to tell" in answer.lead
    assert " iterations=12 'workload_settings={" in answer.command
    assert "send more requests at 4 req/s, and measure lower rates, in 12 iterations" in answer.items[-1]


def test_a_sender_that_was_too_busy_is_freed_before_more_is_sent(tmp_path: Path):
    busy = Flag(code="generator_bound", severity="warning", sentence="What sends the requests used 90 % of a core.")
    for launch in range(2):
        save(tmp_path, make_online(make_online_spec(points=rates(8, 60)), launch, requests=16, flags=[busy]))
    answer, *_ = summary_of(tmp_path, collect(tmp_path, None)).answers
    assert (
        "Next: free the sender's cores, or ask from another machine, then send more requests (about 2 min):"
        in answer.items
    )


def test_a_warning_of_some_loads_is_told_with_them_and_what_follows(tmp_path: Path):
    busy = Flag(code="generator_bound", severity="warning", sentence="Too busy.", load="8 req/s")
    save(tmp_path, make_online(make_online_spec(points=rates(2, 8)), requests=512, flags=[busy]))
    answer, *_ = summary_of(tmp_path, collect(tmp_path, None)).answers
    assert any(
        line.startswith(
            "At 8 req/s the sender of the requests was too busy (generator_bound: Too busy): latencies are too high"
        )
        for line in answer.items
    ), answer.items
    assert "Next: free the sender's cores, or ask from another machine, then raise the rate" in " ".join(answer.items)


@pytest.mark.parametrize(
    ("loads", "title"),
    [
        ([LoadPoint(request_rate=rate) for rate in (2.0, 4.0, 16.0)], "qwen3-90m: 2, 4, 16 req/s"),
        ([LoadPoint(concurrency=count) for count in (1, 8)], "qwen3-90m: 1, 8 at once"),
        ([LoadPoint(concurrency=1), LoadPoint(request_rate=4.0)], "qwen3-90m: 4 req/s, 1 at once"),
        ([LoadPoint(request_rate=4.0)], "qwen3-90m: bf16"),
    ],
)
def test_the_title_of_a_config_without_a_name_is_what_was_measured(loads: list[LoadPoint], title: str, tmp_path: Path):
    save(tmp_path, make_online(make_online_spec(points=loads), 0, Server(), requests=32))
    for files, name in ((("config.yaml",), title), (("mine.yaml",), "mine"), ((), title)):
        made = summary_of(tmp_path, replace(collect(tmp_path, None), files=files, planned=True))
        assert f"<title>Rollout benchmark: {name}</title>" in made.html


def test_a_lighter_load_that_is_undecided_hides_no_heavier_one(tmp_path: Path):
    points = [LoadPoint(request_rate=1.0, requests=8), LoadPoint(request_rate=8.0, requests=256)]
    lead = summary(tmp_path, *points, requests=256).answers[0].lead
    assert lead.startswith("bf16 keeps up with 8 req/s, the highest rate that was asked; at 8"), lead


def test_a_server_that_answers_no_more_at_twice_the_rate_falls_behind(tmp_path: Path):
    full, slow = Server(slots=64, together_s=40.0), Server(slots=64, step_s=0.5)
    lead = summary(tmp_path / "full", *rates(2, 4), server=full).answers[0].lead
    assert lead.startswith("bf16 does not keep up with 4 req/s (it answers at least 1.60); 2 req/s is undecided"), lead
    lead = summary(tmp_path / "slow", *rates(2, 4), server=slow).answers[0].lead
    assert lead.startswith("bf16 is not shown to keep up; 2, 4 req/s are undecided: "), lead
    assert re.search(r": \d+ requests or more at 2, \d+ requests or more at 4 are likely", lead), lead


def test_a_server_does_not_fall_behind_at_a_rate_that_it_answered_at_another_load(tmp_path: Path):
    """As where waits of a moment end the short passes of the lighter load."""
    spec = make_online_spec(points=rates(8, 16, 40))
    for launch in range(2):
        (waiting, waits), (usual, rows) = (
            make_online(spec, launch, server, requests=128) for server in (Server(slots=2), USUAL)
        )
        light = {each.index for each in usual.iterations if each.point.request_rate == 8}
        passes = [waiting.iterations[each.index] if each.index in light else each for each in usual.iterations]
        mixed = [row for row in waits if row.iteration in light] + [row for row in rows if row.iteration not in light]
        save(tmp_path, (usual.model_copy(update={"iterations": passes}), mixed))
    (answer, *_) = summary_of(tmp_path, replace(collect(tmp_path, None), slo=Slo())).answers
    assert answer.lead.startswith("bf16 keeps up with 16 req/s, not with 40 (it answers 2"), answer.lead


def invalid_at(folder: Path, label: str, *asked: float) -> Summary:
    """Return the summary of a sweep whose load `label` the sender could not send."""
    flag = Flag(code="generator_bound", severity="invalid", sentence="Too busy.", load=label)
    save(folder, make_online(make_online_spec(points=rates(*asked)), requests=512, flags=[flag]))
    return summary_of(folder, replace(collect(folder, None), slo=Slo()))


def test_a_load_that_could_not_be_sent_leaves_the_others_their_result(tmp_path: Path):
    answer = invalid_at(tmp_path, "16 req/s", 2, 8, 16).answers[0]
    assert answer.lead.startswith("bf16 keeps up with 8 req/s; 16 req/s has no valid result; at 8 req/s: TTFT"), (
        answer.lead
    )
    why = "bf16 at 16 req/s is invalid and in no number (generator_bound: Too busy)."
    assert why in answer.items
    assert "Next: measure rates below 16 req/s, whose launches are invalid (about 4 min):" in answer.items
    assert "request_rate: [8, 9.5, 11, 13], requests: [128," in answer.command


def test_a_load_whose_server_went_away_is_measured_again_before_anything_else(tmp_path: Path):
    gone = Flag(code="server_gone", severity="invalid", sentence="9 of 9 requests failed.", load="16 req/s")
    save(tmp_path, make_online(make_online_spec(points=rates(2, 8, 16)), requests=512, flags=[gone]))
    made = summary_of(tmp_path, replace(collect(tmp_path, None), slo=Slo()))
    answer = made.answers[0]
    assert answer.items[0] == (
        "bf16 at 16 req/s: the server went away; the next run measures it again (server_gone: 9 of 9 requests failed)."
    )
    assert answer.items[-1].startswith("Next: see that the server is up, then run the same command again")
    assert answer.command == "rollout-bench run", "no other rates before this one is known"
    assert "(1 not in full: the server went away, and the next run measures again)" in made.html


def test_two_sweeps_of_one_server_are_told_apart_by_its_name_and_their_keys(tmp_path: Path):
    usual = make_online_spec(points=rates(2, 8))
    unknown = usual.model_copy(update={"quant": usual.quant.model_copy(update={"name": UNKNOWN})})
    other = unknown.load.model_copy(update={"points": tuple(rates(2, 4))})
    specs = unknown, unknown.model_copy(update={"load": other})
    for spec in specs:
        save(tmp_path, make_online(spec, requests=512))
    made = summary_of(tmp_path, collect(tmp_path, None))
    leads = " ".join(made.answers[0].items) + made.answers[0].lead
    assert "unknown" not in leads
    for spec in specs:
        assert f"qwen3-90m ({spec.key()}) keeps up with" in leads, leads
    throughput = next(view for view in made.views if view.title.startswith("Throughput"))
    quants = [line[[column.header for column in throughput.columns].index("quant")] for line in throughput.cells]
    assert {*quants} - {""} == {f"({spec.key()})" for spec in specs}, "also where no other sweep has the load"


def test_a_warning_of_the_only_load_is_told_without_it(tmp_path: Path):
    claimed = Flag(code="tokens_claimed", severity="warning", sentence="It does not return token ids.")
    save(tmp_path, make_online(make_online_spec(points=rates(8)), requests=512, flags=[claimed]))
    (answer, *_) = summary_of(tmp_path, collect(tmp_path, None)).answers
    assert any(line.startswith("The server does not return tokens, so") for line in answer.items), answer.items


def test_a_lighter_load_without_a_result_is_no_limit(tmp_path: Path):
    answer = invalid_at(tmp_path, "2 req/s", 2, 8, 30).answers[0]
    assert answer.lead.startswith("bf16 keeps up with 8 req/s, not with 30"), answer.lead
    assert "Next: measure rates between 8 and 30 req/s (about 80 s):" in answer.items


def test_a_number_of_users_has_no_rate_to_keep_up_with(tmp_path: Path):
    lead = summary(tmp_path, LoadPoint(concurrency=2), LoadPoint(concurrency=8)).answers[0].lead
    assert re.match(
        r"bf16 answers [\d.]+ req/s, [\d.]+ output tok/s with 8 at once, the most of 2 loads: TTFT p50", lead
    )


@pytest.mark.parametrize(
    ("limit_ms", "words"),
    [
        (200, r"meets the limits \(.*\) with 8 at once \(\d+ %\), not with 24 at once \(\d+ %\); it answers .* with 8"),
        (9000, r"meets the limits \(.*\) with 24 at once \(100 %\); it answers"),
        (1, r"does not meet the limits \(.*\) with 2 at once \(0 %\); it answers .*, the most of 3 loads"),
    ],
)  # fmt: skip
def test_limits_say_with_how_many_at_once_they_are_met(tmp_path: Path, limit_ms: float, words: str):
    loads = [LoadPoint(concurrency=count) for count in (2, 8, 24)]
    lead = summary(tmp_path, *loads, requests=256, ttft_ms=limit_ms).answers[0].lead
    assert re.match(f"bf16 {words}", lead), lead


def test_failed_requests_meet_no_limit(tmp_path: Path):
    lead = summary(tmp_path, *rates(4), server=Server(failing=4), ttft_ms=1000).answers[0].lead
    assert "does not meet the limits (TTFT 1000 ms for 90 % of the requests) at 4 req/s (75 %)" in lead, lead
    assert "25 % of requests failed" in lead, lead


def test_a_load_in_both_modes_has_them_side_by_side_and_says_which_to_report(tmp_path: Path):
    for quant, step_s, rate in (("bf16", 0.01, 900.0), ("w8a8", 0.008, 1300.0)):
        spec = make_online_spec(quant=quant, points=[LoadPoint(concurrency=4), LoadPoint(concurrency=8)])
        for launch in range(3):
            save(tmp_path, make_online(spec, launch, Server(step_s=step_s)))
            save(tmp_path, make_record(make_spec(quant=quant, workload="small"), launch, [rate] * 3))
    made = summary_of(tmp_path, collect(tmp_path, None))
    (table,) = [
        view for view in made.views if view.title == "Offline beside the server: cpu, model qwen3-90m, workload small"
    ]
    lines = [dict(zip((column.header for column in table.columns), cells, strict=True)) for cells in table.cells]
    assert [(line["quant"], line["offline tok/s"], line["server at once"]) for line in lines] == [
        ("bf16", "900.0", "8"),
        ("w8a8", "1,300", "8"),
    ]
    assert lines[1]["server speed-up"].startswith("1.2"), lines[1]
    (report,) = [item for note in made.notes for item in note.items if item.startswith("Report the tok/s")]
    assert "with 8 requests at once at most, where offline ran 32." in report, report


def test_all_speed_ups_of_a_server_are_one_table_and_a_p99_of_few_requests_has_its_ratio_without_a_verdict(
    tmp_path: Path,
):
    for quant, step_s in (("bf16", 0.01), ("w8a8", 0.008)):
        for launch in range(4):
            spec = make_online_spec(quant=quant)
            save(tmp_path, make_online(spec, launch, replace(USUAL, step_s=step_s), requests=64))
    made = summary_of(tmp_path, collect(tmp_path, None))
    (table,) = [view for view in made.views if view.title.startswith("Speed-ups")]
    headers = [column.header for column in table.columns]
    assert headers[1:6] == [f"{of} speed-up" for of in ("output tok/s", "TTFT", "TPOT", "E2EL", "E2EL p99")]
    baseline, faster = (dict(zip(headers, cells, strict=True)) for cells in table.cells)
    assert baseline["E2EL p99 speed-up"] == "(baseline)"
    assert re.match(r"1\.2\d*x \^ \[", faster["E2EL speed-up"]), faster
    assert re.fullmatch(r"\(1\.\d+x\) needs \d{3} more requests \[\d\]", faster["E2EL p99 speed-up"]), faster


def test_an_unproven_percentile_is_shown_and_marked(tmp_path: Path):
    made = summary(tmp_path, *rates(8), requests=64)
    percentiles = next(view for view in made.views if view.title.startswith("Latency, percentiles"))
    line = dict(zip((column.header for column in percentiles.columns), percentiles.cells[0], strict=True))
    assert re.fullmatch(r"5\d(\.\d)?", line["TTFT p50"])
    assert re.fullmatch(r"\(\d+(\.\d)?\)", line["TTFT p99"])
    assert int(line["p99 lacks"]) > 0


def test_a_running_server_without_a_quantization_is_called_by_its_name(tmp_path: Path):
    spec = make_online_spec(quant="unknown", workload="asked", points=rates(8))
    named = spec.model.model_copy(update={"name": "mine"})
    save(tmp_path, make_online(spec.model_copy(update={"platform": "unknown", "model": named})))
    text = summary_of(tmp_path, collect(tmp_path, None)).answer
    assert "mine keeps up with 8 req/s" in text
    assert "unknown" not in text
