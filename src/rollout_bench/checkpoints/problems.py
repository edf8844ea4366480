"""Problems with one right answer: what a trained model learns, and what it is asked.

A problem is a line of text: a question, an equals sign, the answer. Token ids are the bytes of the text.

- add: `75+86=521`, of 57, 68 and 125. Numbers are written from their lowest digit on, as one adds.
- sort: `>dbca=abcd`. Letters in their order; some stand twice.
- copy: `:dbca=dbca`.

One problem in `HELD_OUT_OF` is held out: a hash of what it asks decides, so training and judging agree on it whatever
their seeds. Sums that swap their terms, and letters in another order, ask the same.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rollout_bench.core.errors import UserError

TASKS = ("add", "sort", "copy")
VOCABULARY = 256
"""Token ids are bytes."""
END = ord("\n")
"""The token id that ends an answer. It also stands before the first question of a text."""

HELD_OUT_OF = 16
TRAINED_SHARES = (2, 1, 1)
"""How often each task is trained on: sums are learned last."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"

Range = tuple[int, int]


@dataclass(frozen=True)
class ProblemSizes:
    """How long problems are, and how many of them tell how good a model is at them.

    Attributes:
        digits: fewest and most of a term.
        sorted_letters: the same.
        copied_letters: the same.
        judged: problems, held out, that a model is asked.
    """

    digits: Range
    sorted_letters: Range
    copied_letters: Range
    judged: int

    @property
    def longest_prompt(self) -> int:
        """Tokens, with the one before it."""
        return 1 + max(2 * self.digits[1] + 1, 1 + self.sorted_letters[1], 1 + self.copied_letters[1]) + 1

    @property
    def longest_answer(self) -> int:
        """Tokens, with the one that ends it."""
        return max(self.digits[1] + 1, self.sorted_letters[1], self.copied_letters[1]) + 1


SHORT = ProblemSizes(digits=(1, 4), sorted_letters=(2, 8), copied_letters=(4, 12), judged=300)
"""What a small model learns so well that it answers nearly all rightly."""

LONG = ProblemSizes(digits=(1, 8), sorted_letters=(2, 16), copied_letters=(4, 24), judged=1200)
"""What leaves a model room for mistakes, so that a quantization can make more of them."""

LENGTHS: Mapping[str | None, ProblemSizes] = MappingProxyType({None: SHORT, "long": LONG})
"""By the name that a training has for them."""

_MOST_DRAWS = 1000
"""For each problem that is wanted: then there are no others."""


@dataclass(frozen=True)
class Problem:
    """A question and its only right answer.

    Attributes:
        task: one of `TASKS`.
        prompt_ids: END, the question, an equals sign.
        answer_ids: the answer and END.
        asks: what the problem asks; two with the same are one.
    """

    task: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    asks: str

    @property
    def held_out(self) -> bool:
        """Whether no model is trained on it."""
        return hashlib.sha256(f"{self.task} {self.asks}".encode()).digest()[0] % HELD_OUT_OF == 0

    @property
    def text(self) -> str:
        """Question and answer as they are read."""
        return bytes([*self.prompt_ids, *self.answer_ids]).decode("ascii").strip()


def problems(count: int, seed: int, lengths: ProblemSizes = SHORT) -> list[Problem]:
    """Return problems that no model was trained on, no two of them the same; the tasks take turns.

    Args:
        count: how many.
        seed: the same one gives the same problems, and the first of them whatever the count.
        lengths: how long they are.

    Raises:
        UserError: there are no so many.
    """
    drawing = random.Random(f"judging {seed}")
    found: dict[tuple[str, str], Problem] = {}
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        for _ in range(_MOST_DRAWS):
            problem = _drawn(task, drawing, lengths)
            if problem.held_out and (task, problem.asks) not in found:
                break
        else:
            raise UserError(f"problems: there are no {count} different ones", "ask for fewer problems")
        found[task, problem.asks] = problem
    return list(found.values())


def practice(seed: int, lengths: ProblemSizes = SHORT) -> Iterator[Problem]:
    """Yield problems to train on, without end; each may come again, and none that is held out comes."""
    drawing = random.Random(f"training {seed}")
    while True:
        (task,) = drawing.choices(TASKS, TRAINED_SHARES)
        problem = _drawn(task, drawing, lengths)
        if not problem.held_out:
            yield problem


def is_right(problem: Problem, output_ids: Sequence[int]) -> bool:
    """Return whether an output begins with the answer and its END. What follows is not looked at."""
    return tuple(output_ids[: len(problem.answer_ids)]) == problem.answer_ids


def _drawn(task: str, drawing: random.Random, lengths: ProblemSizes) -> Problem:
    if task == "add":
        first, second = _term(drawing, lengths.digits), _term(drawing, lengths.digits)
        question, answer = f"{_written(first)}+{_written(second)}", _written(first + second)
        asks = f"{min(first, second)}+{max(first, second)}"
    elif task == "sort":
        letters = _letters(drawing, lengths.sorted_letters)
        answer = asks = "".join(sorted(letters))
        question = f">{letters}"
    else:
        answer = asks = _letters(drawing, lengths.copied_letters)
        question = f":{answer}"
    prompt = f"{chr(END)}{question}=".encode("ascii")
    return Problem(task, tuple(prompt), (*answer.encode("ascii"), END), asks)


def _term(drawing: random.Random, fewest_and_most: Range) -> int:
    digits = drawing.randint(*fewest_and_most)
    return drawing.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def _written(number: int) -> str:
    return str(number)[::-1]


def _letters(drawing: random.Random, count: Range) -> str:
    return "".join(drawing.choices(LETTERS, k=drawing.randint(*count)))
