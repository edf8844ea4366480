"""The real runs of the validation in small: what is read from records, what is counted, and what the page says."""

from __future__ import annotations

import math
import re
from pathlib import Path

import block_aa
import demo_repeats
import fidelity
import measured_rounds
import numpy as np
import online_clients
import online_fidelity
import power_minutes
import pytest
import region
import validation_page
from kept import Place, Share, keep
from measured_rounds import MeasuredBlock, Told
from online_sections import online_fidelity as online_page
from synthetic_records import make_record, make_spec

from rollout_bench.contracts.store import write_record

PLACE = Place(processor="EPYC", cores=2, memory_gib=24, python="3.11", packages={"torch": "2"}, commit="0", load=0.1)
NAMES = (block_aa.BASELINE, *block_aa.OTHERS)
LOAD = {"prompts": 8, "samples_per_prompt": 4, "prompt_tokens": 64, "output_tokens": 32}


def make_told(quant_verdict: str = "undetected", low: float = 0.98, high: float = 1.03) -> Told:
    """Return what a summary says of one configuration."""
    return Told(speedup=(low * high) ** 0.5, low=low, high=high, verdict=quant_verdict, pairs=3, invalid=0, failed=0)


def make_blocks(
    count: int, start_sd: float = 0.0, round_sd: float = 0.02, rounds: int = 12, names: tuple[str, ...] = NAMES
) -> list[MeasuredBlock]:
    """Return blocks whose passes take a second, with normal noise of starts and of passes."""
    rng = np.random.default_rng(7)
    blocks = []
    for launch in range(count):
        starts = start_sd * rng.normal(size=len(names))
        passes = np.exp(starts + 0.1 * rng.normal() + round_sd * rng.normal(size=(rounds, len(names))))
        blocks.append(
            MeasuredBlock(
                launch=launch,
                seconds=60.0,
                interleaved=True,
                invalid=[],
                startup_s=dict.fromkeys(names, 10.0),
                passes_s={name: passes[:, place].tolist() for place, name in enumerate(names)},
            )
        )
    return blocks


def make_aa(tables: int, false: int = 0) -> block_aa.BlockAA:
    """Return tables of three blocks, of which `false` find something."""
    made = []
    for number in range(tables):
        wrong = number < false
        told = {
            block_aa.BASELINE: Told(
                speedup=None, low=None, high=None, verdict="baseline", pairs=0, invalid=0, failed=0
            ),
            block_aa.OTHERS[0]: make_told("faster", 1.01, 1.05) if wrong else make_told(),
            block_aa.OTHERS[1]: make_told(),
        }
        made.append(block_aa.AATable(minutes=2.5, told=told, blocks=make_blocks(3)))
    return block_aa.BlockAA(place=PLACE, tables=made)


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_block_has_the_passes_of_each_round_in_order_and_goes_from_first_start_to_last_end(
    tmp_path: Path, interleaved: bool
) -> None:
    for quant, minute in (("bf16", "00"), ("w8a8", "01")):
        spec = make_spec(quant=quant)
        record = make_record(spec, launch=2, rates=(400.0, 200.0, 100.0))
        changes: dict[str, object] = {"started_at": f"2026-01-01T00:{minute}:00Z", "wall_s": 30.0}
        if interleaved:
            measured = record.iterations[1:]
            late_first = [one.model_copy(update={"round": 2 - place}) for place, one in enumerate(measured)]
            changes["iterations"] = [record.iterations[0], *late_first]
            changes["block"] = {
                "id": "0" * 16,
                "members": ["offline/a", "offline/b"],
                "at_once": 2,
                "order": [[0, 1]] * 3,
                "started": "in_turn",
                "waited_s": 0.0,
            }
        record = type(record).model_validate(record.model_dump() | {"sha256": None} | _plain(changes))
        write_record(tmp_path / "offline" / spec.experiment() / "launch-2.json", record, [])
    (block,) = measured_rounds.read_blocks(tmp_path)
    assert (block.launch, block.seconds, block.interleaved) == (2, 90.0, interleaved)
    expected = [2.56, 5.12, 10.24]
    assert block.passes_s["w8a8"] == (expected[::-1] if interleaved else expected)


def _plain(changes: dict[str, object]) -> dict[str, object]:
    iterations = changes.get("iterations")
    if isinstance(iterations, list):
        return changes | {"iterations": [one.model_dump() for one in iterations]}
    return changes


def test_a_trimmed_mean_leaves_a_fifth_out_at_each_end() -> None:
    assert measured_rounds.trimmed_mean(np.array([100.0, 1, 2, 3, -50])) == 2
    assert measured_rounds.trimmed_mean(np.array([1.0, 2, 3, 6])) == 3  # of four none is left out


def test_a_summary_is_read_as_it_stands(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="missing"):
        measured_rounds.read_told(tmp_path)
    (tmp_path / "summary.csv").write_text(
        "quant,speedup,speedup_low,speedup_high,verdict,pairs,launches_invalid,launches_failed\n"
        "bf16,,,,baseline,,0,0\nw8a8,1.25,1.0,1.21,faster,3,1,\n"
    )
    told = measured_rounds.read_told(tmp_path)
    assert told["bf16"].half_width is None
    assert told["w8a8"].half_width == pytest.approx(0.1)
    assert (told["w8a8"].found, told["w8a8"].invalid, told["bf16"].found) == (True, 1, False)


def test_false_verdicts_are_those_of_the_summaries() -> None:
    result = make_aa(10, false=2)
    assert result.false == Share(count=2, of=10)
    assert result.covered == Share(count=8, of=10)


def test_a_table_worked_out_again_finds_what_is_there_and_nothing_else() -> None:
    table = make_aa(1).tables[0]
    assert block_aa.recomputed(table) is False
    slow = [
        one.model_copy(
            update={"passes_s": one.passes_s | {"bf16-b": [1.3 * seconds for seconds in one.passes_s["bf16-b"]]}}
        )
        for one in table.blocks
    ]
    assert block_aa.recomputed(table.model_copy(update={"blocks": slow})) is True


def test_a_start_effect_is_told_from_the_noise_of_passes() -> None:
    none, some = (block_aa.start_effect(make_blocks(60, start_sd=sd)) for sd in (0.0, 0.02))
    assert none.p > 0.05
    assert none.sd_high < 0.01
    assert some.p < 1e-6
    assert some.sd == pytest.approx(0.02, rel=0.25)
    assert some.sd < some.sd_high
    assert none.round_sd == pytest.approx(0.02, rel=0.1)


def test_independent_rounds_correlate_as_short_blocks_let_them() -> None:
    for found, white in block_aa.correlations(make_blocks(60)):
        assert white < 0
        assert found == pytest.approx(white, abs=0.08)


def make_series(noise: float) -> power_minutes.PowerSeries:
    """Return ten blocks of a minute for each design."""
    designs = {}
    for design in power_minutes.DESIGNS:
        blocks = make_blocks(10, round_sd=noise, names=("bf16", "w8a8", "w8a16"))
        told = {quant: make_told("faster", 1.0, 1.1) for quant in power_minutes.OTHERS}
        designs[design] = [power_minutes.GrownBlock(block=block, told=told) for block in blocks]
    return power_minutes.PowerSeries(designs=designs)


def test_half_widths_are_those_of_as_many_blocks_as_the_minutes_had() -> None:
    series = make_series(0.02)
    assert [series.blocks_after("before", minutes) for minutes in (0.0, 3.6, 4.4, 99.0)] == [0, 4, 4, 10]
    assert power_minutes.half_width(series, "shipped", 4) == pytest.approx(1.1**0.5 - 1)
    assert power_minutes.half_width(series, "shipped", 0) is None
    few, many = (power_minutes.half_width_alone(series, minutes) for minutes in (3, 10))
    assert few is not None
    assert many is not None
    assert few > many > 0


def test_one_slow_round_moves_the_trimmed_ratio_little() -> None:
    rng = np.random.default_rng(1)
    logs = (0.01 * rng.normal(size=60)).tolist()
    quiet, slow = region.trimmed_ratio(logs), region.trimmed_ratio([*logs[:-1], 3.0])
    assert quiet.low < 1 < quiet.high
    assert slow.ratio == pytest.approx(quiet.ratio, abs=0.002)
    assert math.log(quiet.high / quiet.low) == pytest.approx(2 * 2.0 * 0.01 / math.sqrt(60), rel=0.35)


def test_arms_take_their_turns_at_random_and_the_same_each_time() -> None:
    orders = region.orders(60)
    assert orders[:10] == region.orders(10)
    first = sum(order[0] == "ours" for order in orders)
    assert 18 <= first <= 42
    assert all(sorted(order) == sorted(region.ARMS) for order in orders)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (1.0, "lies within 2 % of 1: held; the whole interval lies within 0.5 %"),
        (1.1, "MORE than 2 % apart: FAILED"),
        (0.9, "MORE than 2 % apart: FAILED"),
    ],
)
def test_the_page_holds_vllm_s_benchmark_to_both_criteria(tmp_path: Path, theirs: float, said: str) -> None:
    rounds = [
        fidelity.FidelityRound(
            index=index,
            passes_s=dict.fromkeys(fidelity.ARMS, 1.0) | {"theirs": theirs + index / 10_000},
            output_tokens=9,
        )
        for index in range(5)
    ]
    rounds[0].passes_s["bare"] = 1.001
    keep("fidelity", fidelity.Fidelity(place=PLACE, model="m", load=LOAD, drawn=True, rounds=rounds), tmp_path)
    assert said in " ".join(validation_page.page(tmp_path).split())


def test_sections_of_real_runs_stand_there_only_once_they_were_run(tmp_path: Path) -> None:
    titles = {
        "block_aa": "## How often does a real table find a difference where there is none?",
        "power_minutes": "## How narrow is an interval after some minutes?",
        "demo_repeats": "## Does the demo decide its comparisons?",
        "region": "## Is the timed region itself the same?",
    }
    assert not any(title in validation_page.page(tmp_path) for title in titles.values())
    runs = [
        demo_repeats.DemoRun(minutes=7.0, told={"w8a8": make_told("faster"), "w8a16": make_told(said)}, blocks=[])
        for said in ("slower", "undetected")
    ]
    keep("block_aa", make_aa(30, false=1), tmp_path)
    keep("power_minutes", power_minutes.PowerMinutes(place=PLACE, series=[make_series(0.02)]), tmp_path)
    keep("demo_repeats", demo_repeats.DemoRepeats(place=PLACE, runs=runs), tmp_path)
    passes = [
        region.RegionRound(index=index, engine=0, passes_s={"ours": 1.0, "theirs": 1 + (-1) ** index / 1000})
        for index in range(10)
    ]
    keep("region", region.Region(place=PLACE, model="m", load=LOAD, rounds=passes), tmp_path)
    text = validation_page.page(tmp_path)
    assert all(title in text for title in titles.values())
    assert "| with a false verdict | 3.3 % [0.1, 17.2] |" in text
    assert "- w8a8: decided in 2 of 2 runs" in text
    assert "- w8a16: decided in 1 of 2 runs" in text
    assert "What is timed is the same" in " ".join(text.split())
    assert re.search(r"^\| 4 \| \d+\.\d % \| 4\.9 % \| 4\.9 % \|", text, re.MULTILINE)
    assert "nan" not in text.lower().split()


def test_the_engine_s_steps_of_each_client_are_told() -> None:
    def seen(steps: int | None) -> online_clients.Seen:
        return online_clients.Seen(
            ttft_ms=1, tpot_ms=1, itl_ms=1, output_tokens_per_s=1, output_tokens=512, steps=steps
        )

    def page(ours: int | None, bench: int | None) -> str:
        rounds = [
            online_fidelity.Round(
                index=index,
                clients={
                    name: seen(steps).model_copy(update={"ttft_ms": 1 + index / 100 + 0.001 * len(name) * index})
                    for name, steps in (("ours", ours), ("bench", bench))
                },
            )
            for index in range(3)
        ]
        for number, one in enumerate(rounds):
            for measure in ("tpot_ms", "itl_ms", "output_tokens_per_s"):
                rounds[number].clients["ours"] = (
                    rounds[number].clients["ours"].model_copy(update={measure: 1 + number / 100})
                )
            assert one.index == number
        result = online_fidelity.OnlineFidelity(
            place=PLACE, model="m", server=[], load=online_fidelity.LOAD, rounds=rounds
        )
        return online_page(result)

    assert "Steps of the engine" not in page(None, None)
    assert "64.00 for rollout-bench, 64.00 for `vllm bench serve`, so requests reach the engine alike" in page(64, 64)
    assert "so requests reach the engine at other moments" in page(64, 66)


def test_steps_are_read_from_the_server_s_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    answers = [
        b'vllm:iteration_tokens_total_bucket{le="1"} 9\nvllm:iteration_tokens_total_count{engine="0"} %d.0\n' % count
        for count in (7, 8, 8)
    ]
    monkeypatch.setattr(online_fidelity.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(answers.pop(0)))
    assert online_fidelity.engine_steps("http://x/v1") == 8
    assert not answers
    monkeypatch.setattr(online_fidelity.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"other 1\n"))
    assert online_fidelity.engine_steps("http://x/v1") is None
