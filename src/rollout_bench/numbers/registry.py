"""The registry of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from rollout_bench.contracts.fields import brackets, no_duplicates
from rollout_bench.numbers.cycle import CYCLE
from rollout_bench.numbers.generation import DRAFTS, ENERGY_USED, GENERATION
from rollout_bench.numbers.launch import LAUNCH
from rollout_bench.numbers.placement import PLACEMENT
from rollout_bench.numbers.requests import REQUESTS
from rollout_bench.numbers.rollout import ROLLOUT
from rollout_bench.numbers.sequences import SEQUENCES
from rollout_bench.numbers.startup import STARTUP

_ALL = (
    *GENERATION,
    *CYCLE,
    *PLACEMENT,
    *SEQUENCES,
    *ROLLOUT,
    *REQUESTS,
    *ENERGY_USED,
    *DRAFTS,
    *STARTUP,
    *LAUNCH,
)

NUMBERS = {number.name: number for number in _ALL}
"""Every number by its name, in the order of the columns of summary.csv."""

COMPARED = tuple(number.name for number in _ALL if number.better)
"""Numbers with a verdict, which a config can name as metrics."""

if TYPE_CHECKING:
    MetricName = str
else:
    MetricName = Literal[COMPARED]
    """A name in `COMPARED`; no type checker follows a registry."""

Metrics = Annotated[list[MetricName], BeforeValidator(brackets), AfterValidator(no_duplicates)]
"""A selection of metrics: at least one, without repetition."""
