"""The plan of drift: the reference that samples the tokens, and room for them."""

from collections.abc import Collection
from typing import Any

from rollout_bench.contracts.load import longest
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Platform, Spec
from rollout_bench.core.errors import UserError
from rollout_bench.modes.drift.settings import DriftSettings, DriftSpec
from rollout_bench.plan.checks import check_batch
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.load_checks import facts_of
from rollout_bench.plan.planning import Planning


class DriftPlanning(Planning):
    """The plan of drift."""

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> DriftSpec:
        """Return the scored tokens, whose reference is found when all experiments are known."""
        return config.of(DriftSettings).to(DriftSpec, reference=None)

    def further_tokens(self, config: Config, workload: str) -> int:
        """Return the tokens that are sampled beyond the workload's, and the one that scoring generates."""
        return max(0, config.of(DriftSettings).tokens - longest(config.workload_settings[workload].output_tokens)) + 1

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that the reference is measured, and that there are enough sequences."""
        drift = config.of(DriftSettings)
        if drift.reference not in config.quants:
            raise UserError(
                f"config: drift.reference: {drift.reference} samples the tokens, but is not in quants",
                f"add it to quants, or name another: drift: {{reference: {config.quants[0]}}}",
            )
        if drift.batch_sizes[-1] > drift.prompts:
            raise UserError(
                f"config: drift.batch_sizes: {drift.batch_sizes[-1]} sequences are more than drift.prompts "
                f"{drift.prompts}",
                "raise drift.prompts, or leave that batch out",
            )

    def check_all(self, configs: Collection[Config]) -> None:
        """Check that all have the same adapter, apart or merged, or none."""
        loras = [config.lora for config in configs]
        if len({None if lora is None else (lora.rank, lora.scale, str(lora.targets)) for lora in loras}) > 1:
            raise UserError(
                "config: lora: differs among settings, so drift would compare different models",
                "write lora once, at the top, and in setting_settings only lora.how, or leave drift out of modes",
            )

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that sequences fit the model, the largest batch the engine, and that all have the same weights."""
        tokens, model = config.of(DriftSettings).tokens, spec.model.name
        limit = spec.engine.args["max_model_len"]
        positions = (spec.model.synthetic or {}).get("max_position_embeddings")
        check_batch(spec, "drift.batch_sizes", spec.of(DriftSpec).batch_sizes[-1], "leave that batch out")
        load = config.workload_settings[spec.workload.name]
        facts, prompts = facts_of(load), config.of(DriftSettings).prompts
        if facts is not None and load.dataset and load.dataset.format != "trace" and facts.prompts < prompts:
            raise UserError(
                f"config: drift.prompts: {prompts} are more than the {facts.prompts} in workload "
                f"{spec.workload.name}'s data set, so some would count more than once",
                f"set drift.prompts to {facts.prompts} or fewer, or name a longer file",
            )
        if isinstance(limit, int) and positions is not None and limit > positions:
            raise UserError(
                f"config: drift.tokens: {tokens} tokens after each prompt need max_model_len {limit}, but {model} "
                f"has only {positions} positions",
                f"lower drift.tokens, or set max_model_len to {positions} at most",
            )
        if spec.load_format in NO_WEIGHTS_NEEDED:
            raise UserError(
                f"config: load_format: {spec.load_format} weights are drawn anew for each layout, so drift would "
                "compare different models",
                f"leave load_format out, or leave {spec.mode} out of modes",
            )

    def reference(self, config: Config) -> str:
        """Return the quantization that samples the tokens."""
        return config.of(DriftSettings).reference


PLANNING = DriftPlanning()
