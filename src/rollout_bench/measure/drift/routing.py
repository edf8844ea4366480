"""What the engine's routers choose while it scores: asked of its workers, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout_bench.contracts.inside import Routers
from rollout_bench.measure.engine.vllm import LoadedEngine

EXTENSION = "rollout_bench.measure.probes.scored_routing.ScoredRouting"


class RoutingNotes:
    """Knows which experts each token was given to, where it is a mixture that runs as Python.

    Nothing is timed, and what is noted changes nothing that is computed.

    Args:
        engine: loaded, with `EXTENSION`.

    Attributes:
        routers: how many there are, and what they choose; None for a dense model, and where it is not known.
        unknown: why it is not known; None for a dense model.
    """

    def __init__(self, engine: LoadedEngine) -> None:
        self._llm: Any = engine.llm
        self._config: Any = engine.llm.llm_engine.vllm_config
        self._layers = 0
        self.routers: Routers | None = None
        self.unknown: str | None = None

    def begin(self) -> None:
        """Have the workers note from now on."""
        if int(self._config.model_config.get_num_experts()) < 2:
            return
        if not self._config.model_config.enforce_eager:
            self.unknown = "compiled code and captured graphs tell nobody; engine_args: {enforce_eager: true} has none"
        elif int(self._config.parallel_config.pipeline_parallel_size) != 1:
            self.unknown = "its layers are those of several workers, as pipeline_parallel_size asks for"
        else:
            self._layers = int(self._llm.collective_rpc("rollout_bench_note_routing")[0])
            if not self._layers:
                self.unknown = "routers of this model tell nobody what they choose"

    def taken(self, places: Mapping[str, tuple[int, int]]) -> dict[str, list[str]]:
        """Return what `ScoredRouting` noted of these requests, by name; nothing where it is not known."""
        if not self._layers:
            return {}
        asked = {name: list(ends) for name, ends in places.items()}
        told = self._llm.collective_rpc("rollout_bench_routing", kwargs={"places": asked})[0]
        if "why" in told:
            self.unknown = told["why"]
            self.end()
            return {}
        self.routers = Routers(layers=self._layers, per_token=told["per_token"])
        experts: dict[str, list[str]] = told["experts"]
        return experts

    def end(self) -> None:
        """Have them note no more."""
        if self._layers:
            self._llm.collective_rpc("rollout_bench_end_routing")
        self._layers = 0
