"""Simulate which launches others' use of the machine spoils, and whom each rule for leaving them out favours.

A neighbour on the machine is on and off at random, with exponential times. While it is on, it takes half of the cores'
time and passes take twice as long (`SHARE`, `SPEED`), of every configuration alike: the truth is that nothing differs.
Such a neighbour forgets how long it has been on, so each pass is followed from state to state, exactly.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from kept import keep
from noise import Array
from numpy.typing import NDArray

from rollout_bench.analysis.timed.pairs import TRIMMED
from rollout_bench.contracts.fields import Strict
from rollout_bench.contracts.host_limits import HOST_LIMITS

Bools = NDArray[np.bool_]

SHARE, SPEED = 0.5, 0.5
"""Of the cores' time that the neighbour takes while it is on, and what is left of the engine's speed."""

(LIMIT,) = (limit for limit in HOST_LIMITS if limit.code == "cpu_shared")

START_S = 10.0
"""From one launch's last pass to the next one's first, where they run one after the other."""

WINDOW_S = 10.0
"""Time that each launch is watched for, in the rule of equal windows: longer than all passes that nothing slows."""

NEIGHBOURS = ((1.0, 5.0), (4.0, 20.0), (20.0, 60.0), (60.0, 600.0), (5.0, 300.0))
"""Mean seconds that it is on, and from one beginning to the next."""


class Design(Strict):
    """A block: seconds of one pass of each configuration, in `rounds` rounds in turn; 0: one launch after the other."""

    passes_s: tuple[float, ...]
    rounds: int

    def __str__(self) -> str:
        passes = " and ".join(f"{seconds:g}" for seconds in self.passes_s)
        return f"{passes} s in turn, {self.rounds} rounds" if self.rounds else f"{passes} s, one after the other"


DESIGNS = (
    Design(passes_s=(0.9, 0.5), rounds=12),
    Design(passes_s=(0.9, 0.5, 0.65), rounds=12),
    Design(passes_s=(2.0, 0.5), rounds=8),
    Design(passes_s=(7.0, 4.0), rounds=0),
    Design(passes_s=(7.0, 4.0, 5.0), rounds=0),
)


class Excluded(Strict):
    """What one rule does to the first comparison of the design that it favours most.

    `bias` is the mean log ratio to the configuration with the longest passes, of which the truth is 0; above it the
    one with shorter passes looks quicker. `added` is how much of that leaving out makes, `error` the standard error of
    `added`, `dropped` the share of pairs left out, and `spread` the standard deviation of the pairs that are kept.
    """

    design: Design
    on_s: float
    every_s: float
    rule: str
    bias: float
    added: float
    error: float
    dropped: float
    spread: float


class Exclusion(Strict):
    """Everything that was simulated."""

    seed: int
    blocks: int
    share: float
    speed: float
    cells: list[Excluded]


@dataclass(frozen=True)
class Blocks:
    """Simulated blocks: seconds of each launch's passes and of those with the neighbour on [n, k], and what they show.

    `ratios` are the log ratios of the first configuration's time to that of the others [n, k - 1]. The first has the
    longest passes. `window_s` and `window_on_s` are as `time_s` and `on_s`, but over `WINDOW_S` at least from the first
    pass on [n, k]; where the passes are in turn, the same as these.
    """

    time_s: Array
    on_s: Array
    ratios: Array
    window_s: Array
    window_on_s: Array

    @property
    def lost(self) -> Array:
        """Share of the cores' time that each launch lost [n, k]."""
        return np.asarray(SHARE * self.on_s / self.time_s)

    @property
    def pooled(self) -> Array:
        """The same over all launches of a block [n, 1]."""
        return np.asarray(SHARE * self.on_s.sum(axis=1, keepdims=True) / self.time_s.sum(axis=1, keepdims=True))


class Neighbour:
    """Is on for `on_s` seconds on average, every `every_s`, in each of `n` blocks on its own."""

    def __init__(self, rng: np.random.Generator, n: int, on_s: float, every_s: float) -> None:
        self._rng = rng
        self._ends, self._begins = 1 / on_s, 1 / (every_s - on_s)
        self._on = rng.random(n) < on_s / every_s

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        total = self._ends + self._begins
        usual = self._begins / total
        chance = usual + (self._on - usual) * np.exp(-total * seconds)
        self._on = self._rng.random(len(self._on)) < chance

    def work(self, seconds: float | Array, slowed: float = SPEED) -> tuple[Array, Array]:
        """Let engines do what takes `seconds` undisturbed; return how long it took and how much of it was on [n].

        With `slowed` 1 nothing takes longer while the neighbour is on.
        """
        left = np.broadcast_to(seconds, len(self._on)).astype(float)
        taken, on = np.zeros_like(left), np.zeros_like(left)
        going = np.flatnonzero(left > 0)
        while going.size:
            state = self._on[going]
            speed = np.where(state, slowed, 1.0)
            stays = self._rng.exponential(size=going.size) / np.where(state, self._ends, self._begins)
            passed = np.minimum(stays, left[going] / speed)
            changes = stays < left[going] / speed
            taken[going] += passed
            on[going] += np.where(state, passed, 0.0)
            left[going] -= passed * speed
            going = going[changes]
            self._on[going] ^= True
        return taken, on


def simulated(rng: np.random.Generator, n: int, design: Design, on_s: float, every_s: float) -> Blocks:
    """`n` blocks of one design, their launches or passes in balanced order."""
    orders = list(itertools.permutations(range(len(design.passes_s))))
    if design.rounds:
        return _in_turn(Neighbour(rng, n, on_s, every_s), n, design, orders)
    parts = [
        _one_after_the_other(Neighbour(rng, -(-n // len(orders)), on_s, every_s), -(-n // len(orders)), design, order)
        for order in orders
    ]
    return Blocks(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Blocks)))


def _in_turn(neighbour: Neighbour, n: int, design: Design, orders: Sequence[Sequence[int]]) -> Blocks:
    k = len(design.passes_s)
    time_s, on_s, logs = np.zeros((n, k)), np.zeros((n, k)), np.zeros((n, design.rounds, k))
    for number in range(design.rounds):
        for j in orders[number % len(orders)]:
            taken, on = neighbour.work(design.passes_s[j])
            time_s[:, j] += taken
            on_s[:, j] += on
            logs[:, number, j] = np.log(taken / design.passes_s[j])
    ratios = np.sort(logs[..., :1] - logs[..., 1:], axis=1)
    cut = int(TRIMMED * design.rounds)
    return Blocks(time_s, on_s, ratios[:, cut : design.rounds - cut].mean(axis=1), time_s, on_s)


def _one_after_the_other(neighbour: Neighbour, n: int, design: Design, order: Sequence[int]) -> Blocks:
    k = len(design.passes_s)
    time_s, on_s, after_on_s = np.zeros((n, k)), np.zeros((n, k)), np.zeros((n, k))
    for j in order:
        neighbour.wait(START_S)
        time_s[:, j], on_s[:, j] = neighbour.work(design.passes_s[j])
        _, after_on_s[:, j] = neighbour.work(np.maximum(WINDOW_S - time_s[:, j], 0.0), slowed=1.0)
    logs = np.log(time_s / np.array(design.passes_s))
    return Blocks(time_s, on_s, logs[:, :1] - logs[:, 1:], np.maximum(time_s, WINDOW_S), on_s + after_on_s)


def _all(blocks: Blocks) -> Bools:
    return np.ones((len(blocks.ratios), 1), bool)


def by_launch(blocks: Blocks) -> Bools:
    """Each launch by its own readings; a pair counts where both of its launches do."""
    valid = blocks.lost <= LIMIT.invalid
    return np.asarray(valid[:, :1] & valid[:, 1:])


def _by_pair(blocks: Blocks) -> Bools:
    on_s = blocks.on_s[:, :1] + blocks.on_s[:, 1:]
    return np.asarray(SHARE * on_s / (blocks.time_s[:, :1] + blocks.time_s[:, 1:]) <= LIMIT.invalid)


def _by_block(blocks: Blocks) -> Bools:
    return np.asarray(blocks.pooled <= LIMIT.invalid)


def by_block_and_alone(blocks: Blocks) -> Bools:
    """All launches of a block by all of their readings, or by those of one launch that lost far more than that."""
    return np.asarray(_by_block(blocks) & (blocks.lost.max(axis=1, keepdims=True) <= LIMIT.alone))


def _by_mean_share(blocks: Blocks) -> Bools:
    return np.asarray(blocks.lost.mean(axis=1, keepdims=True) <= LIMIT.invalid)


def _by_equal_windows(blocks: Blocks) -> Bools:
    valid = SHARE * blocks.window_on_s / blocks.window_s <= LIMIT.invalid
    return np.asarray(valid[:, :1] & valid[:, 1:])


ALL, LAUNCH, PAIR, BLOCK, MEAN, WINDOWS, RULE = (
    "nothing left out",
    "launch by launch",
    "pooled over each pair",
    "pooled over the block",
    "mean of the launches' shares",
    "launch by launch, over 10 s each",
    "pooled over the block, or one launch above 40 %",
)
RULES: dict[str, Callable[[Blocks], Bools]] = {
    ALL: _all,
    LAUNCH: by_launch,
    PAIR: _by_pair,
    BLOCK: _by_block,
    MEAN: _by_mean_share,
    WINDOWS: _by_equal_windows,
    RULE: by_block_and_alone,
}
"""Which pairs count [n, k - 1], or [n, 1] where it is the same for all of a block."""


def left_out(blocks: Blocks, rule: Callable[[Blocks], Bools]) -> tuple[float, float, float, float, float]:
    """Return bias, what leaving out adds to it, the standard error of that, the share left out, and the spread.

    Of the comparison to which leaving out adds most.
    """
    kept = np.broadcast_to(rule(blocks), blocks.ratios.shape)
    found = []
    for ratios, counts in zip(blocks.ratios.T, kept.T, strict=True):
        mean, dropped = ratios[counts].mean(), 1 - counts.mean()
        # the mean over those kept less the mean over all, as the mean of one value for each block
        each = np.where(counts, (ratios - mean) / (1 - dropped), 0.0) - (ratios - ratios.mean())
        error = each.std() / np.sqrt(len(each))
        found.append((mean, mean - ratios.mean(), error, dropped, ratios[counts].std()))
    return max(found, key=lambda values: abs(values[1]))


@dataclass(frozen=True)
class Gross:
    """A block of which one launch had the neighbour beside it all the time, the others never; all as long.

    `own` and `pooled` are the shares of that launch and of all together, `pooled_alone` says whether the latter would
    be enough to leave the block out, and `left_out` whether it is.
    """

    launches: int
    own: float
    pooled: float
    pooled_alone: bool
    left_out: bool


def gross_cases(launches: Sequence[int] = (2, 3, 4, 6)) -> list[Gross]:
    """Return what becomes of blocks with one spoilt launch."""
    found = []
    for k in launches:
        time_s = np.array([[1 / SPEED, *[1.0] * (k - 1)]])
        on_s = np.array([[1 / SPEED, *[0.0] * (k - 1)]])
        block = Blocks(time_s, on_s, np.zeros((1, k - 1)), time_s, on_s)
        kept, rule = bool(_by_block(block).all()), bool(by_block_and_alone(block).all())
        found.append(Gross(k, float(block.lost[0, 0]), float(block.pooled[0, 0]), not kept, not rule))
    return found


def simulate(blocks: int, seed: int) -> Exclusion:
    """Every rule on the same blocks of each design and neighbour."""
    cells = []
    for number, design in enumerate(DESIGNS):
        for on_s, every_s in NEIGHBOURS:
            rng = np.random.default_rng([seed, number, int(on_s), int(every_s)])
            drawn = simulated(rng, blocks, design, on_s, every_s)
            for name, rule in RULES.items():
                bias, added, error, dropped, spread = left_out(drawn, rule)
                cells.append(
                    Excluded(
                        design=design,
                        on_s=on_s,
                        every_s=every_s,
                        rule=name,
                        bias=round(bias, 6),
                        added=round(added, 6),
                        error=round(error, 6),
                        dropped=round(dropped, 4),
                        spread=round(spread, 5),
                    )
                )
    return Exclusion(seed=seed, blocks=blocks, share=SHARE, speed=SPEED, cells=cells)


def main() -> None:
    """Simulate, print a line for each design, neighbour and rule, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=400_000, help="of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    arguments = parser.parse_args()
    result = simulate(arguments.blocks, arguments.seed)
    for cell in result.cells:
        print(
            f"{cell.design}; {cell.on_s:g} s every {cell.every_s:g} s; {cell.rule}: bias {100 * cell.bias:+.3f} %, "
            f"added {100 * cell.added:+.3f} +- {100 * cell.error:.3f} %, left out {100 * cell.dropped:.1f} %, "
            f"spread {100 * cell.spread:.1f} %"
        )
    print(keep("exclusion", result))


if __name__ == "__main__":
    main()
