"""Router policies: which engine gets a sample of a prompt, from the prompt's index and what the router knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rollout_bench.contracts.spec import RouterPolicy


@dataclass(frozen=True)
class Fleet:
    """What a router knows of its engines when it decides.

    Attributes:
        in_flight: sequences that are under way on each engine [engines].
        decided: sequences that were handed out before in this step.
        homes: prompt -> the engine that its first sample went to.
    """

    in_flight: Sequence[int]
    decided: int = 0
    homes: Mapping[int, int] = field(default_factory=dict)


def least_in_flight(prompt: int, fleet: Fleet) -> int:
    """Return the engine with the fewest sequences under way; of several the first."""
    return min(range(len(fleet.in_flight)), key=lambda engine: (fleet.in_flight[engine], engine))


def round_robin(prompt: int, fleet: Fleet) -> int:
    """Return one engine after the other."""
    return fleet.decided % len(fleet.in_flight)


def sticky(prompt: int, fleet: Fleet) -> int:
    """Return the engine that has the first sample of the same prompt; for a first one as `least_in_flight`."""
    home = fleet.homes.get(prompt)
    return least_in_flight(prompt, fleet) if home is None else home


Policy = Callable[[int, Fleet], int]

POLICIES: dict[RouterPolicy, Policy] = {
    "least_in_flight": least_in_flight,
    "round_robin": round_robin,
    "sticky": sticky,
}
"""Name -> policy: the number of the engine that gets a sequence, from 0."""


class Balancer:
    """Decides one sequence after the other by a policy, and keeps what the policy needs to know.

    Args:
        policy: its name.
        engines: how many there are.
    """

    def __init__(self, policy: RouterPolicy, engines: int) -> None:
        self.in_flight = [0] * engines
        """Sequences under way on each engine."""
        self._policy = POLICIES[policy]
        self._decided = 0
        self._homes: dict[int, int] = {}

    def choose(self, prompt: int) -> int:
        """Return the engine for a sample of `prompt`; it is under way there from now on."""
        engine = self._policy(prompt, Fleet(self.in_flight, self._decided, self._homes))
        self._homes.setdefault(prompt, engine)
        self._decided += 1
        self.in_flight[engine] += 1
        return engine

    def ended(self, engine: int) -> None:
        """Take note that a sequence on `engine` has ended."""
        self.in_flight[engine] -= 1
