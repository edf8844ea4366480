"""The time of a step from its work, fitted to the timed steps of calibration launches, with its uncertainty.

    t = max(device, host of the next step)
    device = f(P) + a kv_tokens + b context_tokens + c prefill_pairs + d decodes + e prefills + g [it has prefills]
    host = u + v decodes + w prefills + x [it has prefills]

P are the computed tokens. A step without prefills runs in a captured CUDA graph, so P is the next captured size. f is
piecewise linear and never falls. No coefficient is negative, so more sequences never shorten a step. The samples of a
prompt share its KV cache, which is then read from memory once and from the device's cache for the others: kv_tokens
counts them once, context_tokens every time.

With asynchronous scheduling, the engine's core launches the next step while the device computes this one, and processes
this one's output only then: a launch without a graph can take longer than the step before it. The first step after an
idle engine also waits for its own launch. Without asynchronous scheduling host and device add up, and u to x are zero.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats
from scipy.optimize import nnls

from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.steps import StepWork, TimedStep
from rollout_bench.core.numbers import in_sentence, percent, several

Array = NDArray[np.float64]

MOST_KNOTS = 24
"""Maximum number of knots of f."""

LARGEST_ERROR = 0.1
"""Nothing is predicted with a larger error: of half of the kinds of steps, or of a load's, as a mean over its time."""

FEWEST_STEPS = 4
"""Steps of a kind from which on its error is judged."""

FEWEST_DECODE_SIZES = 4
FEWEST_PREFILL_SIZES = 2

HULL = {
    "tokens": "computed tokens",
    "decodes": "decoding sequences",
    "context_tokens": "tokens of context",
    "mean_context": "tokens of context per sequence",
    "prefill_tokens": "prompt tokens",
    "prefill_pairs": "pairs of prompt tokens",
}
"""Amount of a step whose calibrated range is kept -> its name in a sentence.

Prefilling sequences are not among them: they cost little beside their tokens.
"""

DEVIATION = float(np.sqrt(np.pi / 2))
"""Standard deviation of a normal distribution, divided by its mean absolute deviation: a misfit is the latter."""

SLACK = 1.01
"""A range reaches this much further: the largest step of a calibration is often a token short of its limit."""


class Columns(NamedTuple):
    """The work of n steps, a column for each field of `StepWork`: [n] each."""

    prefills: Array
    prefill_tokens: Array
    prefill_pairs: Array
    decodes: Array
    context_tokens: Array
    kv_tokens: Array

    @property
    def tokens(self) -> Array:
        """Computed tokens."""
        return self.prefill_tokens + self.decodes

    @property
    def mean_context(self) -> Array:
        """Tokens of context per decoding sequence; zero without any."""
        return np.asarray(self.context_tokens / np.maximum(self.decodes, 1))


def columns_of(works: Sequence[StepWork]) -> Columns:
    """Return the columns of steps."""
    return Columns(*(np.array([getattr(work, name) for work in works], dtype=float) for name in Columns._fields))


class Kind(Strict):
    """Steps alike: they decode at one captured size, or compute about as many prompt tokens, a power of two.

    A step during which so many prompt tokens are launched is of a kind of its own. The error is that of the sum of the
    times, predicted by a model that was fitted without them.
    """

    name: str
    family: int = Field(description="0: decode; 1: with prompts; 2: decode, while prompts are launched.")
    size: float = Field(gt=0, description="Sequences, or prompt tokens.")
    error: float = Field(ge=0, description="Relative error.")


class StepModel(Strict):
    """The time of a step from its work. Coefficients are in seconds per unit of their column in `_device`, `_host`."""

    seed: int = Field(description="Seed of its draws. Errors of models with other seeds are independent.")
    captured: list[int] = Field(description="Sizes of captured CUDA graphs; empty without graphs.")
    overlapped: bool = Field(description="Whether a step is launched before the previous one has ended.")
    knots: list[float] = Field(min_length=1, description="Computed tokens between which f is linear.")
    device: list[float] = Field(description="Coefficients of the device's time.")
    host: list[float] = Field(description="Coefficients of the host's time; zeros if it never hides the device's.")
    refits: list[list[float]] = Field(min_length=1, description="Both again, of each bootstrap sample.")
    spreads: list[tuple[float, int]] = Field(
        min_length=1,
        description=(
            "Standard deviation of the log of measured / fitted time, and the number of its values: of passes, and of "
            "launches if there are several."
        ),
    )
    hull: dict[str, tuple[float, float]] = Field(description="Calibrated range of each amount of a step.")
    kinds: list[Kind] = Field(min_length=1, description="Kinds of steps, each left out of a fit in its turn.")
    faults: list[str] = Field(description="Reasons why no prediction should rest on this model.")

    @property
    def worst(self) -> Kind:
        """The kind that the others predict worst."""
        return max(self.kinds, key=lambda kind: kind.error)

    def error(self, share: float) -> float:
        """Return the error that this share of the kinds does not exceed."""
        return float(np.quantile([kind.error for kind in self.kinds], share))

    def misfit(self, works: Sequence[StepWork]) -> float:
        """Return the mean error of the steps' kinds, weighted by their times. Each step counts as the nearest kind."""
        work = columns_of(works)
        following = np.append(work.prefill_tokens[1:], 0.0)
        families, sizes = _kinds(work, following * self.overlapped, self.captured)
        distances = [np.abs(np.log(sizes / kind.size)) + 99.0 * (families != kind.family) for kind in self.kinds]
        errors = np.array([kind.error for kind in self.kinds])[np.argmin(distances, axis=0)]
        return float(np.average(errors, weights=self.times(works)))

    def times(self, works: Sequence[StepWork]) -> Array:
        """Return the expected time of each step in seconds: [steps]. They follow each other, on an idle engine."""
        return self._spent(*self._features(works), np.array(self.device), np.array(self.host))

    def total_draws(self, works: Sequence[StepWork], marks: Sequence[int], draws: int = 1000) -> Array:
        """Return draws of the time from the beginning until the end of the steps `marks`, in seconds: [draws, marks].

        A draw has the coefficients of a bootstrap sample, the factors of a new launch and pass, and that of the misfit.
        The logs of the former are Student's t, because their spread is estimated from few; the other's is normal. In a
        ratio of two loads the former cancel, and the misfit does not if their schedules differ.
        """
        features = self._features(works)
        split, places = len(self.device), np.array(marks, dtype=np.intp)
        totals = np.array(
            [
                np.cumsum(self._spent(*features, np.array(each[:split]), np.array(each[split:])))[places]
                for each in self.refits
            ]
        )
        rng = np.random.default_rng(self.seed)
        random = np.random.default_rng([self.seed, len(works)])
        logs = DEVIATION * self.misfit(works) * _even_quantiles(stats.norm, draws, random)
        for deviation, number in self.spreads:
            logs += deviation * np.sqrt(1 + 1 / number) * _even_quantiles(stats.t(number - 1), draws, rng)
        logs = np.clip(logs, -3, 3)  # without a limit, one degree of freedom overflows
        return np.asarray(totals[np.arange(draws) % len(totals)] * np.exp(logs)[:, None])

    def outside(self, works: Sequence[StepWork]) -> list[str]:
        """Return a sentence for each amount of work beyond the calibrated range."""
        work = columns_of(works)
        return [text for name, noun in HULL.items() for text in _beyond(getattr(work, name), noun, *self.hull[name])]

    def _features(self, works: Sequence[StepWork]) -> tuple[Array, Array]:
        """Return the device's columns [steps, ...], and the host's, of which the last has nothing [steps + 1, ...]."""
        work = columns_of(works)
        host = _host(work)
        return _device(work, self.captured, np.array(self.knots)), np.vstack([host, np.zeros_like(host[:1])])

    @staticmethod
    def _spent(device_columns: Array, host_columns: Array, device: Array, host: Array) -> Array:
        times = _times(device_columns, host_columns[1:], device, host)
        times[0] += host_columns[0] @ host
        return times


def _even_quantiles(distribution: Any, draws: int, rng: np.random.Generator) -> Array:
    """Return as many quantiles of a distribution, evenly spaced, in random order: ends move less than with its draws.

    Stein, "Large sample properties of simulations using Latin hypercube sampling", Technometrics 29, 1987.
    """
    return np.asarray(rng.permutation(distribution.ppf((np.arange(draws) + 0.5) / draws)))


def fit(
    launches: Sequence[Sequence[Sequence[TimedStep]]],
    captured: Sequence[int],
    *,
    overlapped: bool = False,
    refits: int = 100,
    seed: int = 0,
) -> StepModel:
    """Fit the model to the steps of each calibration launch.

    Medians of cells of steps with nearly equal work are fitted by non-negative least squares of relative errors (Lawson
    and Hanson, "Solving Least Squares Problems", 1974, chapter 23), with Huber's weights, so rare pauses do not bend
    the curve. The coefficients are then scaled so that the total time is that of the launches, pauses included.
    Uncertainty comes from the Bayesian bootstrap over cells (Rubin, Annals of Statistics 9, 1981): resampling could
    leave out all cells of a knot.

    Args:
        launches: passes of each launch, each the timed steps that followed each other.
        captured: sizes of captured CUDA graphs; empty without graphs.
        overlapped: whether a step is launched before the previous one has ended: vLLM's asynchronous scheduling. The
            first step of a pass, which begins on an idle engine, is then left out.
        refits: number of bootstrap samples.
        seed: of the bootstrap and of all draws.

    Raises:
        ValueError: there are no two passes with steps, or all steps are of the same kind.
    """
    captured = sorted(captured)
    rows = _rows(launches, overlapped)
    cells = _cells(rows, captured, overlapped)
    knots = _knots(cells.sizes)
    sides = _device(cells.work, captured, knots), _host(cells.following)
    weights, hosted = _cell_weights(cells, sides, overlapped)
    coefficients = _solved(cells, sides, weights, hosted)
    device, host = (side * _pauses(cells, sides, coefficients, cells.steps) for side in coefficients)
    fitted_s = _times(_device(rows.work, captured, knots), _host(rows.following), device, host)
    kinds = list(_judged(cells, captured, weights, hosted))
    rng = np.random.default_rng(seed)
    return StepModel(
        seed=seed,
        captured=captured,
        overlapped=overlapped,
        knots=knots.tolist(),
        device=device.tolist(),
        host=host.tolist(),
        refits=[_refit(cells, sides, weights, hosted, rng) for _ in range(refits)],
        spreads=list(_spreads(rows, fitted_s)),
        hull={name: _range(getattr(rows.work, name)) for name in HULL},
        kinds=kinds,
        faults=list(_faults(cells, kinds)),
    )


@dataclass(frozen=True)
class _Rows:
    """Steps, each with the work of the next one, their launch and their pass: [steps] each."""

    work: Columns
    following: Columns
    elapsed_s: Array
    launch: NDArray[np.intp]
    part: NDArray[np.intp]


@dataclass(frozen=True)
class _Cells:
    """Steps of a launch with nearly equal work, together: [cells] each."""

    work: Columns
    following: Columns
    steps: Array
    median_s: Array
    total_s: Array
    sizes: Array
    families: NDArray[np.intp]
    amounts: Array


def _rows(launches: Sequence[Sequence[Sequence[TimedStep]]], overlapped: bool) -> _Rows:
    """Return the steps of all launches as columns, each beside the step that follows it in its pass.

    With `overlapped` scheduling the first step of each pass is left out.
    """
    begin, nothing = int(overlapped), StepWork(**dict.fromkeys(StepWork.model_fields, 0))
    parts = [
        (number, [*pairwise([*each, nothing])][begin:]) for number, launch in enumerate(launches) for each in launch
    ]
    parts = [(number, pairs) for number, pairs in parts if pairs]
    if len(parts) < 2:
        raise ValueError(f"a calibration needs two passes with steps, but has {len(parts)}")
    steps, following = zip(*chain.from_iterable(pairs for _, pairs in parts), strict=True)
    lengths = [len(pairs) for _, pairs in parts]
    return _Rows(
        work=columns_of(steps),
        following=columns_of(following),
        elapsed_s=np.array([step.elapsed_s for step in steps]),
        launch=np.repeat([number for number, _ in parts], lengths),
        part=np.repeat(np.arange(len(parts)), lengths),
    )


def _cells(rows: _Rows, captured: Sequence[int], overlapped: bool) -> _Cells:
    work, times = rows.work, rows.elapsed_s
    pairs = work.prefill_pairs / np.maximum(work.prefill_tokens, 1)
    room = work.kv_tokens / np.maximum(work.decodes, 1)
    bins = [np.round(4 * np.log2(1 + each)) for each in (work.mean_context, room, pairs)]  # quarters of octaves
    exactly = rows.launch, work.prefills, work.prefill_tokens, work.decodes
    _, cell = np.unique(np.column_stack([*exactly, *bins, *_host(rows.following).T]), axis=0, return_inverse=True)
    amount = np.bincount(cell)
    mean, following = (
        Columns(*(np.bincount(cell, each) / amount for each in columns)) for columns in (work, rows.following)
    )
    first = np.cumsum(amount) - amount
    ordered = times[np.lexsort((times, cell))]
    middle = (ordered[first + (amount - 1) // 2] + ordered[first + amount // 2]) / 2
    families, amounts = _kinds(mean, following.prefill_tokens * overlapped, captured)
    if len(np.unique(np.column_stack([families, amounts]), axis=0)) < 2:
        raise ValueError(f"all calibration steps are of the same kind: {_name(families[0], amounts[0])}")
    return _Cells(
        work=mean,
        following=following,
        steps=amount.astype(float),
        median_s=middle,
        total_s=np.bincount(cell, times).astype(float),
        sizes=_padded(mean, captured),
        families=families,
        amounts=amounts,
    )


def _kinds(work: Columns, launched: Array, captured: Sequence[int]) -> tuple[NDArray[np.intp], Array]:
    """Return family and size of the kind of each step, during which so many prompt tokens are `launched`: [steps]."""
    families = np.where(work.prefill_tokens > 0, 1, np.where(launched > 0, 2, 0))
    tokens = np.maximum(np.where(families == 1, work.prefill_tokens, launched), 1)
    return families, np.where(families == 0, _padded(work, captured), 2 ** np.round(np.log2(tokens)))


def _name(family: int, size: float) -> str:
    if not family:
        return f"decode of {several(round(size), 'sequence')}"
    return f"{'prefill' if family == 1 else 'decode before a launch'} of about {size:,.0f} prompt tokens"


def _padded(work: Columns, captured: Sequence[int]) -> Array:
    """Return P of each step: [steps]."""
    tokens = work.tokens
    sizes = np.append(np.array(captured, dtype=float), np.inf)
    graph = sizes[np.searchsorted(sizes, tokens)]
    return np.where((work.prefill_tokens > 0) | np.isinf(graph), tokens, graph)


def _knots(sizes: Array) -> Array:
    """Return measured sizes, nearly evenly spaced on a logarithmic scale, with the smallest and the largest."""
    measured = np.unique(sizes)
    wanted = np.geomspace(measured[0], measured[-1], MOST_KNOTS)
    return np.unique(measured[np.abs(np.log(measured[:, None] / wanted)).argmin(axis=0)])


def _device(work: Columns, captured: Sequence[int], knots: Array) -> Array:
    """Return the columns of the device's time: [steps, knots + 6]. Beyond the last knot, f goes on as before it."""
    sizes = _padded(work, captured)[:, None]
    rises = np.maximum((sizes - knots[:-1]) / np.diff(knots), 0)
    rises[:, :-1] = np.minimum(rises[:, :-1], 1)
    read = work.kv_tokens, work.context_tokens, work.prefill_pairs
    others = *read, work.decodes, work.prefills, work.prefill_tokens > 0
    return np.column_stack([np.ones(len(sizes)), rises, *others])


def _host(work: Columns) -> Array:
    """Return the columns of the host's time to launch steps: [steps, 4]."""
    return np.column_stack([work.tokens > 0, work.decodes, work.prefills, work.prefill_tokens > 0]).astype(float)


def _times(device_columns: Array, host_columns: Array, device: Array, host: Array) -> Array:
    return np.asarray(np.maximum(device_columns @ device, host_columns @ host))


def least_squares(columns: Array, seconds: Array, weights: Array) -> Array:
    """Return non-negative coefficients with the smallest weighted squares of relative errors; zeros without rows."""
    if not len(seconds):  # scipy's nnls returns whatever the memory held
        return np.zeros(columns.shape[1])
    roots = np.sqrt(weights)
    rows = columns * (roots / seconds)[:, None]
    units: Array = rows.max(axis=0, initial=0)
    units[units == 0] = 1
    triangle = np.asarray(
        np.linalg.qr(np.column_stack([rows / units, roots]), mode="r")
    )  # the same problem with few rows
    return np.asarray(nnls(triangle[:, :-1], triangle[:, -1], maxiter=1000)[0] / units)


_Sides = tuple[Array, Array]
"""Something of the device and of the host."""


def _solved(cells: _Cells, sides: _Sides, weights: Array, hosted: NDArray[np.bool_]) -> _Sides:
    device, host = (
        least_squares(columns[on], cells.median_s[on], weights[on])
        for columns, on in zip(sides, (~hosted, hosted), strict=True)
    )
    return device, host


def _cell_weights(cells: _Cells, sides: _Sides, overlapped: bool) -> tuple[Array, NDArray[np.bool_]]:
    """Return the weight of each cell, and whether the host decides its time: [cells] each.

    Both depend on the coefficients, so they are found in turn. The search begins with several batch sizes up to which
    the host decides, and with none; before a prefill it decides. The smallest mean error wins, in which a pause counts
    as 50 %.
    """
    candidates: list[tuple[float, int, Array, NDArray[np.bool_]]] = []
    decodes = cells.work.decodes
    launching = cells.following.prefill_tokens > 0
    for limit in (0, *np.geomspace(2, max(2, decodes.max()), 7)) if overlapped else (0,):
        hosted = overlapped & (cells.work.prefill_tokens == 0) & (launching | (decodes <= limit))
        trust = np.ones(len(decodes))
        for _ in range(8):
            weights = cells.steps * trust
            coefficients = _solved(cells, sides, weights, hosted)
            errors = np.abs(_times(*sides, *coefficients) / cells.median_s - 1)
            candidates.append(
                (float(np.average(np.minimum(errors, 0.5), weights=cells.steps)), len(candidates), weights, hosted)
            )
            usual = 1.48 * np.median(errors) + 1e-6
            trust = np.minimum(1, 2 * usual / np.maximum(errors, usual))
            hosted = overlapped & (sides[1] @ coefficients[1] > sides[0] @ coefficients[0])
    return min(candidates)[2:]


def _pauses(cells: _Cells, sides: _Sides, coefficients: _Sides, weights: Array) -> float:
    """Return the measured time over the predicted time."""
    return float((weights / cells.steps) @ cells.total_s / (weights @ _times(*sides, *coefficients)))


def _spreads(rows: _Rows, fitted_s: Array) -> Iterator[tuple[float, int]]:
    for groups in (rows.part, rows.launch):
        logs = np.log(np.bincount(groups, rows.elapsed_s) / np.bincount(groups, fitted_s))
        if len(logs) > 1:
            yield float(np.std(logs, ddof=1)), len(logs)


def _refit(
    cells: _Cells, sides: _Sides, weights: Array, hosted: NDArray[np.bool_], rng: np.random.Generator
) -> list[float]:
    luck = rng.standard_exponential(len(weights))
    coefficients = _solved(cells, sides, weights * luck, hosted)
    scale = _pauses(cells, sides, coefficients, cells.steps * luck)
    return [float(each) for each in np.concatenate(coefficients) * scale]


def _judged(cells: _Cells, captured: Sequence[int], weights: Array, hosted: NDArray[np.bool_]) -> Iterator[Kind]:
    """Yield the kinds, without the smallest and the largest of a family: predictions don't go beyond those either."""
    for family in np.unique(cells.families):
        in_family = cells.families == family
        sizes = np.unique(cells.amounts[in_family])
        for size in sizes[1:-1] if len(sizes) > 2 else sizes:
            left = in_family & (cells.amounts == size)
            if cells.steps[left].sum() < FEWEST_STEPS:
                continue
            knots = _knots(cells.sizes[~left])
            sides = _device(cells.work, captured, knots), _host(cells.following)
            times = _times(*sides, *_solved(cells, sides, np.where(left, 0, weights), hosted))
            error = abs(float(weights[left] @ times[left] / (weights[left] @ cells.median_s[left])) - 1)
            yield Kind(name=_name(family, size), family=int(family), size=float(size), error=error)


def _faults(cells: _Cells, kinds: Sequence[Kind]) -> Iterator[str]:
    for what, on, fewest in (
        ("batch sizes of decoding", cells.families == 0, FEWEST_DECODE_SIZES),
        ("sizes of prefills", cells.families == 1, FEWEST_PREFILL_SIZES),
    ):
        if (amount := len(set(cells.amounts[on]))) < fewest:
            yield f"The calibration has {amount} {what}, but needs {fewest}."
    if (error := float(np.median([kind.error for kind in kinds]))) > LARGEST_ERROR:
        yield (
            f"Half of the kinds of steps are off by {percent(error)} and more if they are left out of the fit; the "
            f"most allowed is {percent(LARGEST_ERROR)}."
        )


def _range(amounts: Array) -> tuple[float, float]:
    """Return the smallest and the largest positive amount; zeros if there is none."""
    positive = amounts[amounts > 0]
    return (float(positive.min()), float(positive.max())) if positive.size else (0.0, 0.0)


def _beyond(amounts: Array, noun: str, low: float, high: float) -> Iterator[str]:
    above = amounts[amounts > SLACK * high]
    if above.size:
        yield f"{_steps(above)} up to {in_sentence(above.max())} {noun}; calibrated up to {in_sentence(high)}"
    below = amounts[(amounts > 0) & (amounts < low)]
    if below.size and noun == HULL["tokens"]:  # the other amounts act linearly from zero on
        yield f"{_steps(below)} only {in_sentence(below.min())} {noun}; calibrated from {in_sentence(low)}"


def _steps(amounts: Array) -> str:
    return "1 step has" if amounts.size == 1 else f"{amounts.size:,d} steps have"
