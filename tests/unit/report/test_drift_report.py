"""What a summary says of drift: a sentence first, each quant beside the reference's own floor, and what is missing."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from synthetic_drifts import SEQUENCES, TOKENS, drift_record, drift_rows, drift_spec, save_drift, save_rows
from synthetic_inside import INVALID
from synthetic_records import make_plan

from rollout_bench.analysis.inside.drifts import DriftReport
from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.stats.divergence import Bounded
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.side_files import read_scores
from rollout_bench.contracts.store import read_drift, scores_path, write_scores
from rollout_bench.core.errors import UserError
from rollout_bench.report.parts import Findings
from rollout_bench.report.summary import Summary, summarise
from rollout_bench.report.tables.drift_tables import scored_text, verdict_text

BF16, W8A8, W8A16 = drift_spec(), drift_spec("w8a8"), drift_spec("w8a16")

FLOOR = 0.002


def findings(results: Path) -> Findings:
    collection = collect(results, make_plan([BF16, W8A8, W8A16], launches=2))
    return Findings(collection, inside=look(results, collection, []), results=results)


def summary(results: Path) -> Summary:
    found = findings(results)
    return summarise(found.collection, looked=found.inside, results=results)


def report(results: Path) -> DriftReport:
    return findings(results).inside.drift


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a folder in which w8a8 drifts, and w8a16 is as noisy as bf16 itself."""
    for launch in (0, 1):
        save_drift(tmp_path, BF16, launch, FLOOR)
        save_drift(tmp_path, W8A8, launch, 10 * FLOOR)
        save_drift(tmp_path, W8A16, launch, 0.9 * FLOOR)
    return tmp_path


def test_each_experiment_is_held_against_the_references_first_launch_and_its_floor(results: Path):
    lines = [(one.chosen.label, scored_text(one), verdict_text(one)) for one in report(results).drifted]
    assert lines == [
        ("bf16", "while generating", "(reference)"),
        ("bf16", "8 at once", "(reference)"),
        ("bf16", "1 at once, other launches", "(reference)"),
        ("bf16", "8 at once, other launches", "(reference)"),
        ("w8a8", "1 at once", "drifts"),
        ("w8a8", "8 at once", "drifts"),
        ("w8a16", "1 at once", "no drift beyond the floor found"),
        ("w8a16", "8 at once", "no drift beyond the floor found"),
    ]
    one = report(results).drifted[4]
    assert (one.found.sequences, one.found.tokens) == (SEQUENCES, 2 * SEQUENCES * TOKENS)  # of both launches
    assert one.found.size.value == pytest.approx(10 * FLOOR * 0.798, rel=0.15)  # sqrt(2 / pi)
    assert one.found.agreement == Bounded(1, 1, 1)


def test_more_launches_that_score_alike_leave_the_weights_of_sequences_as_they_are(tmp_path: Path):
    save_drift(tmp_path, BF16, 0, FLOOR)
    rows = drift_rows(W8A8, 0, 0.2)
    save_rows(tmp_path, W8A8, 0, rows)
    (once,) = {
        one.found.sequence_ess for one in report(tmp_path).drifted if one.chosen.label == "w8a8" and one.batch == 8
    }
    save_rows(tmp_path, W8A8, 1, rows)
    (one,) = (one for one in report(tmp_path).drifted if one.chosen.label == "w8a8" and one.batch == 8)
    assert one.launches == (0, 1)
    assert one.found.sequence_ess == pytest.approx(once)
    assert once < 0.8


def test_the_sentence_comes_before_the_tables_and_the_numbers_are_in_a_file(results: Path):
    found = summary(results)
    text = found.markdown
    assert len(re.findall(r"^- qwen3-90m w8a8 policy, [18] at once \(less with [18]\): drifts more", text, re.M)) == 1
    assert len(re.findall(r"^- qwen3-90m w8a16 policy, .*?: no drift beyond the floor found\.", text, re.M)) == 1
    assert text.index("Drift: is it still the same policy?") < text.index("## Drift: cpu") < text.index("token ESS %:")
    assert "Drift, weights and choices: cpu" in text
    lines = list(csv.DictReader(io.StringIO(found.tables["drift.csv"])))
    assert [line["drifts"] for line in lines if line["quant"] == "w8a8"] == ["True", "True"]
    assert float(lines[4]["kl_k3_nats"]) == pytest.approx((10 * FLOOR) ** 2 / 2, rel=0.2)


def test_batches_that_drift_alike_share_a_sentence(tmp_path: Path):
    for launch in (0, 1):
        save_drift(tmp_path, BF16, launch, 0.0)
        save_drift(tmp_path, W8A16, launch, 0.0)
    text = summary(tmp_path).markdown
    assert "qwen3-90m w8a16 policy, 1 or 8 at once: no drift beyond the floor found." in text
    assert "it is above that by 0 at most." in text


def test_the_reference_against_itself_is_exactly_nothing_where_it_computes_the_same(tmp_path: Path):
    for launch in (0, 1):
        save_drift(tmp_path, BF16, launch, 0.0)
        save_drift(tmp_path, W8A16, launch, 0.0)
        save_drift(tmp_path, W8A8, launch, 1e-6)
    found = report(tmp_path)
    assert {one.found.largest for one in found.drifted if one.chosen.label != "w8a8"} == {0.0}
    assert {one.drifts for one in found.drifted if one.chosen.label == "w8a16"} == {False}
    assert {one.drifts for one in found.drifted if one.chosen.label == "w8a8"} == {True}


def test_without_a_second_batch_or_launch_there_is_no_floor_and_no_verdict(tmp_path: Path):
    alone, other = drift_spec(batches=(4,)), drift_spec("w8a8", batches=(4,))
    save_drift(tmp_path, alone, 0, FLOOR)
    save_drift(tmp_path, other, 0, FLOOR)
    collection = collect(tmp_path, None)
    found = summarise(collection, looked=look(tmp_path, collection, []), results=tmp_path)
    assert "There is no floor to hold it against: bf16 was scored with one batch in one launch." in found.markdown
    assert "| no floor |" in found.markdown


def test_an_invalid_first_launch_of_the_reference_leaves_its_others(results: Path):
    save_drift(results, BF16, 0, 5.0, flags=[INVALID])
    found = report(results)
    assert [scored_text(one) for one in found.drifted if one.of_reference] == ["8 at once"]
    assert found.problems == ()


def test_without_a_valid_reference_nothing_is_held_against_it_and_the_summary_says_so(results: Path):
    for launch in (0, 1):
        save_drift(results, BF16, launch, FLOOR, flags=[INVALID])
    assert report(results).drifted == ()
    text = summary(results).markdown
    assert f"{BF16.experiment()}: has no valid launch, so nothing is held against it; measure it again" in text


def test_what_scored_other_tokens_is_left_out_and_named(results: Path):
    rows = drift_rows(W8A8, 1, 10 * FLOOR)
    record = drift_record(W8A8, 1, rows).model_copy(update={"tokens_sha256": "b" * 64})
    path = results / "drift" / W8A8.experiment() / "launch-1.json"
    write_scores(path, record, rows)
    found = report(results)
    assert {one.launches for one in found.drifted if one.chosen.label == "w8a8"} == {(0,)}
    (problem,) = found.problems
    assert "scored other tokens than launch 0" in problem
    assert "launch-1.json" in problem


def test_a_damaged_side_file_is_named_and_its_launch_left_out(results: Path):
    path = scores_path(results / "drift" / W8A8.experiment() / "launch-0.json")
    path.write_bytes(path.read_bytes()[:-40])
    found = report(results)
    assert {one.launches for one in found.drifted if one.chosen.label == "w8a8"} == {(1,)}
    assert str(path) in found.problems[0]


def test_a_side_file_with_fewer_probabilities_than_tokens_is_refused(tmp_path: Path):
    rows = drift_rows(W8A8, 0, FLOOR)
    short = rows[0].model_copy(update={"first": rows[0].first[:-1]})
    path = tmp_path / "results" / "drift" / W8A8.experiment() / "launch-0.json"
    path.parent.mkdir(parents=True)
    write_scores(path, drift_record(W8A8, 0, rows), [short, *rows[1:]])
    with pytest.raises(UserError, match="line 1: has not as many probabilities as tokens"):
        read_scores(scores_path(path), read_drift(path))
