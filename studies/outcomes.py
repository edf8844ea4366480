"""The top of the validation page: each check in a few sentences, how it came out, and what is not shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from block_aa import ALPHA, BlockAA
from block_tables import BlockTables
from drift_section import first_sentences as drift
from drift_verdicts import DriftVerdicts
from false_verdict_shares import FalseVerdicts
from fidelity import OURS, THEIRS, Fidelity
from fidelity_sections import CRITERIA, against
from interval_coverage import Coverage
from kept import Place, Share, kept
from markdown_parts import percent
from online_fidelity import MEASURES, RESULT, OnlineFidelity
from online_sections import TOLERANCE
from percentile_coverage import PercentileCoverage
from percentile_coverage import first_sentences as percentiles
from power import Power
from repeats import Launches
from table_noise import MEASURED

from rollout_bench.contracts.fields import Strict

Sentences = list[str]
"""What is said of a check, the outcome first; none where it was not run often enough to say anything."""

MATTERS = 0.01
"""By how much a simulated share must surely miss a promise to be named here; its section names all."""


def real_tables(result: BlockAA) -> Sentences:
    """Say in how many runs of the real engine one configuration differed from itself."""
    if not result.judged:
        return []
    false = result.false
    return [
        f"**{_promise(false)}**",
        f"One configuration stood under three names in {false.of} runs of the real engine.",
        f"A difference was reported in {false.count} of them, {false}; at most {percent(ALPHA, 0)} are promised.",
        f"So few runs do not exclude a rate of {percent(false.interval[1])}.",
    ]


def real_pairs(result: FalseVerdicts) -> Sentences:
    """Say the same of launches one after the other."""
    marked = result.marked
    return [
        f"**{_promise(marked)}**",
        f"One engine after the other, one configuration was compared with itself {marked.of} times.",
        f"A difference was reported in {marked.count} of them, {marked}.",
    ]


def _promise(share: Share) -> str:
    return "NOT KEPT." if share.interval[0] > ALPHA else "Nothing contradicts the promise."


def simulated_tables(result: BlockTables) -> Sentences:
    """Say under how many kinds of noise whole tables keep the promise."""
    found = by_noise(result)
    return [
        f"**Kept under {found} kinds of noise**, to within one percentage point.",
        *(
            [f"At worst {found.worst} of simulated tables in which nothing differs report a difference: {found.noise}."]
            if found.kept < found.kinds
            else []
        ),
        "So read the single pairs that the summary lists beside a verdict of few launches.",
    ]


@dataclass(frozen=True)
class ByNoise:
    """How many `kinds` of noise keep a promise to within `MATTERS`, and the worst share, with its noise."""

    kept: int
    kinds: int
    noise: str
    worst: Share

    def __str__(self) -> str:
        return f"{self.kept} of {self.kinds}"


def by_noise(result: BlockTables) -> ByNoise:
    """Return under how many kinds of noise whole tables keep the promise."""
    cells = [cell for cell in result.simulated if cell.noise != MEASURED]
    missed = {cell.noise for cell in cells if cell.false.interval[0] > ALPHA + MATTERS}
    worst = max(cells, key=lambda cell: cell.false.value)
    kinds = len({cell.noise for cell in cells})
    return ByNoise(kinds - len(missed), kinds, worst.noise, worst.false)


def covered_by_noise(result: Coverage) -> ByNoise:
    """Return under how many kinds of noise intervals hold the truth as often as they say."""
    short = {cell.noise for cell in result.cells if cell.covered.interval[1] < result.confidence - MATTERS}
    worst = min(result.cells, key=lambda cell: cell.covered.value)
    kinds = len({cell.noise for cell in result.cells})
    return ByNoise(kinds - len(short), kinds, worst.noise, worst.covered)


def coverage(result: Coverage) -> Sentences:
    """Say under how many kinds of noise intervals hold the truth as often as they say."""
    found, promised = covered_by_noise(result), percent(result.confidence, 0)
    return [
        f"**Yes under {found} kinds of noise**, to within one percentage point of the promised {promised}.",
        *(
            [f"At worst {found.worst} of the intervals hold the truth: {found.noise}."]
            if found.kept < found.kinds
            else []
        ),
    ]


def power(result: Power) -> Sentences:
    """Say whether known differences are found as often as the noncentral t distribution says."""
    outside = [one for one in result.differences if not one.found.interval[0] <= one.promised <= one.found.interval[1]]
    return [
        f"**{'NOT as often as computed.' if outside else 'As often as computed.'}**",
        f"Known differences were found in {sum(one.found.count for one in result.differences)} of"
        f" {sum(one.found.of for one in result.differences)} comparisons, in each row about as often as the spread lets"
        " expect.",
    ]


def fidelity(result: Fidelity) -> Sentences:
    """Say whether vLLM's own benchmark sees the same throughput."""
    ratio = result.ratio(OURS, THEIRS)
    if ratio is None:
        return []
    limit = percent(CRITERIA[0], 0)
    sentence = {
        "held": f"Yes, to within {limit}.",
        "FAILED": f"NO, they are more than {limit} apart.",
        "not decided": f"Not decided: more rounds are needed to say whether they are within {limit}.",
    }[against(float(ratio.low), float(ratio.high), CRITERIA[0])]
    return [
        f"**{sentence}**",
        f"Throughput here / there: {ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}], {len(result.rounds)} rounds.",
    ]


def online(result: OnlineFidelity) -> Sentences:
    """Say in which measures `vllm bench serve` sees the same as this project's own client."""
    if len(result.rounds) < 2 or not all({"ours", "bench"} <= set(one.clients) for one in result.rounds):
        return []
    by_outcome: dict[str, list[str]] = {}
    for measure, name in MEASURES.items():
        ratio = result.ratio(measure, "ours", "bench")
        by_outcome.setdefault(against(float(ratio.low), float(ratio.high), TOLERANCE), []).append(name)
    limit = percent(TOLERANCE, 0)
    words_of = {
        "FAILED": f"More than {limit} from `vllm bench serve`",
        "held": f"Within {limit} of `vllm bench serve`",
        "not decided": "Not decided, because more rounds are needed",
    }
    found = [(words, by_outcome[outcome]) for outcome, words in words_of.items() if outcome in by_outcome]
    return [f"**{words}**: {', '.join(names)}." for words, names in found]


CHECKS: tuple[tuple[str, type[Strict], Callable[..., Sentences], str], ...] = (
    ("block_aa", BlockAA, real_tables, "How often does a real table find a difference where there is none?"),
    ("false_verdicts", FalseVerdicts, real_pairs, "How often is a difference found where there is none?"),
    ("block_tables", BlockTables, simulated_tables, "Do the verdicts of a whole table hold?"),
    ("coverage", Coverage, coverage, "Do the intervals cover the truth?"),
    ("drift_verdicts", DriftVerdicts, drift, "Does a verdict of drift hold?"),
    ("percentile_coverage", PercentileCoverage, percentiles, "Do intervals of percentiles hold where launches differ?"),
    ("power", Power, power, "How often is a difference found that is there?"),
    ("fidelity", Fidelity, fidelity, "Does vLLM's own benchmark see the same throughput?"),
    (RESULT, OnlineFidelity, online, "Do other clients see the same latencies?"),
)
"""What is on top of the page, in that order: a result's name and model, what is said of it, and its section."""


def outcomes(results: Path, missing: Sequence[str]) -> str:
    """Return the list on top of the page, from what lies in `results`.

    Args:
        results: the folder of the kept results.
        missing: what was not run yet, in words.

    Raises:
        UserError: a kept result is damaged.
    """
    found = [(kept(name, kind, results), say, title) for name, kind, say, title in CHECKS]
    sentences_of = [(title, say(result)) for result, say, title in found if result is not None]
    placed: list[Strict | None] = [kept("launches", Launches, results)]
    placed += [result for result, *_ in found]
    shown = [_item(f"[{title}](#{_anchor(title)})", sentences) for title, sentences in sentences_of if sentences]
    return "\n".join([*(shown or ["- Nothing was run yet."]), _item("What is not shown?", _not_shown(placed, missing))])


def _not_shown(placed: Iterable[Strict | None], missing: Sequence[str]) -> Sentences:
    """Say what no result is about: other machines, and what was not run."""
    places = [place for result in placed if isinstance(place := getattr(result, "place", None), Place)]
    machines = dict.fromkeys(f"{place.processor} with {place.cores} cores" for place in places)
    return [
        *([f"All engines ran on {_and(list(machines))}: nothing here is about another machine."] if machines else []),
        *([f"Not run yet: {'; '.join(missing)} ([commands](#not-yet-shown))."] if missing else []),
        "Each section ends with what it does not show.",
    ]


def _item(question: str, sentences: Sequence[str]) -> str:
    return "\n".join([f"- {question}", *(f"  {sentence}" for sentence in sentences)])


def _anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _and(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
