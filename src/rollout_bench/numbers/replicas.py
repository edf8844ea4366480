"""Numbers of iterations on several engines: how evenly the engines ended."""

from collections.abc import Callable, Sequence

from rollout_bench.contracts.record import Iteration, Record
from rollout_bench.numbers.number import Number

BALANCE = "Balance of replicas"


def columns_of_replicas(iteration: Iteration) -> dict[str, float]:
    """Return the columns of an iteration on several engines; none for a single engine."""
    parts = iteration.replicas or []
    columns: dict[str, float] = {}
    if len(parts) > 1:
        times = [part.elapsed_s for part in parts]
        columns |= {
            "replicas": len(parts),
            "replica_imbalance": imbalance(times),
            "replica_idle_s": iteration.elapsed_s - sum(times) / len(times),
        }
    return columns


def imbalance(elapsed_s: Sequence[float]) -> float:
    """Return max(t) / mean(t) - 1 over the elapsed times t of replicas, in seconds: 0 for equal times."""
    return max(elapsed_s) * len(elapsed_s) / sum(elapsed_s) - 1


def most_of(value: Callable[[Iteration], float | None]) -> Callable[[Record], float | None]:
    """Return a function of a record: the largest `value` over its measured iterations; None if none has one."""

    def read(record: Record) -> float | None:
        values = (value(iteration) for iteration in record.iterations if not iteration.warmup)
        return max((known for known in values if known is not None), default=None)

    return read


def _start_spread_s(iteration: Iteration) -> float | None:
    parts = iteration.replicas or []
    return max(part.start_offset_s for part in parts) if len(parts) > 1 else None


REPLICAS = (
    Number(
        name="replicas",
        unit="",
        header="replicas",
        definition="Number of engines that share an iteration.",
        numerator="replicas",
        table=BALANCE,
        digits=0,
    ),
    Number(
        name="replica_imbalance",
        unit="",
        header="imbalance %",
        definition="Elapsed time of an iteration's slowest replica / mean elapsed time of all replicas, minus 1; mean "
        "over iterations, then over launches.",
        numerator="replica_imbalance",
        table=BALANCE,
        factor=100,
        digits=2,
    ),
    Number(
        name="replica_idle_share",
        unit="share",
        header="replicas idle %",
        definition="Share of the step time in which a replica's devices waited for the slowest replica; mean over "
        "replicas: the unused share of the devices' time.",
        numerator="replica_idle_s",
        denominator="elapsed_s",
        table=BALANCE,
        factor=100,
        digits=2,
    ),
    Number(
        name="replica_start_spread_s",
        unit="s",
        header="start spread ms",
        definition="Time from the start of the first replica to the start of the last, in the worst iteration.",
        read=most_of(_start_spread_s),
        across="max",
        table=BALANCE,
        factor=1e3,
        digits=2,
    ),
)
