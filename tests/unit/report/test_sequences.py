"""Percentiles of sequences in a summary: which sequences count, what is claimed, and side files that are damaged."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import SEQUENCES, counted, make_plan, make_record, make_sequences, make_spec, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.latencies import pool_sequences
from rollout_bench.contracts.record import Flag, Record
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import record_path, sequences_path, write_record
from rollout_bench.report.rendering import WIDTH
from rollout_bench.report.summary import Summary, summarise

INVALID = Flag(code="quant_not_proven", severity="invalid", sentence="linear weights are bfloat16.")
BF16, W8A8 = make_spec(), make_spec(quant="w8a8")


def changed(spec: Spec, **workload: object) -> Spec:
    return spec.model_copy(update={"workload": spec.workload.model_copy(update=workload)})


def side_file(results: Path, spec: Spec = BF16, launch: int = 0) -> Path:
    return sequences_path(record_path(results, "offline", spec.experiment(), launch))


def summary(results: Path, *specs: Spec) -> Summary:
    collection = collect(results, make_plan(specs, launches=3))
    return summarise(collection, pool_sequences(results, collection))


def csv_row(made: Summary, place: int = 0) -> dict[str, str]:
    return list(csv.DictReader(io.StringIO(made.csv)))[place]


def cells(made: Summary, title: str) -> dict[str, list[str]]:
    """Quant -> the cells of the table whose title begins so, from the Markdown."""
    table = made.markdown.split(f"## {title}")[1].split("## ")[0].replace("\\", "")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_counted_sequences_of_valid_launches_are_pooled(tmp_path: Path) -> None:
    save(tmp_path, make_record(BF16, 0, [400.0, 410.0]), make_record(BF16, 1, [420.0, 430.0]))
    save(tmp_path, make_record(BF16, 2, flags=[INVALID]))
    collection = collect(tmp_path, None)
    (pooled,) = pool_sequences(tmp_path, collection)
    assert pooled.reasons == ()
    assert set(pooled.values) == {"e2el_s", "ttft_s"}
    expected = [
        row.last_token_s
        for record in collection.experiments[0].records[:2]
        for row in make_sequences(record)
        if row.iteration > 0
    ]
    assert sorted(pooled.values["e2el_s"]) == pytest.approx(sorted(expected))
    assert len(expected) == 4 * SEQUENCES


def test_tables_show_the_highest_claim_and_what_the_last_lacks(tmp_path: Path) -> None:
    save(tmp_path, *(make_record(BF16, launch) for launch in range(3)), make_record(W8A8, 0, [500.0] * 1))
    made = summary(tmp_path, BF16, W8A8)
    e2el = cells(made, "Time until a sequence is complete (E2EL), s")
    assert e2el["quant"] == ["sequences", "p50", "p90", "highest claimed", "to claim p99"]
    assert e2el["bf16"][0] == "288"  # 3 launches of 3 iterations of 32
    assert e2el["bf16"][3].startswith("p97 ")
    assert e2el["bf16"][4] == "374 more"
    assert e2el["w8a8"][2] == "-"
    assert e2el["w8a8"][3].startswith("p50 ")
    assert e2el["w8a8"][4] == "630 more"
    assert "bf16" in cells(made, "Time to first token (TTFT), s")
    assert "Output length" not in made.markdown
    told = " ".join(made.markdown.split())
    assert "Independent values that each percentile takes: p50 11, p90 64, p95 130, p97 219, p99 662." in told
    assert "A batch whose sequences all run in step counts as one value." in told


def test_the_csv_has_every_claimed_percentile_with_its_interval_and_nothing_for_the_others(tmp_path: Path) -> None:
    save(tmp_path, *(make_record(BF16, launch) for launch in range(3)))
    row = csv_row(summary(tmp_path, BF16))
    values = pool_sequences(tmp_path, collect(tmp_path, None))[0].values["e2el_s"]
    assert row["sequences"] == "288"
    assert row["e2el_independent"] == "288"
    assert float(row["e2el_p90_s"]) == np.quantile(values, 0.9, method="inverted_cdf")
    assert float(row["ttft_p90_s"]) == pytest.approx(float(row["e2el_p90_s"]) / 10)
    assert float(row["e2el_p97_low_s"]) <= float(row["e2el_p97_s"]) <= float(row["e2el_p97_high_s"])
    assert row["e2el_p99_s"] == row["ttft_p99_high_s"] == row["output_tokens_p50"] == ""


def test_a_sample_that_is_large_enough_claims_the_last(tmp_path: Path) -> None:
    save(tmp_path, *(make_record(BF16, launch, [400.0 + launch] * 7) for launch in range(3)))
    e2el = cells(summary(tmp_path, BF16), "Time until a sequence is complete")["bf16"]
    assert (e2el[0], e2el[3][:4], e2el[4]) == ("672", "p99 ", "claimed")


def test_sequences_that_run_in_step_claim_as_much_as_there_are_batches(tmp_path: Path) -> None:
    record = make_record(BF16, 0, [400.0 + step for step in range(12)])
    step = [row.model_copy(update={"last_token_s": 2.0 + row.iteration}) for row in make_sequences(record)]
    write_record(record_path(tmp_path, "offline", BF16.experiment(), 0), record, step)
    made = summary(tmp_path, BF16)
    e2el = cells(made, "Time until a sequence is complete")["bf16"]
    assert e2el[0] == "384 (12)"
    assert e2el[1].startswith("8.00 [")
    assert e2el[2:] == [f"p50 {e2el[1]}", "650 more"]
    assert csv_row(made)["e2el_p90_s"] == ""
    assert cells(made, "Time to first token")["bf16"][3].startswith("p97")


def test_what_can_claim_no_percentile_has_no_table_and_a_reason(tmp_path: Path) -> None:
    record = make_record(BF16, 0, [400.0 + step for step in range(4)])
    step = [row.model_copy(update={"last_token_s": 2.0 + row.iteration}) for row in make_sequences(record)]
    write_record(record_path(tmp_path, "offline", BF16.experiment(), 0), record, step)
    made = summary(tmp_path, BF16)
    assert "## Time until a sequence is complete" not in made.markdown
    assert "## Time to first token" in made.markdown
    assert "qwen3-90m bf16 small: Time until a sequence is complete (E2EL) not shown, because" in " ".join(
        made.text.split()
    )


def test_lengths_have_a_table_where_the_model_may_end_them(tmp_path: Path) -> None:
    free = changed(BF16, ignore_eos=False)
    record = make_record(free)
    rows = [row.model_copy(update={"output_tokens": 1 + row.sample}) for row in make_sequences(record)]
    write_record(record_path(tmp_path, "offline", free.experiment(), 0), counted(record, rows), rows)
    made = summary(tmp_path, free)
    assert cells(made, "Output length, tokens")["bf16"][:3] == ["96", "2.00 [2.00, 3.00]", "4.00 [4.00, 4.00]"]
    assert csv_row(made)["output_tokens_p90"] == "4.0"


def test_requests_that_lose_the_times_have_no_table_and_a_reason(tmp_path: Path) -> None:
    grouped = changed(BF16, requests="per_prompt")
    record = make_record(grouped)
    path = record_path(tmp_path, "offline", grouped.experiment(), 0)
    write_record(path, record, make_sequences(record, times=False))
    made = summary(tmp_path, grouped)
    assert "E2EL" not in made.markdown
    assert "no times of single sequences, requests: per_prompt keeps none." in " ".join(made.text.split())
    assert csv_row(made)["e2el_p50_s"] == ""


def test_a_missing_side_file_is_told_and_its_launch_left_out(tmp_path: Path) -> None:
    save(tmp_path, make_record(BF16, 0), make_record(BF16, 1))
    side_file(tmp_path, launch=1).unlink()
    made = summary(tmp_path, BF16)
    assert csv_row(made)["sequences"] == "96"
    expected = f"bf16 small: launch 1 is not among them, {side_file(tmp_path, launch=1)}: is missing."
    assert expected in " ".join(made.text.split())
    side_file(tmp_path, launch=0).unlink()
    assert "E2EL" not in summary(tmp_path, BF16).markdown


def test_a_side_file_without_all_rows_is_told_and_its_launch_left_out(tmp_path: Path) -> None:
    save(tmp_path, make_record(BF16, 0), make_record(BF16, 1))
    lines = gzip.decompress(side_file(tmp_path).read_bytes()).splitlines(keepends=True)
    side_file(tmp_path).write_bytes(gzip.compress(b"".join(lines[:-1])))
    made = summary(tmp_path, BF16)
    assert csv_row(made)["sequences"] == "96"
    assert "launch-0.sequences.jsonl.gz: has 127 of 128 rows" in " ".join(made.text.split())


def replaced(line: int, old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Return a change of one line (from 1) of a side file."""

    def change(content: bytes) -> bytes:
        lines = gzip.decompress(content).splitlines(keepends=True)
        assert old in lines[line - 1]
        lines[line - 1] = lines[line - 1].replace(old, new)
        return gzip.compress(b"".join(lines))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replaced(7, b'"last_token_s":', b'"last_token_s":"soon",'), "line 7: "),
        (replaced(3, b'"iteration":0', b'"iteration":-1'), "line 3: iteration: "),
        (replaced(128, b'"sample"', b'"example"'), "line 128: "),
        (replaced(1, b'"first_token_s":', b'"first_token_s":NaN,"x":'), "line 1: "),
        (replaced(5, b"{", b""), "line 5: Invalid JSON"),
        (replaced(6, b'"prompt"', b'"pr\xff"'), "line 6: "),
        (lambda content: content[:-40], "line "),
        (lambda content: content[:200] + bytes(100) + content[300:], "line "),
        (lambda _: b"no gzip at all", "line 1: "),
    ],
    ids=["words", "negative", "unknown", "nan", "json", "utf8", "truncated", "flipped", "nogzip"],
)
def test_a_damaged_side_file_is_told_with_file_and_line_and_its_launch_left_out(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    save(tmp_path, make_record(BF16, 0), make_record(BF16, 1))
    path = side_file(tmp_path)
    path.write_bytes(change(path.read_bytes()))
    collection = collect(tmp_path, None)
    (pooled,) = pool_sequences(tmp_path, collection)
    (reason,) = pooled.reasons
    assert reason.startswith(f"launch 0 is not among them, {path}: {words}")
    assert pooled.values["e2el_s"].size == 3 * SEQUENCES
    assert collection.damaged == []


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    record = make_record(BF16, 0)
    save(tmp_path, record)
    assert read_sequences(side_file(tmp_path), record) == make_sequences(record)


def test_every_table_fits_a_terminal(tmp_path: Path) -> None:
    specs = [
        changed(make_spec(m, q, w), ignore_eos=False)
        for m in ("qwen3-1.7b", "pangu-7b", "qwen3-30b-a3b")
        for w in ("verl-default", "long-tail")
        for q in ("bf16", "w8a16", "w8a8")
    ]
    for number, spec in enumerate(specs):
        save(tmp_path, *(slow(spec, launch, 0.9 + number / 10) for launch in range(3)))
    made = summary(tmp_path, *specs)
    assert max(map(len, made.text.splitlines())) <= WIDTH
    assert made.text.isascii()


def slow(spec: Spec, launch: int, rate: float) -> Record:
    """Return a launch with a real one's cost in every column; iterations of a quarter of an hour."""
    record = make_record(spec, launch, [rate, rate * 1.01, rate * 1.02])
    reported = {"weights_load_s": 12.3, "compile_s": 45.6, "graph_capture_s": 17.8}
    startup = record.startup.model_copy(update={"import_s": 19.4, "init_s": 157.2, "reported": reported})
    return record.model_copy(update={"startup": startup, "wall_s": 4321.0 + record.wall_s})
