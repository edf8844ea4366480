"""Next steps of a sweep: followed again and again, they reach the highest rate that a server keeps up with."""

import heapq
from collections.abc import Mapping

import numpy as np
import pytest

from rollout_bench.contracts.load import KEPT_UP
from rollout_bench.core.saturation import Arrivals, kept_up, too_short
from rollout_bench.report.sweeps import CLOSE, RatedLoad, State, kept_count, more_requests, next_loads

CAPACITY = 10.0
"""Requests per second that a server of these tests answers at most."""


def sent(random: np.random.Generator, rate: float, requests: int, slots: int) -> Arrivals:
    """Return a pass of a server with so many slots."""
    due, free, ends = np.cumsum(random.exponential(1 / rate, requests)), [0.0] * slots, []
    for each in due:
        took_s = slots / CAPACITY * max(0.1, 1 + 0.3 * random.standard_normal())
        ends.append(max(each, heapq.heappop(free)) + took_s)
        heapq.heappush(free, ends[-1])
    return Arrivals(due, due, np.array(ends), max(ends))


def measured(random: np.random.Generator, asked: Mapping[float, int], slots: int) -> list[RatedLoad]:
    """Return the loads `asked`, rate -> requests of a pass, as two passes of a server show them."""
    loads = []
    for rate, requests in sorted(asked.items()):
        passes = [sent(random, rate, requests, slots) for _ in range(2)]
        found = kept_up(passes, KEPT_UP)
        assert found is not None
        state: State = "undecided"
        if found.is_sure:
            state = "keeps up" if found.share >= KEPT_UP else "falls behind"
        latency_s = float(np.mean([each.latency_s.mean() for each in passes])) if any(map(too_short, passes)) else 0.0
        answered = 2 * requests / sum(each.elapsed_s for each in passes)
        seems_behind = found.share < KEPT_UP
        loads.append(RatedLoad(rate, state, answered, requests, more_requests(requests, rate, latency_s), seems_behind))
    return loads


STARTS = [
    (2.0, 4.0, 8.0, 16.0, 32.0),
    (0.5, 1.0),
    (8.0, 9.0, 11.0, 12.0),
    (1.0, 100.0),
    (300.0, 600.0),
    (10.0,),
    (3.0,),
]


@pytest.mark.parametrize("slots", [4, 32])
@pytest.mark.parametrize("requests", [8, 64])
@pytest.mark.parametrize("start", STARTS, ids=str)
def test_next_steps_reach_the_highest_rate_in_few_rounds(start: tuple[float, ...], requests: int, slots: int) -> None:
    random = np.random.default_rng([slots, requests, len(start)])
    asked: Mapping[float, int] = dict.fromkeys(start, requests)
    for _round in range(9):
        loads = measured(random, asked, slots)
        step, asked = next_loads(loads)
        more = {load.rate: 2 * load.sent for load in loads if load.state == "undecided" and load.rate in asked}
        assert all(asked[rate] >= requests for rate, requests in more.items()), "the same would be as undecided"
        if not step:
            break
    else:
        pytest.fail(f"not decided in 9 rounds: {loads}")
    highest = loads[kept_count([load.state for load in loads]) - 1].rate
    assert CAPACITY / CLOSE / 1.1 <= highest <= CAPACITY / KEPT_UP * 1.05


def test_loads_beside_the_limit_get_requests_that_decide_them():
    _, asked = next_loads([RatedLoad(8, "keeps up", None, 100, 400), RatedLoad(12, "falls behind", 9.7, 150, 600)])
    assert {8: 400, 12: 600}.items() <= asked.items()
    assert min(asked.values()) == 400


@pytest.mark.parametrize(
    ("states", "next_step", "rates"),
    [
        ("k??b", "send more requests at 4, 8 req/s, and measure rates between 2 and 16 req/s", [2, 4, 8, 11, 16]),
        ("k???", "send more requests at 4, 8, 16 req/s, and raise the rate until the server falls behind", None),
        ("bbbb", "measure lower rates", [0.7, 1.3, 1.5, 2]),
        ("????", "send more requests", [2, 4, 8, 16]),
        ("kkkk", "raise the rate until the server falls behind", [16, 32, 64]),
        ("kk?m", "send more requests at 8, 16 req/s", [4, 8, 16]),
        ("?mbb", "send more requests at 2, 4 req/s", [2, 4]),
        ("mmbb", "send more requests at 2, 4 req/s, and measure lower rates", [1, 2, 4]),
        ("??bb", "send more requests at 2, 4 req/s", [2, 4, 8]),
        ("k?mb", "send more requests at 4, 8 req/s, and measure rates between 2 and 8 req/s", [2, 4, 5, 6.3, 8]),
    ],
)
def test_undecided_loads_get_more_requests_and_the_gap_gets_rates(
    states: str, next_step: str, rates: list[float] | None
):
    names: dict[str, State] = {"k": "keeps up", "?": "undecided", "b": "falls behind", "m": "undecided"}
    loads = [
        RatedLoad(2.0 ** (place + 1), names[state], 1.4, 8 * 2**place, more_requests(8 * 2**place), state == "m")
        for place, state in enumerate(states)
    ]
    step, asked = next_loads(loads)
    assert step == next_step
    assert [*asked] == (rates or [2, 4, 8, 16, 32])
    undecided = [load for load in loads if load.state == "undecided"]
    assert [asked[load.rate] for load in undecided] == [load.needed for load in undecided]
