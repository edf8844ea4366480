"""The plan of messages: engines whose messages can be read, and batches that fit them."""

from typing import Any

from rollout_bench.contracts.load import LoadSpec, longest
from rollout_bench.contracts.spec import Platform, Spec
from rollout_bench.core.errors import UserError
from rollout_bench.modes.messages import vllm_symbols
from rollout_bench.modes.messages.settings import MessagesSettings
from rollout_bench.plan.checks import check_batch, engine_args_in
from rollout_bench.plan.config import Config
from rollout_bench.plan.engine import InstalledEngine
from rollout_bench.plan.planning import Planning


class MessagesPlanning(Planning):
    """The plan of messages."""

    def separate_core(self, platform: Platform, load: LoadSpec | None) -> bool:
        """Return True: one process exchanges no messages."""
        return True

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> MessagesSettings:
        """Return the batches."""
        return config.of(MessagesSettings)

    def check(self, config: Config, engine: InstalledEngine) -> None:
        """Check that messages can be read, and that there are decode steps."""
        missing = vllm_symbols.moved(engine.folder) if engine.folder is not None else []
        if missing:
            raise UserError(
                f"config: modes: {engine.name} {engine.version}: {vllm_symbols.sentence(missing)}", vllm_symbols.REMEDY
            )
        for place, args in engine_args_in(config):
            if args.get("distributed_executor_backend") not in (None, "mp"):
                raise UserError(
                    f"config: {place}.distributed_executor_backend: {args.get('distributed_executor_backend')!r}: "
                    "only the messages of mp are measured",
                    "leave it out, or leave messages out of modes",
                )
            if (args.get("pipeline_parallel_size") or 1) != 1:
                raise UserError(
                    f"config: {place}.pipeline_parallel_size: messages between pipeline stages are not measured",
                    "set tensor_parallel_size instead, or leave messages out of modes",
                )
        for name in config.workloads:
            if longest(config.workload_settings[name].output_tokens) < 2:
                raise UserError(
                    f"config: modes: workload {name} generates one token, so it has no decode step to measure",
                    "ask for more output_tokens, or leave messages out of modes",
                )

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that the largest batch fits the engine."""
        most = spec.of(MessagesSettings).batches[-1]
        check_batch(spec, "messages.batches", most, "set messages.batches to smaller ones, such as [4, 32]")


PLANNING = MessagesPlanning()
