"""The same load through `LLM.generate()` and behind a server: throughputs, sequences at once, speed-ups."""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout_bench.analysis.timed.rows import Row
from rollout_bench.contracts.modes import MODES, mode_of
from rollout_bench.core.mappings import grouped
from rollout_bench.core.numbers import number, ratio
from rollout_bench.numbers.registry import NUMBERS
from rollout_bench.report.headings import speedup_column
from rollout_bench.report.parts import Findings
from rollout_bench.report.views import Column, Entry, View, view

_RATE, _RUNNING, _IN_FLIGHT = (NUMBERS[name] for name in ("output_tokens_per_s", "most_running", "in_flight_most"))


@dataclass(frozen=True)
class Beside:
    """An experiment offline, and the load of its server with the most output tokens per second."""

    offline: Row
    served: Row

    @property
    def share(self) -> float:
        """The server's output tokens per second, divided by those offline."""
        return self.served.values[_RATE.name] / self.offline.values[_RATE.name]


def both_ways(findings: Findings) -> list[Beside]:
    """Return the experiments that were measured offline and behind a server, with the same names."""
    offline = {_names(row): row for row in findings.rows if row.used and _is_offline(row)}
    served = grouped((_names(row), row) for row in findings.rows if row.used and mode_of(row.experiment.mode).has_loads)
    return [
        Beside(offline[names], max(loads, key=lambda row: row.values[_RATE.name]))
        for names, loads in served.items()
        if names in offline
    ]


def beside_view(findings: Findings, found: Sequence[Beside]) -> View:
    """Return the table with a line for each of `found`."""
    cell = speedup_column("output_tokens_per_s", findings.collection.comparison, findings.notes).cell
    assert cell is not None
    columns: tuple[Column[Beside], ...] = (
        Column("offline tok/s", _RATE.definition, lambda each: _RATE.text(each.offline.values[_RATE.name])),
        Column(
            "server tok/s",
            "The same behind a server, of its load with the most.",
            lambda each: _RATE.text(each.served.values[_RATE.name]),
        ),
        Column("server / offline", "Ratio of the two.", lambda each: ratio(each.share)),
        Column(
            "offline at once",
            f"{_RUNNING.definition} It is the M of the matrix products of a decode step.",
            lambda each: number(each.offline.values.get(_RUNNING.name), 1),
        ),
        Column(
            "server at once",
            _IN_FLIGHT.definition,
            lambda each: number(each.served.values.get(_IN_FLIGHT.name), 1),
        ),
        Column("offline speed-up", "Speed-up of output tok/s.", lambda each: cell(each.offline), words=True),
        Column("server speed-up", "The same behind a server.", lambda each: cell(each.served), words=True),
    )
    entries = [
        Entry(
            {
                "model": each.served.experiment.model,
                "workload": each.served.experiment.whole.workload,
                "quant": each.served.label,
            },
            each,
        )
        for each in found
    ]
    platforms = dict.fromkeys(each.served.experiment.platform for each in found)
    return view("Offline beside the server: ", ", ".join(platforms), columns, entries)


def _is_offline(row: Row) -> bool:
    return MODES.get("offline") is mode_of(row.experiment.mode)


def _names(row: Row) -> tuple[str, ...]:
    whole = row.experiment.whole
    return whole.platform, whole.model, whole.workload, whole.quant, whole.setting
