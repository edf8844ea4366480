"""The plan of cycles: sleep levels, methods of the weight sync, and weights that can be updated."""

from collections.abc import Collection
from typing import Any

from rollout_bench.contracts.load import longest
from rollout_bench.contracts.spec import NO_WEIGHTS_NEEDED, Platform, Spec, tensor_parallel_size
from rollout_bench.contracts.weights import SleepLevel
from rollout_bench.core.errors import UserError
from rollout_bench.core.numbers import first_few
from rollout_bench.modes.cycle.settings import CycleSettings, CycleSpec
from rollout_bench.plan.config import Config
from rollout_bench.plan.planning import Planning, Reason
from rollout_bench.plan.updates import check_updated

USUAL_SLEEP: dict[Platform, SleepLevel] = {"cuda": "2", "ascend": "1"}
"""Sleep level of verl's engines; on other platforms vLLM refuses sleep."""


SHORTEST = 2
"""Least number of output tokens of a sequence that has a middle."""


class CyclePlanning(Planning):
    """The plan of cycles."""

    def iterations(self, config: Config) -> int:
        """Return the number of cycles."""
        return config.of(CycleSettings).repeats

    def mode_spec(self, config: Config, args: dict[str, Any], platform: Platform) -> CycleSpec:
        """Return the sleep level, the platform's usual one if the config names none, and the method."""
        cycle = config.of(CycleSettings)
        usual = USUAL_SLEEP.get(platform, "none")
        if config.lora is not None and usual == "2":
            usual = "1"  # an adapter's update brings no other weights back
        if cycle.in_flight:
            usual = "none"  # an engine that sleeps has no requests under way
        return cycle.to(CycleSpec, sleep=cycle.sleep or usual)

    def check_spec(self, config: Config, spec: Spec) -> None:
        """Check that the engine's weights can be updated, and the update be verified."""
        check_updated(spec, spec.of(CycleSpec).sleep, proves_drafts=True)
        if spec.engine.args.get("pipeline_parallel_size", 1) != 1:
            raise UserError(
                "config: pipeline_parallel_size: an update brings the weights of all stages of a pipeline, and it was "
                "never measured that each takes its own",
                f"set tensor_parallel_size instead, or leave {spec.mode} out of modes",
            )
        if spec.of(CycleSpec).update == "ipc":
            check_ipc(spec)
        if spec.of(CycleSpec).in_flight:
            check_in_flight(spec)
        if spec.lora is not None:
            if spec.of(CycleSpec).sleep == "2":
                raise UserError(
                    "config: cycle.sleep: 2: frees the model's weights, which the update of an adapter does not bring",
                    "set cycle.sleep: 1, as verl does with an adapter",
                )
            return
        load_format = spec.engine.args.get("load_format")
        if load_format in NO_WEIGHTS_NEEDED:
            raise UserError(
                f"config: load_format: {load_format} weights come from no checkpoint, so the result of "
                f"cycle.update: {spec.of(CycleSpec).update} cannot be verified",
                f"leave load_format out, so that the weights are built and read; or leave {spec.mode} out of modes",
            )

    def lines(self, specs: Collection[Spec]) -> list[str]:
        """Return a line on engines that stay awake for updates in flight, while those beside them sleep."""
        awake = [spec.title for spec in specs if spec.of(CycleSpec).in_flight]
        asleep = [spec.title for spec in specs if spec.of(CycleSpec).sleep != "none"]
        if not (awake and asleep):
            return []
        return [
            f"cycle: updates in flight keep engines awake ({first_few(awake)}), and others sleep ({first_few(asleep)}):"
            " their ratio has the cost of sleep, too -> cycle: {sleep: none} compares only the updates"
        ]

    def skip_reason(self, spec: Spec, path: str, config: Config) -> Reason | None:
        """Return why the weights for the update are unknown; synthetic ones can be made in every layout."""
        if spec.model.synthetic is not None or spec.lora is not None:
            return None
        model, quant = spec.model.name, spec.quant.name
        if (update := spec.of(CycleSpec).update) != "in_process":
            reason = f"{model} has no second checkpoint that cycle.update: {update} could take other weights from"
            return reason, "set cycle.update: in_process"
        if spec.quant.weights_format != "bf16":
            return (
                f"{model} has its {quant} weights in a checkpoint of their own, and bf16 ones for cycle.update: "
                "in_process are not known",
                f"leave {quant} out of quants, or cycle out of modes",
            )
        return None


def check_in_flight(spec: Spec) -> None:
    """Raise `UserError` if no request can be under way at a weight sync, or those that are cannot be counted."""
    if spec.of(CycleSpec).sleep != "none":
        raise UserError(
            f"config: cycle.in_flight: {spec.of(CycleSpec).in_flight}: requests are under way, and an engine that "
            "sleeps has none",
            "set cycle.sleep: none",
        )
    if spec.lora is not None:
        raise UserError(
            "config: cycle.in_flight: requests under way name the adapter that they began with, so they get no new one",
            "leave lora or cycle.in_flight out",
        )
    if longest(spec.workload.output_tokens) < SHORTEST:
        raise UserError(
            "config: cycle.in_flight: the update comes after half of the output tokens, and a sequence of workload "
            f"{spec.workload.name} has only one",
            f"set output_tokens to {SHORTEST} or more, or leave the workload or cycle.in_flight out",
        )
    if not spec.workload.ignore_eos:
        raise UserError(
            "config: cycle.in_flight: the update comes after half of the output tokens, and with ignore_eos: false "
            "nobody knows their number",
            "leave ignore_eos out, and set output_tokens to the lengths of your answers",
        )
    if spec.workload.requests == "per_prompt":
        raise UserError(
            "config: cycle.in_flight: counts sequences under way, and requests: per_prompt has several in a request",
            "set requests: per_sequence for this workload, as verl sends them",
        )


def check_ipc(spec: Spec) -> None:
    """Raise `UserError` if a trainer in one process cannot reach the engine through its device's memory."""
    faults = {
        f"goes through the memory of a CUDA device, and the platform is {spec.platform}": spec.platform != "cuda",
        "brings all weights, and the engine has an adapter": spec.lora is not None,
        "reaches one GPU from the trainer's process, and the engine has several": tensor_parallel_size(spec) > 1,
    }
    if fault := next((each for each, found in faults.items() if found), ""):
        raise UserError(f"config: cycle.update: ipc: vLLM's weight transfer {fault}", "set cycle.update: in_process")


PLANNING = CyclePlanning()
