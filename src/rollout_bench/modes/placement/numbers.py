"""Numbers of a placement's step: generation, training, update, and the time that devices wait."""

from rollout_bench.contracts.record import Iteration
from rollout_bench.contracts.spec import Spec
from rollout_bench.modes.placement.record import Activity, PlacedStep, placed_engines
from rollout_bench.modes.placement.settings import PlacementSpec
from rollout_bench.numbers.number import Number

STEP = "Where engine and trainer live"
PARTS = "Parts of a step"

GENERATING: tuple[Activity, ...] = ("generate",)
TRAINING: tuple[Activity, ...] = ("train", "reduce", "optimize")
UPDATING: tuple[Activity, ...] = ("update", "reset")
GATHERING: tuple[Activity, ...] = ("gather",)
SLEEPING: tuple[Activity, ...] = ("sleep", "wake")


def columns_of(iteration: Iteration, spec: Spec) -> dict[str, float]:
    """Return the columns of a placed step.

    Generation, training, update, gathering and sleep are the seconds of the device that spent most time on them: the
    other devices wait for it.
    """
    if (step := iteration.of(PlacedStep)) is None:
        return {}
    placement = spec.of(PlacementSpec)

    def slowest(*activities: Activity) -> float:
        return max(rank.busy_s(*activities) for rank in step.ranks)

    def idle(ranks: range) -> float:
        waited_s = sum(step.elapsed_s - step.ranks[rank].busy_s() for rank in ranks)
        return max(0.0, round(waited_s / len(ranks), 9))  # activities may add up to a rounding error more

    columns = {
        "placed_s": step.elapsed_s,
        "placed_device_s": placement.devices * step.elapsed_s,
        "generation_s": slowest(*GENERATING),
        "training_s": slowest(*TRAINING),
        "update_s": slowest(*UPDATING),
        "gather_s": slowest(*GATHERING),
        "generators_idle_s": idle(placement.generating),
        "trainers_idle_s": idle(placement.training),
        "sequences_per_engine": sum(rank.sequences for rank in step.ranks)
        / len(placed_engines(spec))
        / placement.generations,
        "gathered_bytes": step.gathered_bytes,
        "received_bytes": step.update_bytes,
    }
    return columns | ({"asleep_s": slowest(*SLEEPING)} if placement.sleep else {})


def _part(name: str, header: str, definition: str, unit: str = "s") -> Number:
    part = unit == "s" and name != "generation_s"  # t90_s and tail_s are its parts
    return Number(name, unit, header, definition, numerator=name, mode="placement", table=PARTS, part=part, digits=3)


def _idle(who: str, definition: str) -> Number:
    return Number(
        name=f"{who}_idle_share",
        unit="share",
        header=f"{who} idle %",
        definition=definition,
        numerator=f"{who}_idle_s",
        denominator="placed_s",
        mode="placement",
        table=PARTS,
        factor=100,
        digits=3,
    )


NUMBERS = (
    Number(
        name="placed_step_s",
        unit="s",
        header="RL step s",
        definition="A whole step of a placement, in seconds: from the release of all devices until the last device has "
        "trained and has new weights. Mean over measured iterations, then over launches.",
        better="lower",
        numerator="placed_s",
        mode="placement",
        speedup="RL-step speed-up",
        table=STEP,
    ),
    Number(
        name="placed_device_s",
        unit="s",
        header="device-seconds",
        definition="Devices x RL step s: the cost of a step if devices are paid for by time.",
        better="lower",
        numerator="placed_device_s",
        mode="placement",
        speedup="device-seconds gain",
        words=("as cheap", "cheaper", "dearer"),
        table=STEP,
        digits=3,
    ),
    _part(
        "generation_s",
        "generation s",
        "Generation time of the device that generates longest, in seconds; mean over iterations, then over launches, "
        "as in all columns here.",
    ),
    _part(
        "training_s",
        "training s",
        "Forward, backward, sum of gradients and optimizer, on the device that trains longest.",
    ),
    _part(
        "update_s",
        "update s",
        "Loading new weights into the engines and resetting the engines, on the device that needs longest.",
    ),
    _part(
        "gather_s",
        "gather s",
        "Handing over sequences (and prompts, if devices that train share an engine), on the device that needs "
        "longest.",
    ),
    _part(
        "asleep_s",
        "sleep and wake s",
        "Putting an engine to sleep and waking it, on the device that needs longest.",
    ),
    _idle("generators", "Share of a step in which a device that generates is idle; mean over these devices."),
    _idle(
        "trainers",
        "Share of a step in which a device that trains is idle; mean over these devices. If all devices are "
        "colocated, it equals generators idle %.",
    ),
    _part(
        "sequences_per_engine",
        "sequences per engine",
        "Sequences of an engine in a generation; mean over engines.",
        unit="",
    ),
    Number(
        name="gathered_bytes",
        unit="bytes",
        header="gathered bytes",
        definition="Bytes of the sequences that were handed over in a step.",
        numerator="gathered_bytes",
        mode="placement",
    ),
    Number(
        name="received_bytes",
        unit="bytes",
        header="received bytes",
        definition="Bytes of weights that each engine received in a step.",
        numerator="received_bytes",
        mode="placement",
    ),
)
