"""Turns in a block: a pure state machine from the messages of its launches to the answers.

One launch at a time has the turn: from its permission to begin a pass until it asks again, has finished, or is gone.
So an engine's preparation for its next pass (prompts, garbage collection, clearing a cache) never disturbs another
engine's pass. While an engine starts or ends, no launch has the turn. If all engines start together, the first turn is
granted after all of them have started.

With fewer places than launches, the first launch, the baseline, stays, and the others come in groups. The baseline
makes the same number of passes beside each group. The numbering of rounds continues from group to group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal

from rollout_bench.measure.launch.passes import fitting, passes_of
from rollout_bench.measure.launch.turns import Asks

Started = Literal["in_turn", "together"]

Orders = Callable[[Sequence[str], int, int], Iterator[Sequence[str]]]
"""From names, number of the group and number of rounds: yields the order of the names in each round, endlessly."""


class State(Enum):
    """State of a launch in a block."""

    NEW = auto()
    STARTING = auto()
    ASKS = auto()
    HAS_TURN = auto()
    FINISHED = auto()
    ENDING = auto()
    GONE = auto()


@dataclass(frozen=True)
class Start:
    """Order to start the launch at `position`."""

    position: int


@dataclass(frozen=True)
class Grant:
    """Permission for the launch at `position` to make its next pass.

    Attributes:
        round: round of the pass; None in the warm-up.
        passes: number of passes that count, if this is the first of them and the launch lacks the number.
    """

    position: int
    round: int | None
    passes: int | None


@dataclass(frozen=True)
class Dismissal:
    """Permission for the launch at `position` to end."""

    position: int


Step = Start | Grant | Dismissal


@dataclass
class _Member:
    name: str
    iterations: int | None  # None: the block computes the number
    state: State = State.NEW
    asks: Asks | None = None
    passes: int | None = None  # number of passes that count; None before the first of them
    counted: int = 0  # in the current group
    in_round: bool = False  # whether the current pass counts

    @property
    def waits_to_count(self) -> bool:
        """Whether its next pass counts."""
        return self.state is State.ASKS and self.asks is not None and not self.asks.warming_up

    @property
    def waits_to_warm_up(self) -> bool:
        """Whether its next pass belongs to the warm-up."""
        return self.state is State.ASKS and not self.waits_to_count


@dataclass
class Rotation:
    """The turns of a block.

    Args:
        names: names of the launches, the baseline first.
        iterations: number of passes that count, for each launch; None lets the block compute it.
        orders: yields the orders of rounds.
        at_once: number of engines alive simultaneously, at least 2.
        started: whether engines start one after the other or together.
    """

    names: Sequence[str]
    iterations: Sequence[int | None]
    orders: Orders
    at_once: int
    started: Started = "in_turn"
    rounds: list[list[int]] = field(default_factory=list)
    """For each round, the launches that made a pass, in order."""
    most_alive: int = 0
    """Largest number of engines that were alive simultaneously."""
    _group: int = 0
    _left: list[int] = field(default_factory=list)
    _passes: int | None = None
    _order: Iterator[list[int]] | None = None  # None before the first round of the group

    def __post_init__(self) -> None:
        self._members = [_Member(name, of) for name, of in zip(self.names, self.iterations, strict=True)]
        others, places = range(1, len(self.names)), max(self.at_once - 1, 1)
        self._groups = [[0, *others[first : first + places]] for first in range(0, len(others), places)] or [[0]]

    @property
    def groups(self) -> int:
        """Number of groups, each measured beside the baseline."""
        return len(self._groups)

    @property
    def is_over(self) -> bool:
        """Whether all launches are gone."""
        return all(member.state is State.GONE for member in self._members)

    def asked(self, position: int, asks: Asks) -> None:
        """Record that a launch is ready for its next pass."""
        self._turn_over(position, State.ASKS)
        self._members[position].asks = asks

    def finished(self, position: int) -> None:
        """Record that a launch has made all its passes."""
        self._turn_over(position, State.FINISHED)

    def gone(self, position: int) -> None:
        """Record that a launch and its engine have ended, for any reason."""
        self._members[position].state = State.GONE

    def steps(self) -> list[Step]:
        """Return the steps to take now; empty while the block has to wait for a launch."""
        while True:
            group = [p for p in self._groups[self._group] if self._members[p].state is not State.GONE]
            busy = {self._members[p].state for p in group}
            if busy & {State.HAS_TURN, State.STARTING, State.ENDING}:
                return []
            if steps := self._starts(group) or self._warm_up(group) or self._round(group):
                return steps
            if steps := self._dismissals(group):
                return steps
            if self._group + 1 == self.groups:
                return []
            self._group += 1
            self._left = []
            for member in self._members:
                member.counted = 0
            self._order = None

    def _orders(self, rounds: int) -> Iterator[list[int]]:
        positions = {self._members[p].name: p for p in self._groups[self._group]}
        for order in self.orders(list(positions), self._group, rounds):
            yield [positions[name] for name in order]

    def _starts(self, group: Sequence[int]) -> list[Step]:
        new = [p for p in group if self._members[p].state is State.NEW]
        if self.started == "in_turn":
            new = [] if any(self._members[p].waits_to_warm_up for p in group) else new[:1]
        for position in new:
            self._members[position].state = State.STARTING
        alive = sum(member.state not in (State.NEW, State.GONE) for member in self._members)
        self.most_alive = max(self.most_alive, alive)
        return [Start(position) for position in new]

    def _warm_up(self, group: Sequence[int]) -> list[Step]:
        """Return the turn of a launch that warms up; a warm-up for a later load waits for the end of the round."""
        waiting = [p for p in group if self._members[p].waits_to_warm_up]
        if not waiting or any(self._members[p].waits_to_count for p in self._left):
            return []
        return [self._grant(waiting[0], None, None)]

    def _round(self, group: Sequence[int]) -> list[Step]:
        """Return the next turn of this round, or the first of the next round if a launch still has passes to make."""
        waiting = {p for p in group if self._members[p].waits_to_count and self._owes(p)}
        if not waiting:
            self._left = []
            return []
        if self._passes is None:
            self._passes = self._worked_out(sorted(waiting))
        if self._order is None:
            self._order = self._orders(max(map(self._of_group, waiting)))
        self._left = [p for p in self._left if p in waiting]
        if not self._left:
            self._left = [p for p in next(self._order) if p in waiting]
            self.rounds.append([])
        position = self._left.pop(0)
        return [self._grant(position, len(self.rounds) - 1, self._told(position))]

    def _owes(self, position: int) -> bool:
        """Whether a launch still has a pass to make beside this group; only the baseline may have none left."""
        if position or self._group + 1 == self.groups:
            return True
        member = self._members[position]
        return member.passes is None or member.counted < member.passes // self.groups

    def _told(self, position: int) -> int | None:
        """Return the number of passes that count for a launch, if the launch does not know it yet."""
        member = self._members[position]
        if member.passes is not None:
            return None
        member.passes = self._of_group(position) * (1 if position else self.groups)
        return None if member.passes == member.iterations else member.passes

    def _of_group(self, position: int) -> int:
        """Return how many passes of a launch count beside each of its groups."""
        member, groups = self._members[position], 1 if position else self.groups
        if member.passes is not None:
            return member.passes // groups
        if member.iterations is not None:
            return member.iterations
        assert self._passes is not None, "was worked out before the first round"
        assert member.asks is not None, "asks for the turn that it is told in"
        return min(self._passes, fitting(member.asks.pass_s or 0.0, member.asks.left_s / groups))

    def _worked_out(self, positions: Sequence[int]) -> int:
        asks = [(p, asks) for p in positions if (asks := self._members[p].asks) is not None]
        starts_s = [ask.start_s for _, ask in asks]
        return passes_of(
            starts_s if self.started == "in_turn" else [max(starts_s, default=0.0)],
            [ask.pass_s or 0.0 for _, ask in asks],
            [ask.left_s / (1 if p else self.groups) for p, ask in asks],
        )

    def _grant(self, position: int, number: int | None, passes: int | None) -> Grant:
        member = self._members[position]
        member.state, member.in_round = State.HAS_TURN, number is not None
        return Grant(position, number, passes)

    def _turn_over(self, position: int, state: State) -> None:
        member = self._members[position]
        if member.state is State.HAS_TURN and member.in_round:
            self.rounds[-1].append(position)
            member.counted += 1
        member.state = state

    def _dismissals(self, group: Sequence[int]) -> list[Step]:
        """Return dismissals of finished launches; the baseline ends only after the last group."""
        last = self._group + 1 == self.groups
        ending = [p for p in group if self._members[p].state is State.FINISHED and (last or p)]
        for position in ending:
            self._members[position].state = State.ENDING
        return [Dismissal(position) for position in ending]
