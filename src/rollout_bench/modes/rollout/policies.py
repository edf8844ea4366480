"""Router policies: they choose the engine for a sample from its prompt's index and the state of the engines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rollout_bench.modes.rollout.settings import RouterPolicy


@dataclass(frozen=True)
class Fleet:
    """The router's view of its engines when it decides.

    Attributes:
        in_flight: unfinished sequences on each engine [engines].
        decided: number of sequences distributed earlier in this step.
        homes: prompt -> engine of its first sample.
    """

    in_flight: Sequence[int]
    decided: int = 0
    homes: Mapping[int, int] = field(default_factory=dict)


def least_in_flight(prompt: int, fleet: Fleet) -> int:
    """Return the engine with the fewest unfinished sequences; the first of several."""
    return min(range(len(fleet.in_flight)), key=lambda engine: (fleet.in_flight[engine], engine))


def round_robin(prompt: int, fleet: Fleet) -> int:
    """Return the engines in turn."""
    return fleet.decided % len(fleet.in_flight)


def sticky(prompt: int, fleet: Fleet) -> int:
    """Return the engine of the prompt's first sample; for a first sample, the choice of `least_in_flight`."""
    home = fleet.homes.get(prompt)
    return least_in_flight(prompt, fleet) if home is None else home


Policy = Callable[[int, Fleet], int]

POLICIES: dict[RouterPolicy, Policy] = {
    "least_in_flight": least_in_flight,
    "round_robin": round_robin,
    "sticky": sticky,
}
"""Name -> policy, which returns the number of the engine for a sequence, from 0."""


class Balancer:
    """Applies a policy to one sequence after the other, and keeps the state that the policy needs.

    Args:
        policy: its name.
        engines: number of engines.
    """

    def __init__(self, policy: RouterPolicy, engines: int) -> None:
        self.in_flight = [0] * engines
        """Unfinished sequences on each engine."""
        self._policy = POLICIES[policy]
        self._decided = 0
        self._homes: dict[int, int] = {}

    def choose(self, prompt: int) -> int:
        """Return the engine for a sample of `prompt`, and count the sample there as unfinished."""
        engine = self._policy(prompt, Fleet(self.in_flight, self._decided, self._homes))
        self._homes.setdefault(prompt, engine)
        self._decided += 1
        self.in_flight[engine] += 1
        return engine

    def ended(self, engine: int) -> None:
        """Record that a sequence on `engine` has ended."""
        self.in_flight[engine] -= 1
