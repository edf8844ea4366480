"""Router policies: which engine gets a sequence. Pure functions of the sequence and of what the router knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rollout_bench.contracts.spec import RouterPolicy

BLOCK = 16
"""Tokens by which beginnings of prompts are compared: vLLM's usual block of a KV cache."""

BALANCE, SLACK = 1.5, 8
"""An engine is not chosen for its cache where it has more than BALANCE x the mean + SLACK sequences under way."""


@dataclass(frozen=True)
class Fleet:
    """What a router knows of its engines when it decides.

    Attributes:
        in_flight: sequences that are under way on each engine [engines].
        decided: sequences that were handed out before in this step.
        homes: prompt -> the engine that its first sample went to.
        seen: for each engine, the beginnings that it was given, as hashes of whole blocks [engines].
        draw: a number drawn for this decision, uniform in [0, 1).
    """

    in_flight: Sequence[int]
    decided: int = 0
    homes: Mapping[int, int] = field(default_factory=dict)
    seen: Sequence[set[int]] = ()
    draw: float = 0.0


@dataclass(frozen=True)
class Ask:
    """A sequence that wants an engine.

    Attributes:
        prompt: index of its prompt in the step.
        beginnings: hashes of its prompt's first block, first two blocks, and so on; only where a policy asks for them.
    """

    prompt: int
    beginnings: Sequence[int] = ()


def beginnings_of(token_ids: Sequence[int]) -> list[int]:
    """Return a hash of the first block of a prompt, of its first two, and so on; of whole blocks only."""
    found, running = [], 0
    for start in range(0, len(token_ids) - BLOCK + 1, BLOCK):
        running = hash((running, *token_ids[start : start + BLOCK]))
        found.append(running)
    return found


def least_in_flight(ask: Ask, fleet: Fleet) -> int:
    """Return the engine with the fewest sequences under way; of several the first."""
    return min(range(len(fleet.in_flight)), key=lambda engine: (fleet.in_flight[engine], engine))


def round_robin(ask: Ask, fleet: Fleet) -> int:
    """Return one engine after the other."""
    return fleet.decided % len(fleet.in_flight)


def random(ask: Ask, fleet: Fleet) -> int:
    """Return the engine that was drawn."""
    return int(fleet.draw * len(fleet.in_flight))


def sticky(ask: Ask, fleet: Fleet) -> int:
    """Return the engine that has the first sample of the same prompt; for a first one as `least_in_flight`."""
    home = fleet.homes.get(ask.prompt)
    return least_in_flight(ask, fleet) if home is None else home


def prefix_aware(ask: Ask, fleet: Fleet) -> int:
    """Return the engine that was given the longest beginning of the prompt; of several the one with the fewest.

    One that has far more under way than the mean is not asked to take more for that reason.
    """
    most = BALANCE * sum(fleet.in_flight) / len(fleet.in_flight) + SLACK
    open_to = [engine for engine, count in enumerate(fleet.in_flight) if count <= most]

    def order(engine: int) -> tuple[int, int, int]:
        return -_blocks_seen(ask.beginnings, fleet.seen[engine]), fleet.in_flight[engine], engine

    return min(open_to, key=order)


def _blocks_seen(beginnings: Sequence[int], seen: set[int]) -> int:
    """Return how many blocks of a prompt an engine has seen: what it has of a beginning it has of all shorter ones."""
    low, high = 0, len(beginnings)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if beginnings[middle - 1] in seen else (low, middle - 1)
    return low


Policy = Callable[[Ask, Fleet], int]

POLICIES: dict[RouterPolicy, Policy] = {
    "least_in_flight": least_in_flight,
    "round_robin": round_robin,
    "sticky": sticky,
    "random": random,
    "prefix_aware": prefix_aware,
}
"""Name -> policy: the number of the engine that gets a sequence, from 0."""


class Balancer:
    """Decides one sequence after the other by a policy, and keeps what the policy needs to know.

    Args:
        policy: its name.
        engines: how many there are.
        draws: uniform numbers in [0, 1), one for each decision.
    """

    def __init__(self, policy: RouterPolicy, engines: int, draws: Iterator[float]) -> None:
        self.in_flight = [0] * engines
        """Sequences under way on each engine."""
        self._policy = POLICIES[policy]
        self._random, self._prefixes = policy == "random", policy == "prefix_aware"
        self._draws = draws
        self._decided = 0
        self._homes: dict[int, int] = {}
        self._seen: list[set[int]] = [set() for _ in range(engines)]

    def choose(self, prompt: int, token_ids: Sequence[int]) -> int:
        """Return the engine for a sample of `prompt`, which is `token_ids`; it is under way there from now on."""
        ask = Ask(prompt, beginnings_of(token_ids) if self._prefixes else ())
        draw = next(self._draws) if self._random else 0.0
        engine = self._policy(ask, Fleet(self.in_flight, self._decided, self._homes, self._seen, draw))
        self._homes.setdefault(prompt, engine)
        self._seen[engine].update(ask.beginnings)
        self._decided += 1
        self.in_flight[engine] += 1
        return engine

    def ended(self, engine: int) -> None:
        """Take note that a sequence on `engine` has ended."""
        self.in_flight[engine] -= 1
