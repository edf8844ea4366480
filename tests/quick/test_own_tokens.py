"""What a summary says of tokens that each quant sampled itself, and the reference scored: the direction of training."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from synthetic_drifts import SEQUENCES, drift_spec, own_spec, rows_of, save_rows, scorer_spec
from synthetic_inside import INVALID
from synthetic_records import make_plan

from rollout_bench.analysis.inside.drifts import DriftReport
from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.record import Flag
from rollout_bench.report.summary import Summary, summarise
from rollout_bench.report.tables.drift_tables import scored_text, verdict_text

BF16, W8A8 = drift_spec(), own_spec("w8a8")
SCORER = scorer_spec(W8A8)
A, B = "a" * 64, "b" * 64

LOGITS = np.random.default_rng(4).normal(0, 3, 50)


def law(temperature: float) -> np.ndarray:
    """Return the log probabilities of a softmax over `LOGITS`."""
    scaled = LOGITS / temperature
    return scaled - np.log(np.exp(scaled).sum())


def save(
    results: Path,
    temperature: float,
    *,
    tokens: int = 12,
    decode: float = 0.0,
    transformers: float | None = None,
    scored: str = B,
    reference_flags: tuple[Flag, ...] = (),
    sampler_flags: tuple[Flag, ...] = (),
) -> None:
    """Write launches of a reference and of what is it at another `temperature`; it decodes with noise of `decode`.

    With `transformers` this has scored, too, and gives tokens so much more than the reference does.
    """
    p, q = law(1.0), law(temperature)
    generator = np.random.default_rng(8)
    theirs, own = (generator.choice(50, size=(SEQUENCES, tokens), p=np.exp(each)) for each in (p, q))
    noise, more = decode * generator.normal(size=(2, SEQUENCES, tokens))
    scores = [row for batch in (1, 8) for row in rows_of(batch, p[theirs], theirs)]
    besides, more_besides = (
        [
            row.model_copy(update={"batch": None, "by": "transformers"})
            for row in rows_of(1, p[each] + transformers, each)
        ]
        if transformers is not None
        else []
        for each in (theirs, own)
    )
    save_rows(results, BF16, 0, [*rows_of(None, p[theirs] + noise, theirs), *scores, *besides], reference_flags)
    save_rows(results, BF16, 1, scores)
    beside = [row for batch in (1, 8) for row in rows_of(batch, q[theirs], theirs)]
    sampled = [*rows_of(None, q[own] + more, own), *beside]
    save_rows(results, W8A8, 0, sampled, sampler_flags, own_tokens_sha256=B)
    save_rows(results, W8A8, 1, beside)
    judged = [row for batch in (1, 8) for row in rows_of(batch, p[own], own)]
    save_rows(results, SCORER, 0, [*judged, *more_besides], tokens_sha256=scored)


class Noises(NamedTuple):
    """Standard deviations: of bf16 in another batch, and from generating to scoring; of w8a8 in each direction."""

    batch: float
    decode: float
    theirs: float
    own: float


class Sizes(NamedTuple):
    """Mean |d| of what was written: of the floor and of w8a8 with the larger batch, in one direction."""

    floor: float
    quant: float


def noisy(results: Path, noises: Noises) -> tuple[Sizes, Sizes]:
    """Write launches whose probabilities are a truth with noise; return what they are of theirs and of own tokens."""
    truth, *drawn = np.random.default_rng(3).normal(size=(5, SEQUENCES, 12))
    truth -= 8
    batch, decode, theirs, own = (size * noise for size, noise in zip(noises, drawn, strict=True))
    ids = np.full(truth.shape, 7)
    scores = [*rows_of(1, truth, ids), *rows_of(8, truth + batch, ids)]
    save_rows(results, BF16, 0, [*rows_of(None, truth + decode, ids), *scores])
    beside = [row for size in (1, 8) for row in rows_of(size, truth + theirs, ids)]
    save_rows(results, W8A8, 0, [*rows_of(None, truth, ids), *beside], own_tokens_sha256=B)
    judged = [row for size in (1, 8) for row in rows_of(size, truth + own, ids)]
    save_rows(results, SCORER, 0, judged, tokens_sha256=B)
    generated = max(np.abs(decode).mean(), np.abs(batch - decode).mean())
    return Sizes(np.abs(batch).mean(), np.abs(theirs).mean()), Sizes(generated, np.abs(own).mean())


def summary(results: Path) -> Summary:
    collection = collect(results, make_plan([BF16, W8A8, SCORER], launches=2))
    return summarise(collection, looked=look(results, collection, []), results=results)


def report(results: Path) -> DriftReport:
    return look(results, collect(results, None), []).drift


@pytest.mark.parametrize("temperature", [1.02, 2.0])
def test_each_direction_comes_out_at_the_divergence_of_its_own_sampler(tmp_path: Path, temperature: float):
    save(tmp_path, temperature, tokens=1500)
    p, q = law(1.0), law(temperature)
    theirs, own = ((np.exp(a) * (a - b)).sum() for a, b in ((p, q), (q, p)))
    if temperature == 2.0:
        assert abs(theirs - own) > 0.3 * own  # so that one can't be taken for the other
    found = report(tmp_path)
    for one, exact in ((found.drifted[-1].found, theirs), (found.own[-1].found, own)):
        assert one.k1.low < exact < one.k1.high
        assert one.k3.value == pytest.approx(exact, rel=0.1)
    corrected = np.exp(q) * (np.exp(p - q) > 2)  # weights of training: the reference's over the sampler's
    assert found.own[-1].found.clipped.value == pytest.approx(corrected.sum(), abs=0.01)


def test_the_floor_is_the_reference_from_generating_to_scoring(tmp_path: Path):
    save(tmp_path, 2.0, decode=0.01)
    own = report(tmp_path).own
    assert [(one.chosen.label, scored_text(one), verdict_text(one)) for one in own] == [
        ("bf16", "1 at once", "(reference)"),
        ("bf16", "8 at once", "(reference)"),
        ("bf16", "1 at once, other launches", "(reference)"),
        ("bf16", "8 at once, other launches", "(reference)"),
        ("w8a8", "1 at once", "drifts"),
        ("w8a8", "8 at once", "drifts"),
    ]
    floor = report(tmp_path).floor_of(own[-1])
    assert floor is not None
    assert floor.own
    assert floor.found.size.value == pytest.approx(0.01 * 0.798, rel=0.15)  # sqrt(2 / pi)


SIZE = st.floats(1e-4, 0.3)

# Examples write files; none is looked for that is simpler, which takes minutes.
FEW = settings(max_examples=settings.default.max_examples // 12, phases=(Phase.generate,))


@FEW
@given(st.builds(Noises, SIZE, SIZE, SIZE, SIZE))
def test_each_direction_is_held_against_the_floor_of_its_own(noises: Noises):
    with tempfile.TemporaryDirectory() as folder:
        written = noisy(Path(folder), noises)
        found = report(Path(folder))
    for ones, sizes in zip((found.drifted, found.own), written, strict=True):
        judged = [one for one in ones if not one.of_reference]
        assert len(judged) == 2
        for one in judged:
            floor = found.floor_of(one)
            assert floor is not None
            assert floor.found.size.value == pytest.approx(sizes.floor)
            assert one.found.size.value == pytest.approx(sizes.quant)
            assert one.beyond is not None
            assert one.beyond.value == pytest.approx(sizes.quant - sizes.floor, abs=1e-9)


@FEW
@given(st.floats(1e-4, 1e-2), st.floats(4, 20), st.floats(4, 20))
def test_the_same_size_drifts_where_it_is_beyond_its_floor_and_not_in_the_other_direction(
    batch: float, above: float, below: float
):
    size = batch * above
    with tempfile.TemporaryDirectory() as folder:
        noisy(Path(folder), Noises(batch, size * below, size, size))
        found = report(Path(folder))
    assert {one.drifts for one in found.drifted if not one.of_reference} == {True}
    assert {one.drifts for one in found.own if not one.of_reference} == {False}


def test_the_same_model_does_not_drift_and_is_exactly_nothing_where_decoding_computes_as_scoring_does(tmp_path: Path):
    save(tmp_path, 1.0)
    assert {one.found.largest for one in report(tmp_path).own} == {0.0}
    assert [one.drifts for one in report(tmp_path).own] == [None] * 4 + [False] * 2
    save(tmp_path, 1.0, decode=0.01)
    assert [one.drifts for one in report(tmp_path).own] == [None] * 4 + [False] * 2


def test_the_summary_says_it_below_the_other_direction_with_tables_and_a_file(tmp_path: Path):
    save(tmp_path, 2.0, decode=0.01)
    found = summary(tmp_path)
    text = found.markdown
    sentence = (
        r"w8a8 policy, on tokens of its own, which bf16 scored [^:]* at once[^:]*: drifts more than bf16 does from"
    )
    assert len(re.findall(sentence, text)) == 1
    assert "% of those of bf16 itself." in text
    assert text.index("## Drift: cpu") < text.index("## Drift on own tokens: cpu")
    lines = list(csv.DictReader(io.StringIO(found.tables["drift.csv"])))
    assert [line["quant"] for line in lines if line["tokens_of"] == "own"] == ["bf16"] * 4 + ["w8a8"] * 2
    assert {line["setting"] for line in lines} == {"default"}
    assert {line["tokens_of"] for line in lines} == {"reference", "own"}


def test_what_was_not_scored_as_it_was_sampled_is_left_out_and_named(tmp_path: Path):
    save(tmp_path, 2.0, scored=A)
    (problem,) = report(tmp_path).problems
    assert f"{SCORER.experiment()}/launch-0.json: scored other tokens than launch 0 of {W8A8.experiment()}" in problem
    assert {one.chosen.label for one in report(tmp_path).own} == {"bf16"}


def test_without_a_valid_launch_that_sampled_only_the_other_direction_is_told(tmp_path: Path):
    save(tmp_path, 2.0, sampler_flags=(INVALID,))
    (problem,) = report(tmp_path).problems
    assert "launch 0 sampled tokens and is not valid; measure it again" in problem
    assert {one.launches for one in report(tmp_path).drifted if one.chosen.label == "w8a8"} == {(1,)}


def test_without_a_valid_first_launch_of_the_reference_there_is_no_floor(tmp_path: Path):
    save(tmp_path, 2.0, reference_flags=(INVALID,))
    found = report(tmp_path)
    assert [(one.chosen.label, verdict_text(one)) for one in found.own] == [("w8a8", "no floor")] * 2
    assert "there is no floor to hold it against" in summary(tmp_path).markdown


def test_what_another_program_scored_in_records_of_earlier_versions_is_left_out(tmp_path: Path):
    save(tmp_path, 2.0)
    before = report(tmp_path)
    save(tmp_path, 2.0, transformers=0.25)
    after = report(tmp_path)
    assert after.problems == ()
    assert [(one.launches, one.found) for one in (*after.drifted, *after.own)] == [
        (one.launches, one.found) for one in (*before.drifted, *before.own)
    ]


def test_a_reference_that_has_not_scored_yet_is_named(tmp_path: Path):
    save(tmp_path, 2.0)
    for path in (tmp_path / "drift" / SCORER.experiment()).iterdir():
        path.unlink()
    (problem,) = report(tmp_path).problems
    assert "no valid launch of the reference has scored the tokens that it sampled" in problem
