"""Measures of requests to a server, and of sweeps over loads: by hand, and by what must hold of any."""

import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples.online import Server, make_online, make_online_spec
from synthetic_records import make_plan, save

from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import ResultSet
from rollout_bench.analysis.timed.launches import NO_LIMITS
from rollout_bench.analysis.timed.rows import SET_BY_LOAD, Row, rows_of
from rollout_bench.analysis.timed.service import Requests, requests_of, service_of
from rollout_bench.contracts.load import KEPT_UP, LoadPoint
from rollout_bench.contracts.record import Record, SequenceRow
from rollout_bench.contracts.spec import Spec
from rollout_bench.core.saturation import Arrivals, kept_up
from rollout_bench.plan.serving import Slo

SPEC = make_online_spec()


def row(
    sent_s: float, first_s: float | None, gaps_us: list[int] | None, tokens: int | None = None, **changes: Any
) -> SequenceRow:
    """Return a request of iteration 1, which counts; without `tokens` one for each piece."""
    last_s = None if first_s is None else first_s + sum(gaps_us or []) / 1e6
    content = {
        "iteration": 1, "prompt": 0, "sample": 0, "prompt_tokens": 8,
        "output_tokens": 1 + len(gaps_us or []) if tokens is None else tokens, "finish_reason": "length",
        "sent_s": sent_s, "first_token_s": first_s, "last_token_s": last_s, "gaps_us": gaps_us, "status": 200,
    }  # fmt: skip
    return SequenceRow.model_validate(content | changes)


def failed(sent_s: float) -> SequenceRow:
    return row(sent_s, None, None, 0, error="HTTP 500", status=500, finish_reason=None)


def served(
    rows: list[SequenceRow], slo: Slo = NO_LIMITS, elapsed_s: float = 2.0
) -> tuple[Requests, Mapping[str, float]]:
    requests = requests_of(rows)
    return requests, service_of(requests, [i for i in launch(elapsed_s, rows).iterations if not i.warmup], slo).values


def launch(elapsed_s: float, rows: list[SequenceRow]) -> Record:
    record, _ = make_online(SPEC, iterations=1)
    passes = [record.iterations[0], record.iterations[1].model_copy(update={"elapsed_s": elapsed_s})]
    return record.model_copy(update={"iterations": passes})


EXAMPLE = [
    row(0.0, 0.1, [20_000, 30_000, 50_000]),  # 4 tokens in 0.2 s
    row(0.5, 0.8, [100_000]),  # 2 tokens in 0.4 s
    row(1.0, 1.6, []),  # 1 token in 0.6 s
    failed(1.1),
]


def test_the_measures_of_four_requests_by_hand() -> None:
    requests, service = served(EXAMPLE)
    known = {
        "ttft_s": [0.1, 0.3, 0.6],
        "e2el_s": [0.2, 0.4, 0.6],
        "tpot_s": [0.1 / 3, 0.1],
        "itl_s": [0.02, 0.03, 0.05, 0.1],
        "ntpot_s": [0.025 + 0.1 / 3, 0.15 + 0.1, 0.6],
    }
    assert {name: requests.known(name).tolist() for name in known} == {n: pytest.approx(v) for n, v in known.items()}
    values = {"ttft_s": 1.0 / 3, "itl_s": 0.05, "failed_share": 0.25, "completed_requests_per_s": 3 / 2.0}
    values |= {"in_flight": 1.2 / 2.0, "in_flight_most": 1, "tokens_per_piece": 1}
    assert {name: service[name] for name in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        ({"ttft_ms": 300.001}, 2),
        ({"tpot_ms": 50}, 2),  # the request of one token has no TPOT, and keeps its limit, as in vLLM
        ({"e2el_ms": 199}, 0),
        ({"ttft_ms": 700, "tpot_ms": 200, "e2el_ms": 700}, 3),
        ({"ttft_ms": 150, "tpot_ms": 20}, 0),
    ],
)
def test_goodput_counts_what_met_every_limit_and_never_what_failed(limits: dict[str, float], good: int) -> None:
    assert served(EXAMPLE, Slo(**limits))[1]["goodput_requests_per_s"] == pytest.approx(good / 2.0)


def test_a_time_per_token_has_no_tools_in_it() -> None:
    turns = [{"sent_s": at, "back_s": at + 1, "prompt_tokens": 8, "output_tokens": 2} for at in (0.0, 9.0)]
    one, both = (row(0.0, 0.5, None, 4, last_token_s=10.0, turns=turns[:count]) for count in (1, 2))
    assert requests_of([one, both]).known("tpot_s").size == requests_of([one]).known("tpot_s").size == 1


@pytest.mark.parametrize(("conversations", "offered"), [(None, 2.0), ("rotating", 4.0)])
def test_what_a_load_with_a_rate_offers_are_conversations_unless_they_rotate(
    conversations: Any, offered: float
) -> None:
    due = [(number / 4, 1 + number % 2) for number in range(8)]
    rows = [row(at, at + 0.1, [1000], due_s=at, turn=turn, cached_prompt_tokens=2 * turn) for at, turn in due]
    point = LoadPoint(request_rate=2.0, conversations=conversations)
    iterations = [i.model_copy(update={"point": point}) for i in launch(2.0, rows).iterations if not i.warmup]
    values = service_of(requests_of(rows), iterations, NO_LIMITS).values
    assert values["offered_requests_per_s"] == pytest.approx(offered)
    assert values["prompt_cached_share"] == pytest.approx((2 + 4) / (2 * 8))


def test_pieces_of_several_tokens_have_one_gap_each() -> None:
    requests, service = served([row(0.0, 0.1, [60_000], 6, gap_tokens=[3, 3])])
    assert (requests.known("itl_s"), requests.known("tpot_s")) == (pytest.approx([0.06]), pytest.approx([0.06 / 5]))
    assert service["tokens_per_piece"] == pytest.approx(3)


@pytest.mark.parametrize(
    ("rows", "limits", "missing", "goodput"),
    [
        ([row(0.0, None, None, 5, last_token_s=0.7)], {"e2el_ms": 800}, {"ttft_s", "tpot_s", "itl_s", "ntpot_s"}, 0.5),
        ([row(0.0, None, None, 5, last_token_s=0.7)], {"ttft_ms": 800}, {"ttft_s", "tpot_s", "itl_s"}, None),
        ([failed(0.0), failed(0.1)], {"e2el_ms": 1e6}, {"e2el_s", "in_flight", "ttft_s"}, 0),
    ],
    ids=["without streaming", "its limits are unknown", "every request fails"],
)
def test_latencies_that_are_not_known_are_left_out(
    rows: list[SequenceRow], limits: dict[str, float], missing: set[str], goodput: float | None
) -> None:
    requests, service = served(rows, Slo(**limits))
    assert service.keys().isdisjoint(missing)
    assert [requests.known(name).size for name in missing - {"in_flight"}] == [0] * len(missing - {"in_flight"})
    assert (service.get("goodput_requests_per_s"), service["failed_share"]) == (goodput, float(goodput == 0))


ANSWERS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(1e-4, 50), st.lists(st.integers(1, 10**7), max_size=40)), min_size=1
)


@given(ANSWERS)
def test_the_measures_of_a_request_add_up(answers: list[tuple[float, float, list[int]]]) -> None:
    requests, service = served([row(sent, sent + ttft, gaps) for sent, ttft, gaps in answers])
    tokens = requests.output_tokens
    several = tokens > 1
    again = requests.ttft_s + np.where(several, requests.tpot_s, 0) * (tokens - 1)
    assert again == pytest.approx(requests.e2el_s)
    # NTPOT as defined here is E2EL / n, and a share 1 / n of TPOT more.
    differing = requests.ntpot_s - requests.e2el_s / tokens
    assert differing[several] == pytest.approx(requests.tpot_s[several] / tokens[several], abs=1e-9)
    assert differing[~several] == pytest.approx(0, abs=1e-9)
    sums = np.bincount(requests.gap_of, weights=requests.itl_s, minlength=tokens.size)
    assert sums == pytest.approx(requests.e2el_s - requests.ttft_s, abs=1e-6)
    ends = [requests.gap_end_s[requests.gap_of == i][-1] for i in np.flatnonzero(several)]
    assert ends == pytest.approx(list(requests.last_s[several]))
    assert service["in_flight"] == pytest.approx(float(requests.e2el_s.sum()) / 2.0)
    assert 1 <= service["in_flight_most"] <= len(answers)


DUE = np.arange(400) / 4
UNEVEN = np.cumsum(np.random.default_rng(0).exponential(0.25, 400))


@pytest.mark.parametrize(
    ("due", "ends", "share"),
    [
        (DUE, DUE + 30, 1),
        (UNEVEN, UNEVEN + 20, 1),
        (DUE, np.arange(400) / 3 + 1, 0.75),  # first come, first served
        (DUE, (DUE + 1)[::2], 0.5),  # answers that never come
        (DUE, np.empty(0), 0),
    ],
    ids=["late", "uneven", "falling behind", "half of the answers", "no answer"],
)
def test_a_late_server_keeps_up_unless_it_falls_behind(due: np.ndarray, ends: np.ndarray, share: float) -> None:
    pass_ = Arrivals(
        due, due[:: max(1, due.size // max(1, ends.size))][: ends.size], ends, float(ends.max(initial=due[-1]))
    )
    found = kept_up([pass_], KEPT_UP)
    assert found is not None
    assert (found.offered_per_s, found.share) == pytest.approx((400 / due[-1], share), rel=0.05)
    assert found.is_sure


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_latencies_that_differ_are_not_taken_for_falling_behind(spread: float) -> None:
    generator = np.random.default_rng(3)

    def arrivals() -> Arrivals:
        due = np.cumsum(generator.exponential(0.1, 200))
        e2el = 0.2 * (due[-1] - due[0]) * np.exp(generator.normal(-(spread**2) / 2, spread, 200))
        return Arrivals(due, due, due + e2el, float((due + e2el).max()))

    found = [kept_up([arrivals() for _ in range(3)], KEPT_UP) for _ in range(200)]
    assert sum(each is not None and each.share < KEPT_UP and each.is_sure for each in found) <= 10


def queued(random: np.random.Generator, rate: float, requests: int) -> Arrivals:
    """Return a pass of a server with 8 places, each of which takes 1.31 s: it answers 6.1 requests per second."""
    due, free, ends = np.cumsum(random.exponential(1 / rate, requests)), [0.0] * 8, []
    for each in due:
        ends.append(max(each, heapq.heappop(free)) + 1.31 * (1 + 0.05 * random.standard_normal()))
        heapq.heappush(free, ends[-1])
    return Arrivals(due, due, np.array(ends), max(ends))


@pytest.mark.parametrize(("rate", "least", "most"), [(5.9, 0, 3), (8.3, 70, 100)])
def test_a_minute_shows_that_a_server_falls_behind_and_rarely_that_a_busy_one_does(
    rate: float, least: int, most: int
) -> None:
    random = np.random.default_rng(4)
    found = [kept_up([queued(random, rate, int(60 * rate))], KEPT_UP) for _ in range(100)]
    assert least <= sum(each is not None and each.is_sure and each.share < KEPT_UP for each in found) <= most


@pytest.mark.parametrize(("requests", "passes"), [(64, 1), (64, 8), (128, 1), (128, 3)])
def test_a_server_that_falls_behind_is_not_said_to_keep_up(requests: int, passes: int) -> None:
    random = np.random.default_rng(2)
    for rate, kept, behind in ((2.0, 0.9, 0.0), (8.0, 0.0, 0.1), (12.0, 0.0, 0.1), (60.0, 0.0, 0.7)):
        found = [kept_up([queued(random, rate, requests) for _ in range(passes)], KEPT_UP) for _ in range(50)]
        sure = [each.share for each in found if each is not None and each.is_sure]
        assert sum(share >= KEPT_UP for share in sure) >= kept * 50
        assert sum(share < KEPT_UP for share in sure) >= behind * 50
        if rate > 6.1:
            assert sum(share >= KEPT_UP for share in sure) <= 3
        else:
            assert sum(share < KEPT_UP for share in sure) <= 1


RATES = [LoadPoint(request_rate=rate) for rate in (4.0, 16.0, 40.0)]
BF16, W8A8 = make_online_spec(points=RATES), make_online_spec(quant="w8a8", points=RATES)
FAST = Server(step_s=0.008)


def swept(results: Path, launches: int = 3, specs: Sequence[Spec] = (BF16, W8A8)) -> ResultSet:
    for spec in specs:
        server = FAST if spec.quant.name == "w8a8" else Server()
        save(results, *(make_online(spec, launch, server) for launch in range(launches)))
    return collect(results, make_plan(specs, launches))


def by_load(rows: Sequence[Row], quant: str = "w8a8") -> dict[str, Row]:
    return {row.experiment.workload: row for row in rows if row.experiment.quant == quant}


def test_each_load_is_a_row_compared_with_the_same_load(tmp_path: Path) -> None:
    rows = rows_of(swept(tmp_path))
    assert [(row.experiment.workload, row.experiment.quant) for row in rows] == [
        (f"small @ {rate} req/s", quant) for rate in (4, 16, 40) for quant in ("bf16", "w8a8")
    ]
    assert all(len(row.launches) == 3 for row in rows)
    # 32 requests of 32 tokens at 4/s take 8 s, and their own time
    assert by_load(rows)["small @ 4 req/s"].launches[0].output_tokens_per_s == pytest.approx(128, rel=0.1)
    assert len(by_load(rows)["small @ 4 req/s"].launches[0].iteration_output_tokens_per_s) == 3
    for name, row in by_load(rows).items():
        assert (row.against.other.workload, row.comparisons["tpot_s"].speedup) == (name, pytest.approx(1.25, rel=0.1))
    of_load = {name: row.comparisons["output_tokens_per_s"] for name, row in by_load(rows).items()}
    # a throughput has a verdict only where the server fell behind
    assert (of_load["small @ 4 req/s"].reason, of_load["small @ 40 req/s"].verdict) == (SET_BY_LOAD, "faster")


def test_other_arrivals_have_no_baseline_but_additional_points_change_nothing(tmp_path: Path) -> None:
    more = make_online_spec(quant="w8a8", points=[*RATES, LoadPoint(request_rate=60.0)])
    bursts = make_online_spec(quant="w8a16", points=RATES, burstiness=0.5)
    swept(tmp_path, 2, [BF16, more, bursts])
    rows = rows_of(collect(tmp_path, make_plan([BF16, more, bursts], 2)))
    assert by_load(rows)["small @ 40 req/s"].against.other is not None
    assert "not selected" in by_load(rows)["small @ 60 req/s"].comparison.reason
    assert "other settings of the workload" in by_load(rows, "w8a16")["small @ 4 req/s"].comparison.reason
