"""Mixtures in mode drift: experts go to the place that they were chosen for, and what differs is counted."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from synthetic_drifts import SEQUENCES, TOKENS, drift_record, drift_rows, drift_spec
from synthetic_records import make_plan

from rollout_bench.analysis.inside.drifts import experts_of
from rollout_bench.analysis.inside.overview import look
from rollout_bench.analysis.stats.divergence import Bounded, divergence, rerouted
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.contracts.inside import Routers, ScoredRow
from rollout_bench.contracts.side_files import read_scores
from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.store import read_drift, record_path, scores_path, write_scores
from rollout_bench.core.errors import UserError
from rollout_bench.measure.probes.scored_routing import RoutedRequests
from rollout_bench.report.summary import Summary, summarise

LAYERS, PER_TOKEN, EXPERTS = 3, 2, 8
BF16, W8A8 = drift_spec(), drift_spec("w8a8")

CHOSEN = np.random.default_rng(6).permuted(
    np.tile(np.arange(EXPERTS), (SEQUENCES, LAYERS, TOKENS, 1)), axis=-1
)[..., :PER_TOKEN]  # fmt: skip
"""What the reference's routers choose, of each sequence."""


def packed(experts: np.ndarray) -> list[str]:
    return [base64.b64encode(layer.tobytes()).decode() for layer in np.sort(experts).astype("<u2")]


class TestShares:
    def test_the_same_experts_in_any_order_are_the_same(self):
        experts, sets = rerouted(CHOSEN[0][..., ::-1], CHOSEN[0])
        assert experts.tolist() == sets.tolist() == [0.0] * TOKENS

    def test_one_of_two_experts_of_a_token_in_one_of_three_layers(self):
        other = CHOSEN[0].copy()
        other[1, 4, 0] = EXPERTS
        experts, sets = rerouted(other, CHOSEN[0])
        assert experts.tolist() == [1 / 6 if token == 4 else 0 for token in range(TOKENS)]
        assert sets.tolist() == [1 / 3 if token == 4 else 0 for token in range(TOKENS)]

    @given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.data())
    def test_each_replaced_expert_counts_once(self, layers: int, tokens: int, per_token: int, data: st.DataObject):
        reference = np.tile(np.arange(per_token), (layers, tokens, 1))
        replaced = np.array(
            data.draw(st.lists(st.booleans(), min_size=reference.size, max_size=reference.size))
        ).reshape(reference.shape)
        order = data.draw(st.permutations(range(per_token)))
        experts, sets = rerouted(np.where(replaced, reference + per_token, reference)[..., order], reference)
        assert experts.mean() == pytest.approx(replaced.mean())
        assert sets.mean() == pytest.approx(replaced.any(axis=-1).mean())

    def test_a_share_has_an_interval_over_sequences(self):
        d = [np.zeros(4)] * 10
        other = [(np.full(4, float(n < 5)), np.ones(4)) for n in range(10)]
        found = divergence(d, 0.95, routed=other)
        assert found.other_experts is not None
        assert found.other_experts.low < found.other_experts.value == 0.5 < found.other_experts.high
        assert found.other_sets == Bounded(1, 1, 1)
        assert divergence(d, 0.95).other_experts is None


class Router:
    """As vLLM's: tells what it chose."""

    def __init__(self) -> None:
        self.capture_fn: Any = None

    def set_capture_fn(self, call: Any) -> None:
        self.capture_fn = call


class Runner:
    """Computes steps as vLLM's does: the experts of a token are told by request and place.

    Args:
        order: of the requests in its batch.
        makes_batches: whether it makes a batch in each step, as the newer of vLLM's runners.
    """

    def __init__(self, order: Sequence[str], makes_batches: bool = False) -> None:
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList()
        for _ in range(LAYERS):
            block = torch.nn.Module()
            block.router = Router()
            self.model.layers.append(block)
        self.input_batch = SimpleNamespace(req_ids=[] if makes_batches else list(order))
        self.lost = 0
        if makes_batches:
            self.prepare_inputs = lambda: SimpleNamespace(req_ids=list(order))

    def execute_model(self, scheduled: Any) -> str:
        begins = scheduled.begins
        made = getattr(self, "prepare_inputs", None)
        order = self.input_batch.req_ids if made is None else made().req_ids
        rows = [(name, begins[name] + n) for name in order for n in range(scheduled.num_scheduled_tokens[name])]
        for layer, block in enumerate(self.model.layers):
            call = block.router.capture_fn
            if call is not None:
                call(torch.tensor(np.array([chosen(name, place)[layer] for name, place in rows[self.lost :]])))
        return "computed"


def chosen(name: str, place: int) -> np.ndarray:
    """Return what routers choose in a place of a request, as it begins with `scored-N` [layers, experts]."""
    return CHOSEN[int(name.split("-")[1]), :, place]


def step(new: Mapping[str, int], cached: Mapping[str, tuple[int, int]] | None = None) -> Any:
    """Return what the scheduler says of a step: tokens of new requests; place and tokens of others."""
    cached = cached or {}
    tokens = dict(new) | {name: count for name, (_, count) in cached.items()}
    return SimpleNamespace(
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
        scheduled_new_reqs=[SimpleNamespace(req_id=name, num_computed_tokens=0) for name in new],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=list(cached), num_computed_tokens=[begin for begin, _ in cached.values()]
        ),
        begins=dict.fromkeys(new, 0) | {name: begin for name, (begin, _) in cached.items()},
    )


class TestNotes:
    @pytest.mark.parametrize("makes_batches", [False, True])
    def test_experts_are_those_of_their_request_and_place_however_steps_cut_and_order_them(self, makes_batches: bool):
        runner = Runner(["scored-1-ab", "scored-0-cd"], makes_batches)
        before = runner.execute_model
        notes = RoutedRequests(runner, runner.model)
        assert notes.layers == LAYERS
        notes.begin()
        assert runner.execute_model(step({"scored-0-cd": 5, "scored-1-ab": 3})) == "computed"
        runner.execute_model(step({}, {"scored-0-cd": (5, 7), "scored-1-ab": (3, 9)}))
        runner.execute_model(step({}, {"scored-0-cd": (0, 12), "scored-1-ab": (11, 1)}))  # computed again
        found = notes.taken({"scored-0": (2, 11), "scored-1": (0, 12)})
        assert found["per_token"] == PER_TOKEN
        assert found["experts"] == {"scored-0": packed(CHOSEN[0][:, 2:11]), "scored-1": packed(CHOSEN[1])}
        assert "why" in notes.taken({"scored-0": (2, 11)})  # forgotten
        notes.end()
        assert runner.execute_model == before
        assert all(block.router.capture_fn is None for block in runner.model.layers)

    def test_what_a_router_does_not_tell_is_not_guessed(self):
        runner = Runner(["scored-0"])
        runner.lost = 1
        notes = RoutedRequests(runner, runner.model)
        notes.begin()
        runner.execute_model(step({"scored-0": 5}))
        assert notes.taken({"scored-0": (2, 4)}) == {"why": "a router told of 4 of the 5 tokens of a step"}
        runner.lost = 0
        runner.execute_model(step({"scored-0": 5}))
        assert "places 2 to 6" in notes.taken({"scored-0": (2, 7)})["why"]


def save_routed(results: Path, spec: Spec, launch: int, noise: float, swaps: Mapping[int, int], **more: Any) -> Path:
    """Write a launch in which, scored with a batch, the first expert of so many tokens is another in one layer."""
    rows = []
    for row in drift_rows(spec, launch, noise):
        experts = CHOSEN[row.sequence].copy()
        if row.batch is not None:
            experts[0, : swaps.get(row.batch, 0), 0] = EXPERTS
            row = row.model_copy(update={"experts": packed(experts)})
        rows.append(row)
    path = record_path(results, spec.mode, spec.experiment(), launch)
    path.parent.mkdir(parents=True, exist_ok=True)
    routers = {"routers": Routers(layers=LAYERS, per_token=PER_TOKEN)}
    write_scores(path, drift_record(spec, launch, rows).model_copy(update=routers | more), rows)
    return path


def summary(results: Path) -> Summary:
    collection = collect(results, make_plan([BF16, W8A8], launches=2))
    return summarise(collection, looked=look(results, collection, []), results=results)


def test_the_summary_has_the_share_of_other_experts_beside_the_references_own(tmp_path: Path):
    save_routed(tmp_path, BF16, 0, 0.002, {8: 1})
    save_routed(tmp_path, W8A8, 0, 0.02, {1: 6, 8: 3})
    save_routed(tmp_path, W8A8, 1, 0.02, {1: 6, 8: 3})
    found = summary(tmp_path)
    assert "| other experts % | other sets % |" in found.markdown
    lines = {
        (line["quant"], line["batch"]): (line["other_experts_share"], line["other_sets_share"])
        for line in csv.DictReader(io.StringIO(found.tables["drift.csv"]))
    }
    assert lines["bf16", ""] == ("", "")  # while generating
    shares = {name: tuple(map(float, values)) for name, values in lines.items() if values[0]}
    assert shares == {
        ("bf16", "8"): pytest.approx((1 / TOKENS / 6, 1 / TOKENS / 3)),
        ("w8a8", "1"): pytest.approx((6 / TOKENS / 6, 6 / TOKENS / 3)),
        ("w8a8", "8"): pytest.approx((3 / TOKENS / 6, 3 / TOKENS / 3)),
    }
    text = found.markdown.replace("\\", "")
    assert "Its routers chose 8.33 [8.33, 8.33] % other experts, and those of bf16 against itself 1.39" in text
    assert "other sets %:" in found.markdown  # its definition


def test_a_dense_model_has_no_such_columns_and_no_such_sentence(tmp_path: Path):
    for spec in (BF16, W8A8):
        rows = drift_rows(spec, 0, 0.002)
        path = record_path(tmp_path, spec.mode, spec.experiment(), 0)
        path.parent.mkdir(parents=True)
        write_scores(path, drift_record(spec, 0, rows), rows)
    found = summary(tmp_path)
    assert "other experts" not in found.markdown
    assert "Its routers" not in found.markdown
    assert {line["other_experts_share"] for line in csv.DictReader(io.StringIO(found.tables["drift.csv"]))} == {""}


def test_where_it_is_not_known_the_summary_says_why(tmp_path: Path):
    save_routed(tmp_path, BF16, 0, 0.002, {})
    rows = drift_rows(W8A8, 0, 0.002)
    path = record_path(tmp_path, W8A8.mode, W8A8.experiment(), 0)
    path.parent.mkdir(parents=True)
    write_scores(path, drift_record(W8A8, 0, rows).model_copy(update={"routing_unknown": "graphs tell nobody"}), rows)
    text = summary(tmp_path).markdown
    assert "w8a8" in text
    assert "it is not known which experts routers chose: graphs tell nobody" in text


def test_rows_hold_what_they_were_given(tmp_path: Path):
    path = save_routed(tmp_path, BF16, 0, 0.002, {})
    rows = read_scores(scores_path(path), read_drift(path))
    (row,) = (row for row in rows if (row.batch, row.sequence) == (1, 5))
    found = experts_of(row)
    assert found is not None
    assert found.tolist() == np.sort(CHOSEN[5]).tolist()
    assert [experts_of(row) for row in rows if row.batch is None] == [None] * SEQUENCES


@pytest.mark.parametrize("wrong", ["few layers", "few tokens", "padding"])
def test_rows_with_other_experts_than_routers_are_refused(tmp_path: Path, wrong: str):
    path = save_routed(tmp_path, BF16, 0, 0.002, {})
    record = read_drift(path)
    rows = read_scores(scores_path(path), record)
    number = next(number for number, row in enumerate(rows) if row.experts is not None)
    experts = list(rows[number].experts or ())
    if wrong == "few layers":
        experts.pop()
    elif wrong == "few tokens":
        experts[0] = experts[0][:-4]
    else:
        experts[0] = experts[0][:-1] + "="
    rows[number] = ScoredRow.model_validate(rows[number].model_dump() | {"experts": experts})
    write_scores(path, record, rows)
    with pytest.raises(UserError, match=f"line {number + 1}: has not as many experts as its routers chose"):
        read_scores(scores_path(path), read_drift(path))
