"""What stands on top of docs/validation.md: each check in a few sentences, how it came out, and what is not shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from block_aa import ALPHA, BlockAA
from block_tables import BlockTables
from cycle_claims import NOWHERE, CycleClaims
from demo_repeats import OTHERS as DEMO_QUANTS
from demo_repeats import DemoRepeats
from drift_section import first_sentences as drift
from drift_verdicts import DriftVerdicts
from exclusion import LAUNCH, RULE, Exclusion
from exclusion_section import ALLOWED
from false_verdict_shares import FalseVerdicts
from fidelity import OURS, THEIRS, Fidelity
from fidelity_sections import CRITERIA, against
from interleaved_tables import INTERLEAVED, InterleavedTables
from interval_coverage import Coverage
from kept import Place, Share, kept
from markdown_parts import percent
from modes import BLOCKS, SHARE, Modes
from online_fidelity import MEASURES, RESULT, OnlineFidelity
from online_sections import TOLERANCE
from percentile_coverage import PercentileCoverage
from percentile_coverage import first_sentences as percentiles
from power import Power
from power_minutes import BASELINE, MINUTES, OTHERS, SHIPPED, PowerMinutes, half_width, half_width_alone, pooled
from region import Region
from repeats import Launches
from stopping import Stopping
from stopping_sections import NORMAL
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
    cells = ((cell.noise, cell.false) for cell in result.simulated if cell.noise != MEASURED)
    return [
        *_by_noise(cells, "of simulated tables in which nothing differs report a difference"),
        "So read the single pairs that the summary lists beside a verdict of few launches.",
    ]


def simulated_blocks(result: InterleavedTables) -> Sentences:
    """Say the same of blocks whose engines make their passes in turn."""
    cells = ((cell.noise, cell.false) for cell in result.judged if cell.design == INTERLEAVED)
    return _by_noise(cells, "of simulated tables of interleaved blocks report a difference")


def modes(result: Modes) -> Sentences:
    """Say how often modes that did not show make a false verdict, by the number of blocks."""
    worst = {m: max((c.false for c in result.cells if c.blocks == m), key=lambda s: s.value) for m in BLOCKS}
    listed = _and([f"{percent(share.value, 0)} with {m} blocks" for m, share in worst.items()])
    return [
        "**NOT KEPT.**",
        f"Where {percent(SHARE, 0)} of the baseline's starts are in another mode, false verdicts come to {listed}.",
        "The quieter the machine, the more: no test can do better than p^m + (1 - p)^m, because so few starts do not"
        " show the mode.",
    ]


def _by_noise(found: Iterable[tuple[str, Share]], what: str) -> Sentences:
    """Say how many kinds of noise keep the promise to within `MATTERS`, and which is the worst."""
    cells = list(found)
    kinds = dict.fromkeys(noise for noise, _ in cells)
    missed = dict.fromkeys(noise for noise, share in cells if share.interval[0] > ALPHA + MATTERS)
    noise, worst = max(cells, key=lambda cell: cell[1].value)
    return [
        f"**Kept under {len(kinds) - len(missed)} of {len(kinds)} kinds of noise**, to within one percentage point.",
        *([f"At worst {worst} {what}: {noise}."] if missed else []),
    ]


def coverage(result: Coverage) -> Sentences:
    """Say under how many kinds of noise intervals hold the truth as often as they say."""
    kinds = dict.fromkeys(cell.noise for cell in result.cells)
    limit = result.confidence - MATTERS
    short = dict.fromkeys(cell.noise for cell in result.cells if cell.covered.interval[1] < limit)
    worst = min(result.cells, key=lambda cell: cell.covered.value)
    promised = percent(result.confidence, 0)
    return [
        f"**Yes under {len(kinds) - len(short)} of {len(kinds)} kinds of noise**, to within one percentage point of"
        f" the promised {promised}.",
        *([f"At worst {worst.covered} of the intervals hold the truth: {worst.noise}."] if short else []),
    ]


def stopping(result: Stopping) -> Sentences:
    """Say how often `launches: auto` finds something where nothing differs: normal noise, then all kinds."""
    normal = [one.false for one in (*result.spread, *result.apart) if one.noise == NORMAL]
    least, most = (percent(function(share.value for share in normal)) for function in (min, max))
    kept_it = not any(share.interval[0] > ALPHA for share in normal)
    others = [(one.noise, one.false) for one in (*result.spread, *result.apart)]
    return [
        f"**{'Kept' if kept_it else 'NOT KEPT'} under normal noise**: {least} to {most} of simulated tables report a"
        " difference, by its settings.",
        "Under all noise:",
        *_by_noise(others, "of simulated tables report a difference"),
    ]


def power_minutes(result: PowerMinutes) -> Sentences:
    """Say how narrow an interval is after some minutes, interleaved and one engine after the other."""
    shipped = [pooled([half_width(one, SHIPPED, minutes) for one in result.series]) for minutes in MINUTES]
    before = [pooled([half_width_alone(one, minutes) for one in result.series]) for minutes in MINUTES]
    if not any(shipped):
        return []
    after = _and([f"{minutes:g}" for minutes in MINUTES])
    return [
        f"**To ±{_and(list(map(_width, shipped)))}** after {after} minutes of machine time, for {OTHERS[0]} against"
        f" {BASELINE}.",
        f"One engine after the other, judged as it was then: ±{_and(list(map(_width, before)))}.",
        f"That is the mean of {len(result.series)} series on one machine."
        if len(result.series) > 1
        else "That is one series on one machine.",
    ]


def _width(width: float | None) -> str:
    return percent(width) if width else "-"


def demo(result: DemoRepeats) -> Sentences:
    """Say how often `make demo` decided its comparisons."""
    shares = {quant: result.decided(quant) for quant in DEMO_QUANTS}
    return [f"**{_and([f'{quant} in {one.count} of {one.of} runs' for quant, one in shares.items()])}.**"]


def power(result: Power) -> Sentences:
    """Say whether known differences are found as often as the noncentral t distribution says."""
    outside = [one for one in result.differences if not one.found.interval[0] <= one.promised <= one.found.interval[1]]
    return [
        f"**{'NOT as often as computed.' if outside else 'As often as computed.'}**",
        f"Known differences were found in {sum(one.found.count for one in result.differences)} of"
        f" {sum(one.found.of for one in result.differences)} comparisons, in each row about as often as the spread lets"
        " expect.",
    ]


def exclusion(result: Exclusion) -> Sentences:
    """Say what leaving out disturbed launches adds to a ratio."""
    blocks = max(abs(one.added) for one in result.cells if one.design.rounds and one.rule == RULE)
    launches = max(abs(one.added) for one in result.cells if not one.design.rounds and one.rule == LAUNCH)
    return [
        f"**{'No' if blocks < ALLOWED else 'YES'} for interleaved blocks**: it adds at most {percent(blocks, 3)} to a"
        f" ratio, where {percent(ALLOWED)} is allowed.",
        f"**{'No' if launches < ALLOWED else 'Yes'} for launches one after the other**: it adds up to"
        f" {percent(launches)}, in favour of shorter passes.",
    ]


def fidelity(result: Fidelity) -> Sentences:
    """Say whether vLLM's own benchmark sees the same throughput."""
    ratio = result.ratio(OURS, THEIRS)
    if ratio is None:
        return []
    limit = percent(CRITERIA[0], 0)
    said = {
        "held": f"Yes, to within {limit}.",
        "FAILED": f"NO, they are more than {limit} apart.",
        "not decided": f"Not decided: more rounds are needed to say whether they are within {limit}.",
    }[against(float(ratio.low), float(ratio.high), CRITERIA[0])]
    return [
        f"**{said}**",
        f"Throughput here / there: {ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}], {len(result.rounds)} rounds.",
    ]


def region(result: Region) -> Sentences:
    """Say whether the timed region itself is the same."""
    if len(result.rounds) < 5:
        return []
    ratio, limit = result.trimmed, percent(CRITERIA[1])
    said = {
        "held": f"Yes, to within {limit}.",
        "FAILED": f"NO, the two are more than {limit} apart.",
        "not decided": f"Not decided: more rounds are needed to say whether the two are within {limit}.",
    }[against(ratio.low, ratio.high, CRITERIA[1])]
    return [f"**{said}**", f"Throughput here / there: {ratio.ratio:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]."]


def online(result: OnlineFidelity) -> Sentences:
    """Say in which measures `vllm bench serve` sees the same as this project's own client."""
    if len(result.rounds) < 2 or not all({"ours", "bench"} <= set(one.clients) for one in result.rounds):
        return []
    by_outcome: dict[str, list[str]] = {}
    for measure, name in MEASURES.items():
        ratio = result.ratio(measure, "ours", "bench")
        by_outcome.setdefault(against(float(ratio.low), float(ratio.high), TOLERANCE), []).append(name)
    limit = percent(TOLERANCE, 0)
    said = {
        "FAILED": f"More than {limit} from `vllm bench serve`",
        "held": f"Within {limit} of `vllm bench serve`",
        "not decided": "Not decided, because more rounds are needed",
    }
    there = [(words, by_outcome[outcome]) for outcome, words in said.items() if outcome in by_outcome]
    return [f"**{words}**: {', '.join(names)}." for words, names in there]


def cycle_claims(result: CycleClaims) -> Sentences:
    """Say how many tables name a length wrongly."""
    worst = max(result.claims, key=lambda one: one.false.value)
    searched = max((one for one in result.claims if one.truth == NOWHERE), key=lambda one: one.false_by_search.value)
    kept_it = all(one.false.interval[0] <= ALPHA for one in result.claims)
    return [
        f"**{'Kept' if kept_it else 'NOT KEPT'} under normal noise**: at worst {worst.false} of simulated tables name a"
        " length wrongly.",
        f"Had all lengths been searched, {searched.false_by_search} of tables would, in which {NOWHERE},"
        f" {searched.launches} launches.",
    ]


CHECKS: tuple[tuple[str, type[Strict], Callable[..., Sentences], str], ...] = (
    ("block_aa", BlockAA, real_tables, "How often does a real table find a difference where there is none?"),
    ("false_verdicts", FalseVerdicts, real_pairs, "How often is a difference found where there is none?"),
    ("block_tables", BlockTables, simulated_tables, "Do the verdicts of a whole table hold?"),
    ("interleaved_tables", InterleavedTables, simulated_blocks, "Do they hold for interleaved blocks?"),
    ("modes", Modes, modes, "What of modes that an engine chooses at its start?"),
    ("coverage", Coverage, coverage, "Do the intervals cover the truth?"),
    ("stopping", Stopping, stopping, "Does `launches: auto` keep the promise?"),
    ("drift_verdicts", DriftVerdicts, drift, "Does a verdict of drift hold?"),
    ("percentile_coverage", PercentileCoverage, percentiles, "Do intervals of percentiles hold where launches differ?"),
    ("cycle_claims", CycleClaims, cycle_claims, "Does a quantization pay at the lengths that are named?"),
    ("power_minutes", PowerMinutes, power_minutes, "How narrow is an interval after some minutes?"),
    ("demo_repeats", DemoRepeats, demo, "Does the demo decide its comparisons?"),
    ("power", Power, power, "How often is a difference found that is there?"),
    ("exclusion", Exclusion, exclusion, "Does leaving out what others disturbed favour anybody?"),
    ("fidelity", Fidelity, fidelity, "Does vLLM's own benchmark see the same throughput?"),
    ("region", Region, region, "Is the timed region itself the same?"),
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
    said = [(title, say(result)) for result, say, title in found if result is not None]
    placed: list[Strict | None] = [kept("launches", Launches, results)]
    placed += [result for result, *_ in found]
    shown = [_item(f"[{title}](#{_anchor(title)})", sentences) for title, sentences in said if sentences]
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
