"""Numbers of a cycle: generation, the transition after it with its parts, the update, and memory."""

from collections.abc import Mapping

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.cycle.record import PartName, Transition
from rollout_bench.numbers.number import Number

STEP = "What a step costs"
PARTS = "Parts of a transition"
UPDATE = "Parts of an update"
MEMORY = "Memory"

_PARTS: Mapping[PartName, str] = {
    "drain": "Waiting until the engine was idle, in milliseconds.",
    "pause": "Pausing the engine, which keeps its memory, and requests under way if there are any.",
    "sleep": "Putting the engine to sleep, which frees memory.",
    "wake_weights": "Waking only the weights.",
    "update": "Loading the new weights.",
    "reset_prefix_cache": "Emptying the prefix cache of the old weights.",
    "wake_kv_cache": "Waking the KV cache.",
    "resume": "Resuming the paused engine.",
}
_UNDER_WAY = (
    ("requests", "under way", "Requests in the engine's batch at an in-flight update."),
    ("waiting", "waiting", "Requests that wait for room in it at an in-flight update."),
    ("tokens", "their tokens", "Tokens of sequences begun before an in-flight update; each sample counts its prompt."),
    ("recomputed", "requests recomputed", "Requests under way whose KV cache was dropped and computed again."),
    (
        "recomputed_tokens",
        "tokens recomputed",
        "Tokens that they computed again, without those that another's KV cache had.",
    ),
)
_LOOKS = {
    "before": ("", "at the end of generation"),
    "asleep": (" asleep", "while the engine slept or paused: the memory available to a trainer"),
    "after": (" after", "at the end of the transition"),
}


def columns_of(iteration: Iteration, spec: Spec) -> dict[str, float]:
    """Return the columns of an iteration with the transition after it."""
    if (transition := iteration.of(Transition)) is None:
        return {}
    update = transition.update.model_dump(exclude={"weights"}, exclude_none=True)
    under_way = transition.under_way.model_dump(exclude_none=True) if transition.under_way else {}
    device = {look.when: look.device_free_bytes for look in transition.memory}
    return {
        "transition_s": transition.elapsed_s,
        "whole_s": iteration.whole_s,
        **{f"transition_{part.name}_s": transition.part_s(part.name) for part in transition.parts},
        **{f"update_{name}": value for name, value in update.items()},
        **{f"device_free_{when}_bytes": free for when, free in device.items() if free is not None},
        **{f"host_{look.when}_bytes": look.host_bytes for look in transition.memory},
        **{f"under_way_{name}": value for name, value in under_way.items()},
    }


def transition_s(iteration: Iteration) -> float:
    """Return the seconds of the transition after an iteration."""
    return iteration.whole_s - iteration.elapsed_s


def _update(name: str, unit: str, header: str, definition: str, factor: float = 1e3, digits: int = 3) -> Number:
    name = f"update_{name}"
    return Number(
        name, unit, header, definition, numerator=name, mode="cycle", table=UPDATE, factor=factor, digits=digits
    )


def _memory(name: str, header: str, definition: str) -> Number:
    return Number(name, "bytes", header, definition, numerator=name, mode="cycle", table=MEMORY, factor=1 / 2**30)


NUMBERS = (
    Number(
        name="cycle_s",
        unit="s",
        header="transition s",
        definition="Time from the last token until the engine can generate again, with new weights, in seconds; of "
        "an in-flight update the time in which requests under way stall. "
        "It excludes the time in which a trainer has the device. Mean over measured iterations, then "
        "over launches.",
        better="lower",
        numerator="transition_s",
        mode="cycle",
        speedup="transition speed-up",
        table=STEP,
    ),
    Number(
        name="whole_step_s",
        unit="s",
        header="whole step s",
        definition="Generation plus the transition after it, in seconds: the time for which a training step needs the "
        "rollout engine. Mean over measured iterations, then over launches.",
        better="lower",
        numerator="whole_s",
        mode="cycle",
        speedup="whole-step speed-up",
        table=STEP,
    ),
    Number(
        name="transition_share",
        unit="share",
        header="transition %",
        definition="Transition s as a share of the whole step.",
        numerator="transition_s",
        denominator="whole_s",
        mode="cycle",
        table=STEP,
        factor=100,
        digits=3,
    ),
    *(
        Number(
            f"transition_{name}_s", "s", f"{name.replace('_', ' ')} ms", text,
            numerator=f"transition_{name}_s", mode="cycle", table=PARTS, part=True, factor=1e3, digits=3,
        )
        for name, text in _PARTS.items()
    ),
    *(
        Number(
            f"under_way_{name}", "", header, f"{text} Mean over measured iterations, then over launches.",
            numerator=f"under_way_{name}", mode="cycle", table=PARTS, digits=4,
        )
        for name, header, text in _UNDER_WAY
    ),
    _update("transfer_s", "s", "transfer ms", "Time until the trainer's tensors were on the engine's device."),
    _update("quantize_s", "s", "quantize ms", "Quantizing bf16 weights for the engine's format."),
    _update(
        "load_s",
        "s",
        "load ms",
        "Rest of the update: vLLM copies weights into place, repacks them, and may quantize them.",
    ),
    _update(
        "size_bytes",
        "bytes",
        "handed over MB",
        "Size of the trainer's tensors, in megabytes (10^6 bytes); empty if vLLM reads a checkpoint.",
        1e-6,
    ),
    _update("buckets", "", "buckets", "Number of pieces in which the trainer hands over its tensors.", 1, 0),
    *(
        _memory(f"device_free_{when}_bytes", f"device free{word} GiB", f"Least free memory of a device, {text}.")
        for when, (word, text) in _LOOKS.items()
    ),
    *(
        _memory(f"host_{when}_bytes", f"host{word} GiB", f"Host memory of the engine's processes, {text}.")
        for when, (word, text) in _LOOKS.items()
    ),
)  # fmt: skip
