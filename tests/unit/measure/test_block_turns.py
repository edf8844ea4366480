"""Whose turn it is in a block: one pass at a time, rounds in balanced order, whoever fails is left out for good."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_bench.measure.launch.passes import FEWEST, MOST, passes_of
from rollout_bench.measure.launch.rotation import Dismissal, Grant, Rotation, Start, Started
from rollout_bench.measure.launch.turns import Asks, Turns, line
from rollout_bench.plan.order import round_orders

WARMUP = 2
NAMES = "abcdef"


def orders(names: Sequence[str], group: int, rounds: int) -> Iterator[Sequence[str]]:
    assert rounds > 0
    return round_orders(names, None, 7 + group)


@dataclass
class Engine:
    """What a launch would do: its passes, and after how many of its words it fails."""

    iterations: int | None
    start_s: float = 40.0
    pass_s: float = 1.0
    fails_after: int | None = None
    said: int = 0
    warm: int = 0
    counted: int = 0
    wanted: int | None = None
    state: str = "new"


@dataclass
class Played:
    """A block that was played to its end."""

    rotation: Rotation
    engines: list[Engine]
    grants: list[Grant] = field(default_factory=list)
    starts: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Who was started, and what each was doing then."""
    most_alive: int = 0


def play(
    engines: Sequence[Engine],
    at_once: int | None = None,
    started: Started = "in_turn",
    choose: Callable[[int], int] = lambda _: 0,
) -> Played:
    """Play a block; `choose` says which of several events comes first."""
    names = list(NAMES[: len(engines)])
    rotation = Rotation(names, [e.iterations for e in engines], orders, at_once or len(engines), started)
    played = Played(rotation, list(engines))
    for _ in range(100_000):
        if rotation.is_over:
            return played
        for step in rotation.steps():
            engine = engines[step.position]
            states = tuple(e.state for e in engines)
            if isinstance(step, Start):
                assert engine.state == "new"
                played.starts.append((step.position, states))
                engine.state = "works"
            elif isinstance(step, Grant):
                assert engine.state == "asks"
                assert "works" not in states, "nobody else may be at work beside a pass"
                played.grants.append(step)
                engine.state = "works"
                take_turn(engine, step)
            else:
                assert isinstance(step, Dismissal)
                assert engine.state == "finished"
                assert "works" not in states
                engine.state = "ends"
        played.most_alive = max(played.most_alive, sum(e.state not in ("new", "gone") for e in engines))
        busy = [p for p, e in enumerate(engines) if e.state in ("works", "ends")]
        if busy:
            happen(rotation, engines, busy[choose(len(busy)) % len(busy)])
        else:
            assert rotation.steps() or rotation.is_over, "a block stands still"
    raise AssertionError("a block never ends")


def take_turn(engine: Engine, grant: Grant) -> None:
    if grant.round is None:
        engine.warm += 1
        return
    if engine.wanted is None:
        engine.wanted = grant.passes or engine.iterations
    else:
        assert grant.passes is None, "how many count is said once"
    engine.counted += 1


def happen(rotation: Rotation, engines: Sequence[Engine], position: int) -> None:
    """Let the launch at `position` come to the end of what it does."""
    engine = engines[position]
    engine.said += 1
    if engine.state == "ends" or (engine.fails_after is not None and engine.said > engine.fails_after):
        engine.state = "gone"
        rotation.gone(position)
    elif engine.wanted is not None and engine.counted == engine.wanted:
        engine.state = "finished"
        rotation.finished(position)
    else:
        engine.state = "asks"
        warming_up = engine.warm < WARMUP
        pass_s = None if not engine.warm else engine.pass_s
        left_s = 1e4
        rotation.asked(position, Asks(warming_up=warming_up, start_s=engine.start_s, pass_s=pass_s, left_s=left_s))


def counts(played: Played) -> list[int]:
    return [sum(p in order for order in played.rotation.rounds) for p in range(len(played.engines))]


def test_each_round_has_one_pass_each_in_balanced_order() -> None:
    played = play([Engine(6) for _ in range(3)])
    wanted = ([("abc".index(name) for name in order)] for order in orders("abc", 0, 6))
    assert played.rotation.rounds == [list(*order) for order in itertools.islice(wanted, 6)]
    assert [grant.round for grant in played.grants if grant.round is not None] == sorted(list(range(6)) * 3)
    assert [e.warm for e in played.engines] == [WARMUP] * 3
    assert {grant.passes for grant in played.grants} == {None}


@pytest.mark.parametrize(
    ("starts_s", "passes_s", "passes"),
    [((40.0,), (1.0,), 20), ((8.0,), (1.0,), FEWEST), ((900.0,), (1.0,), MOST), ((10.0, 20.0, 30.0), (1, 1, 1), 10)],
)
def test_8_to_32_passes_count_to_fill_half_the_start(
    starts_s: tuple[float, ...], passes_s: tuple[float, ...], passes: int
) -> None:
    assert passes_of(starts_s, passes_s, [1e6] * len(starts_s)) == passes


def test_the_baseline_makes_its_passes_beside_every_group() -> None:
    played = play([Engine(4) for _ in range(6)], at_once=3)
    assert counts(played) == [12, 4, 4, 4, 4, 4]
    assert played.most_alive == 3
    assert [sorted(order) for order in played.rotation.rounds] == [[0, 1, 2]] * 4 + [[0, 3, 4]] * 4 + [[0, 5]] * 4
    told = {grant.position: grant.passes for grant in played.grants if grant.passes}
    assert told == {0: 12}
    before_third = dict(played.starts)[3]
    assert before_third[1:3] == ("gone", "gone")


def test_an_engine_that_fails_misses_all_later_rounds() -> None:
    fails_in_third = 1 + WARMUP + 2
    played = play([Engine(5), Engine(5, fails_after=fails_in_third), Engine(5)])
    assert counts(played) == [5, 2, 5]
    assert all(1 not in order for order in played.rotation.rounds[2:])
    assert [e.state for e in played.engines] == ["gone"] * 3


ENGINES = st.lists(
    st.builds(
        Engine,
        iterations=st.none() | st.integers(1, 5),
        start_s=st.floats(0, 100),
        pass_s=st.floats(0.1, 10),
        fails_after=st.none() | st.integers(0, 12),
    ),
    min_size=1,
    max_size=6,
)


@given(
    engines=ENGINES,
    at_once=st.integers(2, 6),
    started=st.sampled_from(("in_turn", "together")),
    choices=st.lists(st.integers(0, 5), min_size=1, max_size=20),
)
def test_the_others_pass_one_at_a_time_whatever_fails(
    engines: list[Engine], at_once: int, started: Started, choices: list[int]
) -> None:
    sequence = itertools.cycle(choices)
    played = play(engines, at_once, started, lambda _: next(sequence))
    assert played.rotation.most_alive == played.most_alive <= at_once
    groups = played.rotation.groups
    for position, (engine, counted) in enumerate(zip(engines, counts(played), strict=True)):
        assert engine.state == "gone"
        if engine.fails_after is not None:
            continue
        assert counted == engine.wanted
        if engine.iterations is not None:
            assert counted == engine.iterations * (1 if position else groups)
    for order in played.rotation.rounds:
        assert max(Counter(order).values(), default=1) == 1
    rounds = [grant.round for grant in played.grants if grant.round is not None]
    assert rounds == sorted(rounds)


def test_a_wait_counts_as_a_pause_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("rollout_bench.measure.launch.turns.time.monotonic", lambda: now[0])
    own, _ = line()
    turns = Turns(own, waited_s=5.0)
    turns.ask(Asks(warming_up=True, start_s=1.0, pass_s=None, left_s=9.0))
    now[0] += 7.0
    assert turns.paused_s() == 12.0


def test_an_engine_starts_once_the_one_before_has_warmed_up() -> None:
    played = play([Engine(2) for _ in range(3)])
    assert [position for position, _ in played.starts] == [0, 1, 2]
    assert [states for _, states in played.starts] == [
        ("new", "new", "new"),
        ("asks", "new", "new"),
        ("asks", "asks", "new"),
    ]
    warm = [grant.position for grant in played.grants[: 3 * WARMUP]]
    assert warm == sorted(warm)
