"""Which experts the routers chose for each token of each request, noted inside vLLM's worker while it scores."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rollout_bench.measure.probes.census import WeightCensus
from rollout_bench.measure.probes.router_choices import Choices, RouterChoices


class ScoredRouting(WeightCensus):
    """What vLLM mixes into its worker in drift mode."""

    model_runner: Any  # the worker's own

    def rollout_bench_note_routing(self) -> int:
        """Note from now on what routers choose; return how many there are. Of a dense model nothing is noted."""
        self._rollout_bench_routing = RoutedRequests(self.model_runner, self.get_model())
        if self._rollout_bench_routing.layers:
            self._rollout_bench_routing.begin()
        return self._rollout_bench_routing.layers

    def rollout_bench_routing(self, places: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """As `RoutedRequests.taken`."""
        return self._rollout_bench_routing.taken(places)

    def rollout_bench_end_routing(self) -> None:
        """Note no more."""
        self._rollout_bench_routing.end()


class RoutedRequests:
    """Notes for each request which experts the routers chose in each of its places, from `begin` to `end`.

    A step computes tokens of several requests in one go. Which ones, and from which place on, the scheduler tells the
    worker; in which order their tokens stand, the worker's own batch does.

    Args:
        runner: vLLM's, which computes a step. Its method `execute_model` is replaced meanwhile; nothing that it
            computes changes.
        model: which it runs, as Python: what is compiled or replayed tells nobody what it chose.
    """

    def __init__(self, runner: Any, model: Any) -> None:
        self._runner = runner
        self._choices = RouterChoices(model)
        self._execute: Any = None
        self._prepare: Any = None
        self._order: list[str] | None = None
        self._found: dict[str, list[tuple[int, Choices]]] = {}
        self._why = ""

    @property
    def layers(self) -> int:
        """How many routers there are."""
        return self._choices.layers

    def begin(self) -> None:
        """Note from now on."""
        self._choices.begin()
        self._execute = self._runner.execute_model
        self._runner.execute_model = self._step
        self._prepare = getattr(self._runner, "prepare_inputs", None)
        if self._prepare is not None:  # the newer of vLLM's runners, which makes its batch anew in each step
            self._runner.prepare_inputs = self._prepared

    def end(self) -> None:
        """Note no more; twice is as once."""
        self._choices.end()
        if self._execute is not None:
            self._runner.execute_model, self._execute = self._execute, None
        if self._prepare is not None:
            self._runner.prepare_inputs, self._prepare = self._prepare, None

    def taken(self, places: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Return what was chosen in some places of requests, and forget all that was noted.

        Args:
            places: a request's name -> the first of its places that are asked for, and the one after the last. vLLM
                may have added `-` and a suffix to the name.

        Returns:
            per_token: experts that a router chooses; experts: name -> of each layer base64 of these places' experts
            [places, per_token] in ascending order, 16-bit numbers, the lowest byte first. Or why: what is not as
            expected.
        """
        found, self._found = self._found, {}
        why, self._why = self._why, ""
        if why:
            return {"why": why}
        by_name = {name if name in places else name.rpartition("-")[0]: parts for name, parts in found.items()}
        experts = {}
        per_token = 0
        for name, (first, end) in places.items():
            parts = by_name.get(name, [])
            if not parts:
                return {"why": "the engine computed a request that was not noted"}
            layers, _, per_token = parts[0][1].shape
            whole = np.full((layers, max(at + part.shape[1] for at, part in parts), per_token), -1, np.int32)
            for at, part in parts:  # what was computed again, after it had been preempted, is the last
                whole[:, at : at + part.shape[1]] = part
            asked = np.sort(whole[:, first:end], axis=-1)
            if asked.shape[1] != end - first or (asked < 0).any():
                return {"why": f"places {first} to {end - 1} of a request were not all noted"}
            experts[name] = [base64.b64encode(layer.tobytes()).decode() for layer in asked.astype("<u2")]
        return {"per_token": per_token, "experts": experts}

    def _prepared(self, *arguments: Any, **named: Any) -> Any:
        batch = self._prepare(*arguments, **named)
        self._order = list(batch.req_ids)
        return batch

    def _step(self, scheduled: Any, *more: Any, **named: Any) -> Any:
        self._choices.taken()  # of a run that computes nobody's tokens
        self._order = None
        answer = self._execute(scheduled, *more, **named)
        if scheduled.total_num_scheduled_tokens and not self._why:
            self._why = self._note(scheduled)
        return answer

    def _note(self, scheduled: Any) -> str:
        """Share out what the routers chose in a step; return why that can't be done, nothing where it can."""
        tokens: Mapping[str, int] = scheduled.num_scheduled_tokens
        cached = scheduled.scheduled_cached_reqs
        begins = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        begins |= {new.req_id: new.num_computed_tokens for new in scheduled.scheduled_new_reqs}
        order = list(self._runner.input_batch.req_ids) if self._order is None else self._order
        if not set(order) == set(tokens) <= set(begins):
            return "the engine computed other requests than it had scheduled"
        chosen, expected = self._choices.taken(), sum(tokens.values())
        if any(len(each) != expected for each in chosen):
            return f"a router told of {min(map(len, chosen))} of the {expected} tokens of a step"
        if len({each.shape for each in chosen}) != 1:
            return "its routers don't all choose as many experts"
        experts, at = np.stack(chosen), 0
        for name in order:
            part = experts[:, at : at + tokens[name]]
            self._found.setdefault(name, []).append((int(begins[name]), part))
            at += tokens[name]
        return ""
