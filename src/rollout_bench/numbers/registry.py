"""The registry of numbers."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from rollout_bench.contracts.fields import brackets, no_duplicates
from rollout_bench.contracts.modes import MODES
from rollout_bench.numbers.generation import DRAFTS, ENERGY_USED, GENERATION, GRAPHS_USED, ROUTED
from rollout_bench.numbers.launch import LAUNCH
from rollout_bench.numbers.number import Number
from rollout_bench.numbers.replicas import REPLICAS
from rollout_bench.numbers.sequences import SEQUENCES

_OF_MODES: tuple[Number, ...] = tuple(
    number for mode in MODES.values() if mode.numbers for number in mode.numbers.get()
)

_ALL = (*GENERATION, *_OF_MODES, *SEQUENCES, *REPLICAS, *ENERGY_USED, *DRAFTS, *GRAPHS_USED, *ROUTED, *LAUNCH)

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
