"""Problems of a trained model: held out of every training, each with one answer, which alone is right."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.checkpoints.problems import (
    END,
    LENGTHS,
    LONG,
    SHORT,
    TASKS,
    VOCABULARY,
    Problem,
    ProblemSizes,
    is_right,
    practice,
    problems,
)

SEEDS = st.integers(0, 1 << 62)
ASKED = SEEDS.flatmap(lambda seed: st.sampled_from(problems(12, seed)))


def solved(text: str) -> str:
    """Return the answer to a problem's text, found without looking at how problems are made."""
    question, equals, _ = text.partition("=")
    assert equals
    if question[0] == ">":
        return "".join(sorted(question[1:]))
    if question[0] == ":":
        return question[1:]
    first, second = (int(term[::-1]) for term in question.split("+"))
    return str(first + second)[::-1]


def task_of(text: str) -> str:
    return {">": "sort", ":": "copy"}.get(text[0], "add")


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=map(str, LENGTHS))
@given(seed=SEEDS)
def test_every_problem_has_the_answer_that_its_question_has(lengths: ProblemSizes, seed: int) -> None:
    for problem in [*problems(30, seed, lengths), *itertools.islice(practice(seed, lengths), 30)]:
        assert problem.text == f"{problem.text.partition('=')[0]}={solved(problem.text)}"
        assert problem.task == task_of(problem.text)
        assert problem.prompt_ids[0] == problem.answer_ids[-1] == END
        assert END not in problem.prompt_ids[1:] + problem.answer_ids[:-1]
        assert set(problem.prompt_ids + problem.answer_ids) <= set(range(VOCABULARY))
        assert len(problem.prompt_ids) <= lengths.longest_prompt
        assert len(problem.answer_ids) <= lengths.longest_answer


@given(SEEDS, SEEDS)
def test_nothing_that_is_judged_is_trained_on_whatever_the_seeds(judging: int, training: int) -> None:
    trained = {(p.task, p.asks) for p in itertools.islice(practice(training), 200)}
    assert not trained & {(p.task, p.asks) for p in problems(50, judging)}


def test_no_problem_that_longer_ones_are_judged_by_is_trained_on_among_shorter_ones() -> None:
    trained = {(p.task, p.asks) for p in itertools.islice(practice(0), 3000)}
    assert not trained & {(p.task, p.asks) for p in problems(LONG.judged, 0, LONG)}


def test_longer_problems_have_longer_terms_and_lists() -> None:
    longest = {
        lengths: {task: max(len(p.prompt_ids) for p in problems(600, 0, lengths) if p.task == task) for task in TASKS}
        for lengths in (SHORT, LONG)
    }
    assert all(longest[LONG][task] > longest[SHORT][task] for task in TASKS)


def test_a_sum_with_its_terms_swapped_and_letters_in_another_order_are_held_out_together() -> None:
    for problem in itertools.islice(practice(0), 2000):
        question = problem.text.partition("=")[0]
        if problem.task == "add":
            assert problem.asks == "+".join(sorted((term[::-1] for term in question.split("+")), key=int))
        elif problem.task == "sort":
            assert problem.asks == "".join(sorted(question[1:]))
        else:
            assert problem.asks == question[1:]


def test_problems_say_themselves_whether_they_are_held_out() -> None:
    assert all(p.held_out for p in problems(300, 1))
    assert not any(p.held_out for p in itertools.islice(practice(1), 3000))


@given(SEEDS, st.integers(0, 40), st.integers(0, 40))
def test_the_same_seed_gives_the_same_problems_and_more_of_them_begin_with_the_same(
    seed: int, few: int, more: int
) -> None:
    found = problems(few + more, seed)
    assert found[:few] == problems(few, seed)
    assert len({(p.task, p.asks) for p in found}) == few + more
    assert [p.task for p in found] == list(itertools.islice(itertools.cycle(TASKS), few + more))


@given(ASKED, st.lists(st.integers(0, VOCABULARY - 1), max_size=5))
def test_the_right_answer_is_right_whatever_follows_its_end(problem: Problem, more: list[int]) -> None:
    assert is_right(problem, [*problem.answer_ids, *more])
    assert is_right(problem, (*problem.answer_ids, *more))


@given(ASKED, st.integers(0, SHORT.longest_answer), st.integers(0, VOCABULARY - 1))
def test_an_answer_with_another_token_is_wrong(problem: Problem, place: int, other: int) -> None:
    place = place % len(problem.answer_ids)
    changed = [*problem.answer_ids]
    changed[place] = other
    assert is_right(problem, changed) == (other == problem.answer_ids[place])


@given(ASKED, st.data())
def test_an_answer_that_is_cut_off_or_ends_late_is_wrong(problem: Problem, data: st.DataObject) -> None:
    assert not is_right(problem, problem.answer_ids[: data.draw(st.integers(0, len(problem.answer_ids) - 1))])
    late = [*problem.answer_ids[:-1], data.draw(st.sampled_from(b"0a9z")), END]
    assert not is_right(problem, late)


@pytest.mark.parametrize("task", TASKS)
def test_a_problem_can_be_read(task: str) -> None:
    shape = {"add": r"\d{1,4}\+\d{1,4}=\d{1,5}", "sort": r">[a-z]{2,8}=[a-z]{2,8}", "copy": r":([a-z]{4,12})=\1"}[task]
    found = [p.text for p in problems(60, 3) if p.task == task]
    assert all(re.fullmatch(shape, text) for text in found)
    assert len(found) == 20
