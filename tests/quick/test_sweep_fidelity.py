"""The best setting by vLLM's own way to sweep: what its runs come to, when two answers agree, what the page says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from kept import Place
from planned import planned
from sampling_loop import Loop
from scipy import stats
from sweep_fidelity import CONFIG, GRID, SweepAnswer, SweepFidelity, agreement, answer_of, arguments_of
from sweep_section import sweep_fidelity

PLACE = Place(processor="EPYC", cores=2, memory_gib=24, python="3.11", packages={"torch": "2"}, commit="0", load=0.1)
LOAD = {"prompts": 8, "samples_per_prompt": 4, "prompt_tokens": 64, "output_tokens": 32}
TRIALS = 500


def runs(levels: dict[str, float], count: int = 6, seed: int = 1) -> dict[str, list[float]]:
    """Return rates that scatter by one per cent about their levels."""
    rng = np.random.default_rng(seed)
    return {name: list(level * np.exp(0.01 * rng.normal(size=count))) for name, level in levels.items()}


def test_the_best_is_named_with_what_can_not_be_told_from_it() -> None:
    answer = answer_of(runs({"slow": 100.0, "fast": 200.0, "as fast": 200.5}))
    assert answer is not None
    assert answer.may_be == {"fast", "as fast"}
    assert answer.others == ["slow"]
    assert [answer.says(name) for name in ("slow", "elsewhere")] == ["not the best", "-"]


def test_the_truly_best_is_ruled_out_at_most_as_often_as_promised() -> None:
    levels = {"one": 100.0, "other": 100.0, "best": 100.5}
    answers = [answer_of(runs(levels, 3, seed)) for seed in range(TRIALS)]
    missed = sum(answer is None or "best" not in answer.may_be for answer in answers)
    assert stats.binomtest(missed, TRIALS).proportion_ci(0.999).low <= 0.05


@pytest.mark.parametrize(
    "rates",
    [
        {},
        {"alone": [1.0, 2.0]},
        {"one": [1.0], "other": [2.0]},
        {"one": [1.0, 1.1], "other": [2.0]},
        {"one": [1.0, 1.0], "other": [2.0, 2.0]},
    ],
)
def test_too_few_runs_give_no_answer(rates: dict[str, list[float]]) -> None:
    assert answer_of(rates) is None


def test_a_run_that_is_missing_leaves_the_others() -> None:
    rates = runs({"slow": 100.0, "fast": 200.0, "middle": 150.0})
    rates["slow"].pop()
    answer = answer_of(rates)
    assert answer is not None
    assert (answer.best, answer.ties) == ("fast", [])


def answer(best: str, *ties: str) -> SweepAnswer:
    return SweepAnswer(best=best, ties=list(ties), others=[])


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (answer("a"), answer("a", "b"), "same"),
        (answer("a", "b"), answer("b", "a"), "same within the noise"),
        (answer("a", "b"), answer("b"), "not the same"),
        (answer("a"), answer("b"), "not the same"),
    ],
)
def test_two_answers_agree_where_neither_rules_out_the_other_s_best(
    one: SweepAnswer, other: SweepAnswer, said: str
) -> None:
    assert agreement(one, other) == agreement(other, one) == said


SCATTER = {"default": (1.0, 1.01, 0.99), "few": (1.01, 1.0, 0.99), "eager": (0.99, 1.0, 1.02)}
"""Of the runs of each setting: not alike, or there were no noise between settings."""


def result(theirs: dict[str, float]) -> SweepFidelity:
    ours = {"default": 1.0, "few": 2.0, "eager": 1.5}
    return SweepFidelity(
        place=PLACE,
        model="m",
        load=LOAD,
        launches=3,
        iterations=2,
        ours_s={name: [[s, s], [s, 1.02 * s], [1.01 * s, s]] for name, s in ours.items()},
        invalid=1,
        ours=answer("default").model_copy(update={"others": ["eager", "few"]}),
        ours_took_s=120.0,
        theirs_s={name: [s * each for each in SCATTER[name]] for name, s in theirs.items()},
        theirs_took_s=300.0,
    )


def test_the_section_says_first_whether_they_agree_then_both_means_of_each_setting() -> None:
    text = sweep_fidelity(result({"default": 1.0, "few": 2.0, "eager": 1.5}))
    assert text.startswith("Both find the same best setting. rollout-bench: default alone")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["| default", "| eager", "| few"]
    assert [row[2] for row in rows] == ["best", "not the best", "not the best"]
    assert "took\n2 min" in text
    assert "took 5 min" in text
    apart = sweep_fidelity(result({"default": 2.0, "few": 1.0, "eager": 1.5}))
    assert apart.startswith("The two do NOT find the same best setting.")


def test_the_section_asks_for_more_where_one_way_has_no_answer_yet() -> None:
    assert sweep_fidelity(result({})).startswith("Not run often enough")
    assert sweep_fidelity(result({"few": 1.0}).model_copy(update={"ours": None})).startswith("Not run often enough")


def test_both_ways_have_the_same_points_and_the_default_is_one_of_them() -> None:
    matrix = planned(yaml.safe_dump(CONFIG))
    assert len(matrix.experiments) == len(GRID["max_num_seqs"]) * len(GRID["enforce_eager"])
    args = {e.spec.axes["setting"]: arguments_of(e.spec) for e in matrix.experiments}
    assert {(one["max_num_seqs"], one.get("enforce_eager", False)) for one in args.values()} == {
        (seqs, eager) for seqs in GRID["max_num_seqs"] for eager in GRID["enforce_eager"]
    }
    assert all(False not in one.values() and "seed" not in one for one in args.values())
    assert "default" in args


def test_the_loop_makes_a_warm_up_only_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines: list[list[str]] = []

    def run(line: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        lines.append(line)
        (tmp_path / "answer.json").write_text('{"elapsed_time": 2.5}')
        return subprocess.CompletedProcess(line, 0, "")

    monkeypatch.setattr("sampling_loop.subprocess.run", run)
    for warmups in (0, 8):
        loop = Loop(tmp_path / "tokenizer", {**LOAD, "engine_args": {"max_num_seqs": 2}}, warmups)
        assert loop.sample(tmp_path / "model", seed=3)[1] == 2.5
    assert "--num-warmups" not in lines[0]
    assert lines[1][lines[1].index("--num-warmups") + 1] == "8"
