"""Which loads a launch measures: those that are written down, or a search for the rate that a server can bear."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from launching import ONLINE

from rollout_bench.contracts.load import LoadSpec
from rollout_bench.contracts.record import ClientUse
from rollout_bench.measure.server.dispatch import MOST_DOUBLINGS, Points
from rollout_bench.measure.server.stream import LoadPass, RequestOutcome

REQUESTS = 200


def load(**changes: object) -> LoadSpec:
    return LoadSpec.model_validate_json(json.dumps({**ONLINE, **changes}))


def served(rate: float, capacity: float, latency_s: float = 0.02) -> LoadPass:
    """Make a pass at `rate` of a server that lets `capacity` requests per second through and answers each later."""
    outcomes, free = [], 0.0
    for number in range(REQUESTS):
        due = number / rate
        free = max(free, due) + 1 / capacity
        end = free + latency_s
        outcomes.append(RequestOutcome(due_s=due, sent_s=due, pieces_s=[end], ended_s=end))
    return LoadPass(0.0, max(outcome.pieces_s[-1] for outcome in outcomes), outcomes, ClientUse(cpu_share=0.1))


def search(capacity: float, begin: float = 1.0) -> list[float]:
    """Return the rates that a search tries, in order."""
    points = Points(load(points=[{"concurrency": None, "request_rate": begin}], saturation="auto"))
    rates = []
    for point in points:
        rates.append(float(point.request_rate))
        points.measured([served(rates[-1], capacity)] * 3)
    return rates


def test_points_that_are_written_down_are_measured_in_their_order():
    written = [{"concurrency": 1, "request_rate": "inf"}, {"concurrency": 4, "request_rate": "inf"}]
    assert [point.concurrency for point in Points(load(points=written))] == [1, 4]


def test_a_search_doubles_until_the_server_falls_behind_and_then_looks_between():
    assert search(capacity=11.0) == [1.0, 2.0, 4.0, 8.0, 16.0, 11.31]


@given(capacity=st.floats(1.5, 1000), begin=st.sampled_from([0.5, 1.0]))
def test_a_search_ends_around_what_the_server_can_bear(capacity: float, begin: float):
    *_, last_good, too_much, _between = search(capacity, begin)
    assert last_good < 1.3 * capacity
    assert too_much >= 0.95 * capacity


def test_a_search_ends_where_no_rate_is_too_much():
    assert len(search(capacity=1e12)) <= MOST_DOUBLINGS + 1


def test_a_server_that_answers_nothing_is_below_the_first_rate():
    points = Points(load(points=[{"concurrency": None, "request_rate": 4.0}], saturation="auto"))
    rates = []
    for point in points:
        rates.append(point.request_rate)
        failed = [RequestOutcome(due_s=number / 4, sent_s=number / 4, error="500") for number in range(20)]
        points.measured([LoadPass(0.0, 5.0, failed, ClientUse(cpu_share=0.1))])
    assert rates == [4.0, 2.828]
