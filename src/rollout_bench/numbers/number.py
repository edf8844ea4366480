"""A number of a launch, and its value over iterations."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout_bench.contracts.record import Record
from rollout_bench.core.numbers import count, number

Columns = Mapping[str, float]
"""Amounts of one iteration by name, such as `output_tokens` or `elapsed_s`; unknown ones are missing."""

ONE = "iterations"
"""The column that is 1 in each iteration: over it, a sum becomes a mean."""


P99 = "e2el_p99_launch_mean_s"
"""The number that only experiments have whose launches all have enough requests for it."""


@dataclass(frozen=True)
class Number:
    """A number of a launch; a row has its mean over valid launches, and if one direction is better, its speed-up.

    With `numerator`, it is sum(numerator) / sum(denominator) over measured iterations, so that single iterations and
    all launches together have it too. With `read`, only launches have it. With neither, it is computed from a launch's
    requests.

    Args:
        name: in configs, summary.csv and summary.html; it ends with the unit.
        unit: of the value; empty for a count.
        header: of its column in a table, and its name in a sentence.
        definition: at the foot of the summary and in the reference.
        better: the better direction; empty for a number without a verdict.
        numerator: column of iterations that is summed.
        denominator: column of iterations whose sum divides it.
        read: function of a record with at least one measured iteration; returns None if unknown.
        across: how the values of valid launches become that of a row.
        of: times that it is computed from, which are in a side file; empty if the record has all of it.
        mode: the only mode that has it; empty for all modes.
        table: the table that shows it; empty if only files and the explorer have it.
        speedup: header of its speed-up's column; empty if neither direction is better.
        words: words for a ratio, for better and for worse.
        part: whether it is a part of a step's time that overlaps with no other such part.
        set_by_load: whether a load with arrival times determines it, as long as the server keeps up.
        factor: factor from the value to the unit in `header`, such as seconds to milliseconds.
        digits: significant digits in tables; 0 for whole numbers.
    """

    name: str
    unit: str
    header: str
    definition: str
    better: Literal["higher", "lower", ""] = ""
    numerator: str = ""
    denominator: str = ONE
    read: Callable[[Record], float | None] | None = None
    across: Literal["mean", "min", "max"] = "mean"
    of: Literal["", "sequences", "requests"] = ""
    mode: str = ""
    table: str = ""
    speedup: str = ""
    words: tuple[str, str, str] = ("as fast", "faster", "slower")
    part: bool = False
    set_by_load: bool = False
    factor: float = 1
    digits: int = 4

    def ratio_over(self, iterations: Iterable[Columns]) -> float | None:
        """Return the value over `iterations`; None if none of them has both columns, or if the divisor is zero."""
        with_both = [columns for columns in iterations if self.numerator in columns and self.denominator in columns]
        bottom = sum(columns[self.denominator] for columns in with_both)
        return sum(columns[self.numerator] for columns in with_both) / bottom if bottom else None

    def aggregate(self, values: Sequence[float]) -> float:
        """Return the value of a row from the `values` [n >= 1] of its valid launches."""
        return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}[self.across]

    def text(self, value: float | None) -> str:
        """Return `value` as a table shows it."""
        if value is None or self.digits:
            return number(None if value is None else self.factor * value, self.digits or 1)
        return count(round(self.factor * value))
