"""Router policies: they choose the engine for a sample from its prompt's index and the state of the engines."""

from collections.abc import Callable


def least_in_flight(prompt: int, balancer: "Balancer") -> int:
    """Return the engine with the fewest unfinished sequences; the first of several."""
    return min(range(len(balancer.in_flight)), key=lambda engine: (balancer.in_flight[engine], engine))


def round_robin(prompt: int, balancer: "Balancer") -> int:
    """Return the engines in turn."""
    return balancer.decided % len(balancer.in_flight)


def sticky(prompt: int, balancer: "Balancer") -> int:
    """Return the engine of the prompt's first sample; for a first sample, the choice of `least_in_flight`."""
    home = balancer.homes.get(prompt)
    return least_in_flight(prompt, balancer) if home is None else home


Policy = Callable[[int, "Balancer"], int]

POLICIES: dict[str, Policy] = {
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

    def __init__(self, policy: str, engines: int) -> None:
        self.in_flight = [0] * engines
        """Unfinished sequences on each engine."""
        self._policy = POLICIES[policy]
        self.decided = 0
        """Number of sequences distributed earlier in this step."""
        self.homes: dict[int, int] = {}
        """Prompt -> engine of its first sample."""

    def choose(self, prompt: int) -> int:
        """Return the engine for a sample of `prompt`, and count the sample there as unfinished."""
        engine = self._policy(prompt, self)
        self.homes.setdefault(prompt, engine)
        self.decided += 1
        self.in_flight[engine] += 1
        return engine

    def ended(self, engine: int) -> None:
        """Record that a sequence on `engine` has ended."""
        self.in_flight[engine] -= 1
