"""What stands on top of the validation page: how each check came out, from the results that are there."""

from __future__ import annotations

from pathlib import Path

import fidelity
import pytest
import validation_page
from block_aa import BASELINE, OTHERS, AATable, BlockAA
from interval_coverage import Cell, Coverage
from kept import Place, Share, keep
from measured_rounds import Told
from outcomes import CHECKS, outcomes

PLACE = Place(processor="EPYC", cores=2, memory_gib=24, python="3.11", packages={"torch": "2"}, commit="0", load=0.1)
LOAD = {"prompts": 8, "samples_per_prompt": 4, "prompt_tokens": 64, "output_tokens": 32}


def told(verdict: str = "undetected", low: float | None = 0.98, high: float | None = 1.03) -> Told:
    """Return what a summary says of one configuration."""
    return Told(speedup=1.0, low=low, high=high, verdict=verdict, pairs=3, invalid=0, failed=0)


def make_aa(tables: int, false: int) -> BlockAA:
    """Return tables without raw passes, of which `false` report a difference."""
    made = []
    for number in range(tables):
        first = told("faster", 1.01, 1.05) if number < false else told()
        named = {BASELINE: told("baseline", None, None), OTHERS[0]: first, OTHERS[1]: told()}
        made.append(AATable(minutes=2.5, told=named, blocks=[]))
    return BlockAA(place=PLACE, tables=made)


def test_without_results_only_what_is_missing_is_told(tmp_path: Path) -> None:
    text = outcomes(tmp_path, ["one thing", "another"])
    assert text.startswith("- Nothing was run yet.")
    assert "Not run yet: one thing; another ([commands](#not-yet-shown))." in text
    assert "All engines ran on" not in text


@pytest.mark.parametrize(("false", "said"), [(0, "Nothing contradicts the promise."), (10, "NOT KEPT.")])
def test_false_verdicts_of_the_engine_are_held_to_the_promise(tmp_path: Path, false: int, said: str) -> None:
    keep("block_aa", make_aa(30, false), tmp_path)
    text = outcomes(tmp_path, [])
    assert f"**{said}**" in text
    assert f"A difference was reported in {false} of them, {Share(count=false, of=30)}; at most 5 %" in text
    assert "All engines ran on EPYC with 2 cores" in text
    assert "Not run yet" not in text


@pytest.mark.parametrize(
    ("theirs", "spread", "said"),
    [
        (1.0, 0.0001, "Yes, to within 2 %."),
        (1.1, 0.0001, "NO, they are more than 2 % apart."),
        (1.0, 0.1, "Not decided"),
    ],
)
def test_vllm_s_benchmark_sees_the_same_or_not_or_nobody_knows(
    tmp_path: Path, theirs: float, spread: float, said: str
) -> None:
    rounds = [
        fidelity.FidelityRound(
            index=index,
            passes_s={fidelity.OURS: 1.0, fidelity.THEIRS: theirs + spread * (-1) ** index},
            output_tokens=9,
        )
        for index in range(6)
    ]
    keep("fidelity", fidelity.Fidelity(place=PLACE, model="m", load=LOAD, drawn=True, rounds=rounds), tmp_path)
    assert f"**{said}" in outcomes(tmp_path, [])


def test_the_noise_that_breaks_a_promise_is_counted_and_the_worst_is_named(tmp_path: Path) -> None:
    cells = [
        Cell(noise=noise, pairs=3, covered=Share(count=count, of=1000))
        for noise, count in (("normal", 950), ("odd", 700), ("odder", 600))
    ]
    result = Coverage(seed=1, repetitions=1000, truth=1.05, confidence=0.95, cells=cells, apart=[])
    keep("coverage", result, tmp_path)
    text = outcomes(tmp_path, [])
    assert "**Yes under 1 of 3 kinds of noise**" in text
    assert f"At worst {Share(count=600, of=1000)} of the intervals hold the truth: odder." in text


def test_each_question_on_top_is_the_title_of_a_section() -> None:
    source = Path(validation_page.__file__).read_text()
    assert [title for *_, title in CHECKS if f'"{title}",' not in source] == []
