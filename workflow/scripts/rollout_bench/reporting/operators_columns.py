"""The columns of the tables of operators mode."""

from __future__ import annotations

from rollout_bench.reporting.columns import Column


def _cell(header: str, field: str, definition: str, words: bool = False) -> Column:
    return Column(header, definition, lambda line: line[field], words)


_LAYER = (
    _cell("layer", "layer", "", words=True),
    _cell("K x N", "shape", "Features in and out of each layer, fused and cut by tensor parallelism as it runs."),
    _cell("layers", "layers", "How many layers have that shape."),
)

BREAK_EVEN = (
    *_LAYER,
    _cell(
        "break-even M",
        "break_even",
        "Numbers of tokens in a call from which on (>=) or up to which (<=) the quant is faster than the baseline, "
        "interpolated between those measured; in brackets the numbers at which the bands of the speed-up cross 1. "
        "Not clear: no speed-up has an interval without 1.",
        words=True,
    ),
    _cell("faster at M", "faster", "Measured numbers of tokens at which the interval lies above 1.", words=True),
    _cell("slower at M", "slower", "The same below 1.", words=True),
    _cell("least / most M", "ends", "Speed-ups at the least and at the largest number of tokens."),
)
"""Where a quant overtakes the baseline."""

BATCH = (
    *_LAYER,
    _cell("M", "batch", "The batch in use: sequences that decode at once under the workload, if all do."),
    _cell(
        "us per call",
        "us",
        "Time of one call at that batch, activation quantization included, in microseconds: median over rounds, mean "
        "over launches.",
    ),
    _cell("speed-up", "speedup", "The baseline's time over its own."),
)
"""Each layer at the batch in use."""

STEP = (
    _cell("decode ms", "decode", "All linear layers of a decode step at the batch in use, each times its number."),
    _cell("decode speed-up", "decode_speedup", "The baseline's over its own: the most a decode step could gain."),
    _cell(
        "prefill us/token",
        "prefill",
        "All linear layers but lm_head at the largest number of tokens measured, over that number.",
    ),
    _cell("prefill speed-up", "prefill_speedup", "The baseline's over its own."),
    _cell("profiled ms", "profiled", "Linear layers of a decode step in the profile."),
    _cell("share %", "share", "Their share of the profile's step."),
    _cell(
        "predicted decode step",
        "end_to_end",
        "Speed-up of the whole decode step if its linear layers alone change, by Amdahl's law from the baseline's "
        "share.",
    ),
)
"""The linear layers of a whole step."""

PASS = (
    _cell(
        "linear s",
        "linear",
        "All linear layers of a pass of the workload, from their times alone: its decode steps at the batch in use, "
        "and prefill of the prompt tokens that no cache held.",
    ),
    _cell("of the pass %", "of_pass", "Their share of the pass that offline mode measured."),
    _cell(
        "predicted",
        "predicted",
        "Speed-up of the baseline's pass with these linear layers and all else as it is: by Amdahl's law. The interval "
        "is that of the linear layers' times.",
    ),
    _cell("measured", "measured", "Speed-up of output tok/s in offline mode."),
)
"""Predicted against measured end to end."""

OPTIONAL = ("profiled ms", "share %", "predicted decode step")
"""Columns that are left out where no line has anything in them."""
